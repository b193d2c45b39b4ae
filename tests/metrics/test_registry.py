"""Metrics of two masks against their definitions, SimpleITK's values, and the rules for empty masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk
from shapes import blob

from nnunet_limited.metrics.registry import METRICS, MaskPair, Metric, compare

SPACINGS = {2: (2.0, 0.5), 3: (5.0, 0.8, 1.3)}


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
    found = compare(MaskPair(prediction, truth, spacing))
    both, either = (prediction & truth).sum(), (prediction | truth).sum()
    there, back = distances(prediction, truth, spacing), distances(truth, prediction, spacing)
    assert found["dice"] == pytest.approx(2 * both / (prediction.sum() + truth.sum()), abs=1e-6)
    assert found["iou"] == pytest.approx(both / either, abs=1e-6)
    assert found["sensitivity"] == pytest.approx(1 - (truth & ~prediction).sum() / truth.sum())
    assert found["precision"] == pytest.approx(1 - (prediction & ~truth).sum() / prediction.sum())
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
    assert compare(MaskPair(prediction, truth, spacing))["dice"] == pytest.approx(
        overlap.GetDiceCoefficient(), abs=1e-6
    )
    distance = sitk.HausdorffDistanceImageFilter()
    single = np.zeros(shape, bool)
    single[tuple(size // 4 for size in shape)] = True
    image = sitk.GetImageFromArray(single.astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    distance.Execute(images[1], image)
    # From a single voxel outside, an object and its surface are as far away.
    to_voxel = distances(truth, single, spacing)
    assert distance.GetHausdorffDistance() == pytest.approx(to_voxel.max(), abs=1e-4)
    assert compare(MaskPair(single, truth, spacing))["hd95"] == pytest.approx(np.percentile(to_voxel, 95), abs=1e-4)


def test_what_is_empty_has_a_rule() -> None:
    full, empty = np.ones((3, 4), bool), np.zeros((3, 4), bool)
    assert all(math.isnan(value) for value in compare(MaskPair(empty, empty, (1, 1), 1.0)).values())
    for one, other in ((full, empty), (empty, full)):
        found = compare(MaskPair(one, other, (2.0, 3.0), 1.0))
        assert [found[name] for name in ("dice", "iou", "nsd", "sensitivity", "precision")] == [0] * 5
        assert found["hd95"] == found["asd"] == pytest.approx(math.hypot(6, 12))
        assert found["volume_error"] == 72
    same = compare(MaskPair(full, full, (2.0, 3.0), 0.0))
    assert [same[name] for name in METRICS] == [1, 1, 0, 0, 1, 0, 1, 1]


def test_headings_have_the_unit() -> None:
    assert [METRICS[name].heading(voxels=False) for name in ("dice", "hd95")] == ["Dice", "HD95 (mm)"]
    assert METRICS["volume_error"].heading(voxels=True) == "volume error (voxels³)"


def test_a_metric_that_is_bad_when_high_is_1_for_an_empty_mask() -> None:
    misses = Metric("misses", "misses", "", False, lambda pair: 1 - pair.overlap / pair.sizes[1])
    full, empty = np.ones((3, 4), bool), np.zeros((3, 4), bool)
    assert [misses(MaskPair(one, full, (1, 1))) for one in (full, empty)] == [0, 1]
