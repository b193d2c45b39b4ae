"""Labels of atlases are moved to other scans by registration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from shapes import ellipsoid, overlap, seen

from nnunet_limited.pseudo_labels.registration import Atlas, local_similarity, propagate_atlases

UNIT = (1.0, 1.0, 1.0)


@pytest.mark.parametrize(("shape", "thick"), [((16, 28, 32), 1.0), ((6, 32, 36), 5.0), ((1, 48, 52), 1.0)])
def test_labels_are_carried_by_registration(shape: tuple[int, ...], thick: float) -> None:
    spacing = (thick, 1.0, 1.0)
    size = np.array(shape)
    flat = np.where(size == 1, 9.0, 1.0)
    there = ellipsoid(shape, tuple(0.45 * (size - 1)), tuple(0.28 * size * flat))
    here = ellipsoid(shape, tuple(0.45 * (size - 1) + [0, 4, 6]), tuple(0.33 * size * flat))
    atlas = Atlas(seen(there, 1), np.stack([~there, there]).astype(np.float32), spacing)
    made, seconds = propagate_atlases(seen(here, 2), spacing, [atlas])
    assert len(seconds) == 1
    assert made.shape == (2, *shape)
    np.testing.assert_allclose(made.sum(0), 1, atol=1e-3)
    assert overlap(there, here) < 0.75
    assert overlap(made[1] > 0.5, here) > 0.85
    if shape[0] == 1:  # which is quick
        assert np.array_equal(propagate_atlases(seen(here, 2), spacing, [atlas])[0], made)
        unlike = Atlas(seen(there, 1), np.stack([there, ~there]).astype(np.float32), spacing)
        two, seconds = propagate_atlases(seen(here, 2), spacing, [atlas, unlike])
        assert len(seconds) == 2
        np.testing.assert_allclose(two[0, 0][10:-10, 10:-10], 0.5, atol=1e-3)  # alike, and contradict each other


def test_registration_bends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A straight band is carried onto a wavy one, which no affine transform can do."""
    rows, columns = np.indices((60, 64))
    straight, wavy = (abs(columns - 32 - shift) < 7 for shift in (0, 5 * np.sin(rows / 60 * 2 * np.pi)))
    atlas = Atlas(seen(straight, 1)[None], np.stack([~straight, straight])[:, None].astype(np.float32), UNIT)
    made, took = propagate_atlases(seen(wavy, 2)[None], UNIT, [atlas], tmp_path)
    assert overlap(straight, wavy) < 0.8
    assert overlap(made[1, 0] > 0.5, wavy) > 0.9
    (known,) = tmp_path.iterdir()

    with monkeypatch.context() as patched:  # what has been registered is not registered again, and is the same
        patched.setattr(sitk.ImageRegistrationMethod, "Execute", lambda *_: pytest.fail("registered again"))
        again, seconds = propagate_atlases(seen(wavy, 2)[None], UNIT, [atlas], tmp_path)
    assert seconds == pytest.approx(took, rel=0.5)  # of the first time
    np.testing.assert_array_equal(again, made)
    for damaged in (b"PK", known.read_bytes()[:-200]):
        known.write_bytes(damaged)
        np.testing.assert_array_equal(propagate_atlases(seen(wavy, 2)[None], UNIT, [atlas], tmp_path)[0], made)
    propagate_atlases(seen(wavy, 3)[None], UNIT, [atlas], tmp_path)  # another image is another registration
    propagate_atlases(seen(wavy, 2)[None], (1.0, 1.0, 1.5), [atlas], tmp_path)  # and so is another spacing
    assert len(list(tmp_path.iterdir())) == 3
    assert known in tmp_path.iterdir()


@pytest.mark.slow
def test_what_cannot_be_registered_is_no_atlas() -> None:
    thin, thick = np.zeros((2, 20, 20)), seen(ellipsoid((9, 20, 20), (4, 10, 10), (3, 6, 6)))
    atlas = Atlas(thick, np.stack([thick < 0.6, thick > 0.6]).astype(np.float32), UNIT)
    made, seconds = propagate_atlases(thin, UNIT, [atlas])
    assert seconds == []
    assert np.isnan(made).all()
    wide = np.random.default_rng(0).normal(size=(5, 300, 300))  # too large, but not across its slices
    fine = (0.5, 1.0, 1.0)
    assert (
        len(propagate_atlases(wide, fine, [Atlas(wide, np.stack([wide < 0, wide > 0]).astype(np.float32), fine)])[1])
        == 1
    )


def test_registration_is_left_to_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads
    before, used = threads(), []

    def execute(*_: object) -> None:
        used.append(threads())
        raise RuntimeError("not registered")

    monkeypatch.setattr(sitk.ImageRegistrationMethod, "Execute", execute)
    image = np.zeros((4, 5, 6))
    propagate_atlases(image, UNIT, [Atlas(image, np.stack([image < 1, image > 1]).astype(np.float32), UNIT)])
    assert used == [1]
    assert threads() == before


def test_what_looks_alike_counts_more() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(6, 20, 20))
    noise = rng.normal(size=image.shape)
    np.testing.assert_allclose(local_similarity(image, 3 * image + 2, (5, 5, 5)), 1, atol=1e-5)
    np.testing.assert_allclose(local_similarity(image, -image, (1, 5, 5)), -1, atol=1e-5)
    assert abs(local_similarity(image, noise, (5, 5, 5)).mean()) < 0.05
    assert np.isfinite(local_similarity(np.zeros_like(image), image, (5, 5, 5))).all()
