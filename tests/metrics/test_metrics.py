"""Metrics against hand-computed values, the host's own and SimpleITK's, and the command that computes them."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_limited.errors import LimitedError
from nnunet_limited.metrics.metrics import METRICS, metrics
from nnunet_limited.runs.evaluate import EvaluateRequest, evaluate, summarise, write_rows

SPACINGS = {2: (2.0, 0.5), 3: (5.0, 0.8, 1.3)}


def blob(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """An object with a ragged border, away from the image's."""
    rng = np.random.default_rng(seed)
    places = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    centre = rng.uniform(-0.15, 0.15, len(shape))
    radius = sum((p - c) ** 2 for p, c in zip(places, centre, strict=True))
    return radius + rng.normal(0, 0.02, shape) < 0.25


def surface(mask: np.ndarray) -> np.ndarray:
    """The voxels of a mask of which some neighbour by a face is outside, with loops over the axes."""
    padded = np.pad(mask, 1)
    inner = padded.copy()
    for axis in range(mask.ndim):
        for step in (-1, 1):
            inner &= np.roll(padded, step, axis)
    return (padded & ~inner)[tuple(slice(1, -1) for _ in mask.shape)]


def distances(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """The distance of each surface voxel of ``a`` to the nearest one of ``b``, all pairs compared."""
    here, there = (np.argwhere(surface(mask)) * spacing for mask in (a, b))
    return np.array([np.linalg.norm(there - place, axis=1).min() for place in here])


@pytest.mark.parametrize("shape", [(24, 30), (9, 20, 24)])
@pytest.mark.parametrize("seed", [0, 1])
def test_metrics_equal_their_definitions(shape: tuple[int, ...], seed: int) -> None:
    prediction, truth = blob(shape, 2 * seed), blob(shape, 2 * seed + 1)
    spacing = SPACINGS[len(shape)]
    found = metrics(prediction, truth, spacing, 1.0)
    both, either = (prediction & truth).sum(), (prediction | truth).sum()
    there, back = distances(prediction, truth, spacing), distances(truth, prediction, spacing)
    assert found["dice"] == pytest.approx(2 * both / (prediction.sum() + truth.sum()), abs=1e-6)
    assert found["iou"] == pytest.approx(both / either, abs=1e-6)
    voxel = math.prod(spacing)
    assert found["volume_error"] == pytest.approx(abs(int(prediction.sum()) - int(truth.sum())) * voxel)
    assert found["hd95"] == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-4)
    assert found["asd"] == pytest.approx(np.concatenate([there, back]).mean(), abs=1e-4)
    assert found["nsd"] == pytest.approx(np.mean(np.concatenate([there, back]) <= 1.0), abs=1e-6)


@pytest.mark.parametrize("shape", [(24, 30), (9, 20, 24)])
def test_overlap_and_distance_equal_those_of_simpleitk(shape: tuple[int, ...]) -> None:
    """To 1e-6 for Dice, to 1e-4 mm for the largest distance, which SimpleITK measures between whole objects."""
    prediction, truth = blob(shape, 4), blob(shape, 5)
    spacing = SPACINGS[len(shape)]
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (prediction, truth)]
    for image in images:
        image.SetSpacing(spacing[::-1])
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    overlap.Execute(*images)
    assert metrics(prediction, truth, spacing, 1.0)["dice"] == pytest.approx(overlap.GetDiceCoefficient(), abs=1e-6)
    distance = sitk.HausdorffDistanceImageFilter()
    single = np.zeros(shape, bool)
    single[tuple(size // 4 for size in shape)] = True
    image = sitk.GetImageFromArray(single.astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    distance.Execute(images[1], image)
    # From a single voxel outside, an object and its surface are as far away.
    to_voxel = distances(truth, single, spacing)
    assert distance.GetHausdorffDistance() == pytest.approx(to_voxel.max(), abs=1e-4)
    assert metrics(single, truth, spacing, 1.0)["hd95"] == pytest.approx(np.percentile(to_voxel, 95), abs=1e-4)


def test_what_is_empty_has_a_rule() -> None:
    full, empty = np.ones((3, 4), bool), np.zeros((3, 4), bool)
    assert all(math.isnan(value) for value in metrics(empty, empty, (1, 1), 1.0).values())
    for one, other in ((full, empty), (empty, full)):
        found = metrics(one, other, (2.0, 3.0), 1.0)
        assert [found[name] for name in ("dice", "iou", "nsd")] == [0, 0, 0]
        assert found["hd95"] == found["asd"] == pytest.approx(math.hypot(6, 12))
        assert found["volume_error"] == 72
    same = metrics(full, full, (2.0, 3.0), 0.0)
    assert [same[name] for name in METRICS] == [1, 1, 0, 0, 1, 0]


def write(file: Path, values: np.ndarray, spacing: tuple[float, ...]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(values.astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    sitk.WriteImage(image, str(file))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Predictions and labels of two anisotropic cases with regions and ignored voxels; the second has no core."""
    predicted, truth = tmp_path / "predicted", tmp_path / "truth"
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    description = {
        "labels": labels,
        "file_ending": ".nii.gz",
        "channel_names": {"0": "MR"},
        "regions_class_order": [1, 2],
    }
    for number, case in enumerate(("a", "b")):
        for folder, seed in ((predicted, number), (truth, number + 7)):
            values = blob((9, 20, 24), seed).astype(int)
            if case == "a":
                values[:, 9:11, 10:14] *= 2
            if folder == truth:
                values[:, :, :11] = 3
            write(folder / f"{case}.nii.gz", values, SPACINGS[3])
    (truth / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return predicted, truth


def test_folders_are_compared_as_nnunet_does(folders: tuple[Path, Path]) -> None:
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    predicted, truth = folders
    rows = evaluate(EvaluateRequest(predicted, truth))
    assert [(row["case"], row["class"]) for row in rows] == [(c, k) for c in "ab" for k in ("whole", "core")]
    for row in rows:
        region = {"whole": (1, 2), "core": (2,)}[row["class"]]
        files = [str(folder / f"{row['case']}.nii.gz") for folder in (truth, predicted)]
        theirs = compute_metrics(*files, SimpleITKIO(), [region], 3)["metrics"][region]
        assert row["dice"] == pytest.approx(theirs["Dice"], abs=1e-6, nan_ok=True)
        assert row["iou"] == pytest.approx(theirs["IoU"], abs=1e-6, nan_ok=True)
    assert math.isnan(rows[3]["dice"])
    summary = summarise(rows)
    assert summary["core"]["dice"] == rows[1]["dice"], "a case without the class is left out"
    assert summary["mean"]["dice"] == pytest.approx((summary["whole"]["dice"] + summary["core"]["dice"]) / 2)


def test_distances_are_in_voxels_on_request(folders: tuple[Path, Path]) -> None:
    in_mm, in_voxels = (evaluate(EvaluateRequest(*folders, voxels=voxels))[0] for voxels in (False, True))
    assert in_mm["dice"] == in_voxels["dice"]
    assert in_mm["volume_error"] == pytest.approx(in_voxels["volume_error"] * math.prod(SPACINGS[3]))
    assert in_mm["asd"] != in_voxels["asd"]


def test_images_of_one_slice_are_flat(tmp_path: Path) -> None:
    """A file of one slice is measured as the image that it is: its thickness has no say."""
    prediction, truth = blob((24, 30), 0), blob((24, 30), 1)
    for folder, mask in (("predicted", prediction), ("truth", truth)):
        write(tmp_path / folder / "a.nii.gz", mask[None], (100.0, *SPACINGS[2]))
    description = {"labels": {"background": 0, "disc": 1}, "file_ending": ".nii.gz", "channel_names": {"0": "US"}}
    (tmp_path / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    request = EvaluateRequest(tmp_path / "predicted", tmp_path / "truth", tmp_path / "dataset.json")
    expected = {"case": "a", "class": "disc", **metrics(prediction, truth, SPACINGS[2], 1.0)}
    assert evaluate(request)[0] == pytest.approx(expected)


def test_rows_are_written_and_read_again(folders: tuple[Path, Path], tmp_path: Path) -> None:
    rows = evaluate(EvaluateRequest(*folders, processes=2))
    write_rows(tmp_path / "metrics.csv", rows)
    with (tmp_path / "metrics.csv").open(encoding="utf-8") as stream:
        read = list(csv.DictReader(stream))
    assert [row["case"] for row in read] == [row["case"] for row in rows]
    assert float(read[0]["dice"]) == rows[0]["dice"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda p, t: (p / "b.nii.gz").rename(p / "c.nii.gz"), r"truth/c\.nii\.gz does not exist"),
        (lambda p, t: write(p / "b.nii.gz", np.zeros((9, 20, 23)), (1, 1, 1)), r"has shape \(9, 20, 23\)"),
        (lambda p, t: [file.unlink() for file in p.iterdir()], "holds no file"),
        (lambda p, t: (t / "dataset.json").unlink(), "name it with --dataset-json"),
    ],
)
def test_what_does_not_fit_is_refused(folders: tuple[Path, Path], wrong, told: str) -> None:
    wrong(*folders)
    with pytest.raises(LimitedError, match=told):
        evaluate(EvaluateRequest(*folders))


def test_a_case_that_should_be_there_is_missed(folders: tuple[Path, Path]) -> None:
    with pytest.raises(LimitedError, match=r"predicted/z\.nii\.gz does not exist; predict"):
        evaluate(EvaluateRequest(*folders), ["a", "z"])
