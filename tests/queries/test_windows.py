"""Windows, and maps of any resolution over a scan."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_limited.errors import LimitedError
from nnunet_limited.queries.windows import Granularity, MapExtent, Window


def test_patches_cover_the_image_to_its_border():
    windows = Granularity("patch", size=(4, 5, 40)).window_grid((10, 11, 12), (1, 1, 1), "c")
    covered = np.zeros((10, 11, 12), bool)
    for window in windows.windows("c"):
        assert window.size == (4, 5, 12)  # cut to the image
        assert covered[window.inside].shape == window.size
        covered[window.inside] = True
    assert covered.all()
    assert len(windows) == len(windows.windows("c")) == 4 * 4 * 1


def test_slices_lie_across_the_largest_spacing():
    windows = Granularity("slice").window_grid((4, 5, 6), (1, 3, 1), "c")
    assert windows.windows("c") == [Window("c", (0, n, 0), (4, 1, 6)) for n in range(5)]
    assert len(Granularity("slice", axis=2).window_grid((4, 5, 6), (1, 3, 1), "c")) == 6
    assert Granularity().window_grid((4, 5, 6), (1, 3, 1), "c").windows("c") == [Window("c", (0, 0, 0), (4, 5, 6))]


def test_sizes_and_axes_that_do_not_fit():
    with pytest.raises(LimitedError, match=r"--axis 3: case c has the axes 0 to 2"):
        Granularity("slice", axis=3).window_grid((4, 5, 6), (1, 1, 1), "c")
    with pytest.raises(LimitedError, match=r"--size 4x5 has 2 numbers, case c 3 axes"):
        Granularity("patch", size=(4, 5)).window_grid((4, 5, 6), (1, 1, 1), "c")


def test_sums_on_the_scan_itself():
    values = np.random.default_rng(0).random((2, 6, 9, 7))
    windows = Granularity("patch", size=(3, 4, 2)).window_grid(values.shape[1:], (1, 1, 1), "c")
    sums = MapExtent((0, 0, 0), values.shape[1:]).sums(values, windows.bounds).reshape(2, -1)
    for n, window in enumerate(windows.windows("c")):
        assert np.allclose(sums[:, n], values[(slice(None), *window.inside)].sum((1, 2, 3)))


def test_sums_of_a_map_of_another_resolution():
    """The map has half of the resolution of the scan, of which it covers the voxels 2 to 10; sums are in its voxels."""
    small = np.random.default_rng(0).random((4, 3))
    scan = np.zeros((12, 9))
    scan[2:10, 1:7] = np.kron(small, np.ones((2, 2)))
    windows = Granularity("patch", size=(3, 5)).window_grid(scan.shape, (1, 1), "c")
    sums = MapExtent((2, 1), (10, 7)).sums(small, windows.bounds).ravel()
    assert np.allclose(sums, [scan[window.inside].sum() for window in windows.windows("c")])


def test_a_map_spread_on_its_scan() -> None:
    spread = MapExtent((1, 0), (5, 6)).spread(np.array([[1, 2, 3], [4, 5, 6]]), (7, 6))
    expected = np.zeros((7, 6))
    expected[1:5] = np.kron([[1, 2, 3], [4, 5, 6]], np.ones((2, 2)))
    assert np.array_equal(spread, expected)
