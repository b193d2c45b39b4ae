"""Counts and outlines of windows, against brute force."""

from __future__ import annotations

import numpy as np

from nnunet_limited.queries.aggregation import class_counts, outline_counts
from nnunet_limited.queries.windows import Granularity, MapExtent


def test_voxels_count_for_the_window_with_the_nearest_middle() -> None:
    """Against points four times as dense, each of which counts for the nearest middle along each axis."""
    label = (np.random.default_rng(0).random((9, 14)) < 0.3).astype(int)
    windows = Granularity("patch", size=(4, 6)).window_grid(label.shape, (1, 1), "c")
    counted = class_counts(label, [1], MapExtent((0, 0), label.shape), windows)[0][:, 0]
    nearest = []
    for axis, (start, size) in enumerate(zip(windows.starts, windows.size, strict=True)):
        points = (np.arange(4 * label.shape[axis]) + 0.5) / 4
        nearest.append(np.abs(points[:, None] - (start + size / 2)).argmin(1))
    number = nearest[0][:, None] * len(windows.starts[1]) + nearest[1]
    dense = np.kron(label, np.ones((4, 4)))
    expected = [dense[number == n].sum() / 16 for n in range(len(windows))]
    assert np.allclose(counted, expected)
    assert np.ptp(expected) > 1
    solid = np.ones((9, 14), int)
    border = class_counts(solid, [1], MapExtent((0, 0), solid.shape), windows)[1]
    assert border.sum() == 9 * 14 - 7 * 12


def test_outlines_in_each_plane() -> None:
    label = np.zeros((6, 8, 8), int)
    label[1:3, 2:4, 2:4], label[2, 5:7, 5:7] = 1, 2
    masks, grid = [label == value for value in (1, 2)], MapExtent((0.0,) * 3, (6.0, 8.0, 8.0))
    whole = Granularity("patch", size=(6, 8, 8)).window_grid([6, 8, 8], [1, 1, 1], "a")
    assert outline_counts(masks, grid, whole, 0).tolist() == [1 + 1 + 2 + 1 + 1 + 1]
    quarters = Granularity("patch", size=(3, 4, 4)).window_grid([6, 8, 8], [1, 1, 1], "a")
    found = dict(
        zip([window.start for window in quarters.windows("a")], outline_counts(masks, grid, quarters, 0), strict=True)
    )
    assert found[0, 0, 0] == 3
    assert found[0, 4, 4] == 3
    assert found[3, 0, 0] == 3
    high = MapExtent((2.0, 0.0, 0.0), (8.0, 8.0, 8.0))  # the scan has two planes more, which were cropped
    whole = Granularity("patch", size=(8, 8, 8)).window_grid([8, 8, 8], [1, 1, 1], "a")
    assert outline_counts(masks, high, whole, 0).tolist() == [7 + 2]


def test_sums_on_any_grid_are_not_negative_and_nothing_comes_from_nothing() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        shape, net = rng.integers(5, 40, 2), rng.integers(5, 40, 2)
        lower = rng.uniform(0, 3, 2)
        label = np.zeros(net, int)
        label[: net[0] // 2, : net[1] // 2] = rng.random((net[0] // 2, net[1] // 2)) < 0.5
        windows = Granularity("patch", size=(4, 4)).window_grid(shape, (1, 1), "c")
        grid = MapExtent(tuple(lower), tuple(shape))
        counted = class_counts(label, [1], grid, windows)[0][:, 0]
        assert (counted >= 0).all()
        scale = (np.array(shape) - lower) / net
        assert np.isclose(counted.sum(), label.sum() * scale.prod(), rtol=1e-4)
        far = [
            n for n, r in enumerate(windows.windows("c")) if (np.array(r.start) > lower + scale * (net // 2) + 4).any()
        ]
        assert (counted[far] == 0).all()
