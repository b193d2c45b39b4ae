"""Strong views and the transfer of intensities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunet_limited.data.intensity_transfer import (
    PERCENTILES,
    IntensityTransfer,
    landmarks_of,
    matched,
)
from nnunet_limited.data.strong_views import OPERATIONS, StrongViews
from nnunet_limited.host.cases import PreprocessedCases
from nnunet_limited.util.random_state import RandomStream, seed_everything

SHAPES = [(24, 24), (4, 16, 16)]


def phantoms(count: int, shape: tuple[int, ...], channels: int = 1) -> torch.Tensor:
    """Crops of a bright object before a dark, slightly noisy background; of every tenth, the object alone."""
    grid = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij"))
    centre = 0.5 * torch.randn(count, len(shape), *[1] * len(shape))
    image = 2.0 * (((grid - centre) ** 2).sum(1, keepdim=True) < 0.3) + 0.1 * torch.randn(count, channels, *shape)
    image[::10] = 1.0
    return image


@pytest.mark.parametrize("shape", SHAPES)
def test_no_view_equals_its_crop(shape: tuple[int, ...]) -> None:
    seed_everything(1)
    image, inside = phantoms(1000, shape), torch.ones(1000, 1, *shape, dtype=torch.bool)
    inside[::7, ..., shape[-1] // 3 :] = False  # little is left to see
    image = torch.where(inside, image, 0.0)
    view = torch.cat([StrongViews([True])(*part) for part in zip(image.split(40), inside.split(40), strict=True)])
    difference = (view - image).flatten(1)
    assert difference.isfinite().all()
    assert not view[~inside].any()
    relative = difference.pow(2).mean(1).sqrt() / image.flatten(1).std(1).clamp(min=1e-2)
    assert relative.min() > 0.02  # more than rounding
    assert relative.median() > 0.3
    single = [StrongViews([True])(image[n : n + 1], inside[n : n + 1]) for n in range(100)]
    assert ((torch.cat(single) - image[:100]).flatten(1).abs().amax(1) > 0.01).all()


def test_channels_that_are_not_masked_are_changed_outside_too() -> None:
    image, inside = phantoms(20, (24, 24), 2), torch.ones(20, 1, 24, 24, dtype=torch.bool)
    inside[..., 12:] = False
    view = StrongViews([False, True])(image, inside)
    assert torch.equal(view[:, 1:][~inside], image[:, 1:][~inside])
    assert not torch.equal(view[:, :1][~inside], image[:, :1][~inside])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_every_operation_changes_every_crop(operation, shape: tuple[int, ...]) -> None:
    seed_everything(1)
    image = phantoms(12, shape, 2)
    image = image[torch.arange(12) % 10 > 0]
    view = operation(image, *([image.roll(1, 0)] if operation.__name__ == "fourier_mix" else []))
    assert view.shape == image.shape
    assert view.isfinite().all()
    difference = (view - image).flatten(1)
    assert (difference.abs().amax(1) > 0.01).all()
    assert not torch.equal(difference[0], difference[1])
    pairs = torch.stack([image.flatten(1), view.flatten(1)], 1)
    assert np.median([torch.corrcoef(pair)[0, 1] for pair in pairs]) > 0.5


def test_views_are_repeatable_and_leave_the_global_generators_alone() -> None:
    image, inside = phantoms(4, (24, 24)), torch.ones(4, 1, 24, 24, dtype=torch.bool)
    states = np.random.get_state()[1].tolist(), torch.get_rng_state()
    views = []
    for _ in range(2):
        with RandomStream((3,)).active():
            views.append(StrongViews([False])(image, inside))
    assert torch.equal(*views)
    assert np.random.get_state()[1].tolist() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


def test_half_precision_is_kept() -> None:
    image, inside = phantoms(8, (24, 24)).bfloat16(), torch.ones(8, 1, 24, 24, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        view = StrongViews([False])(image, inside)
    assert view.dtype == torch.bfloat16
    assert view.isfinite().all()


def test_matched_scans_have_the_landmarks_of_the_other() -> None:
    rng = np.random.default_rng(0)
    mine, theirs = rng.normal(0, 1, (1, 1, 40, 50)), rng.gamma(2, 3, (1, 1, 30, 30))
    source, target = (torch.tensor(np.percentile(scan, PERCENTILES))[None, None].float() for scan in (mine, theirs))
    image = torch.tensor(mine).float()
    made = matched(image, source, target)
    torch.testing.assert_close(
        torch.tensor(np.percentile(made.numpy(), PERCENTILES)), target[0, 0].double(), rtol=1e-3, atol=1e-3
    )
    order = image.flatten().argsort()
    assert (made.flatten()[order].diff() >= 0).all()
    torch.testing.assert_close(matched(image, source, source), image, rtol=1e-4, atol=1e-5)
    flat = torch.full_like(image, 2.5)
    assert matched(flat, source, target).isfinite().all()


def test_half_of_the_crops_are_blended_in_z_scored_channels(monkeypatch) -> None:
    landmarks = {case: np.stack([np.linspace(k, k + 1, 17)] * 2) for k, case in enumerate("ab")}
    seed_everything(1)
    transfer = IntensityTransfer(landmarks, [True, False])
    image = torch.rand(400, 2, 6, 6)
    made = transfer(image, ["a"] * 200 + ["unknown"] * 200)
    assert torch.equal(made[:, 1], image[:, 1])
    shift = (made - image)[:200, 0].flatten(1)
    changed = shift.abs().amax(1) > 1e-4
    assert 0.15 < changed.float().mean() < 0.35  # half of the crops, half of those by the other scan
    assert (shift[changed] >= 0.2 - 1e-4).all()
    assert (shift[changed] <= 0.8 + 1e-4).all()
    assert (made - image)[200:, 0].abs().max() <= 0.4 + 1e-4  # to the scans from the middle between them


def test_every_scan_has_landmarks_of_its_own_however_many_there_are(tmp_path, monkeypatch) -> None:
    cases = [f"{number:03}" for number in range(450)]
    for case in cases:
        (tmp_path / "scans").mkdir(exist_ok=True)
        for ending in ("", "_seg"):
            (tmp_path / "scans" / f"{case}{ending}.b2nd").touch()
    found = {case: np.full((1, 17), float(case)) for case in cases}
    module = "nnunet_limited.data.intensity_transfer"
    monkeypatch.setattr(f"{module}.landmarks_of", lambda folder, case: found[case])
    monkeypatch.setattr(f"{module}.POOL_FROM", 1000)
    for _ in range(2):
        transfer = IntensityTransfer.of({tmp_path / "scans": cases[::-1]}, ["ZScoreNormalization"])
        assert all((transfer.landmarks[transfer.rows[case]] == float(case)).all() for case in cases)
        found.clear()  # they are stored


def test_landmarks_are_those_of_the_image(workspaces) -> None:
    workspace = workspaces("3d")
    made = workspace.trainer("LimitedMeanTeacherTrainer", workspace.configure("landmarks"))
    folder, case = made.run.unlabeled_folder, made.run.fold.unlabeled[0]
    data, mask, _, _ = PreprocessedCases(str(folder), [case]).load_case(case)
    expected = np.percentile(data[:][:, mask[0] >= 0], PERCENTILES, axis=1).T
    np.testing.assert_allclose(landmarks_of(folder, case), expected, atol=0.02)
    folders = {folder: list(made.run.fold.unlabeled)}
    assert IntensityTransfer.of(folders, ["CTNormalization"]) is None
    assert set(IntensityTransfer.of(folders, ["ZScoreNormalization"]).rows) == set(made.run.fold.unlabeled)
