"""Scores of voxels and sums over windows, against hand-computed values and brute force."""

import numpy as np
import pytest
import torch

from nnunet_limited.errors import LimitedError
from nnunet_limited.queries.aggregation import class_counts, outline_counts
from nnunet_limited.queries.uncertainty import average, bald, disagreement, entropy, least_confidence, margin
from nnunet_limited.queries.windows import Granularity, MapExtent, Window

# ---- scores ----------------------------------------------------------------------------------------------------------


def test_scores_by_hand():
    a = torch.tensor([0.7, 0.2, 0.1]).double()[:, None]
    b = torch.tensor([0.1, 0.2, 0.7]).double()[:, None]
    mean_entropy = -(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1))
    entropy_of_mean = -(2 * 0.4 * np.log(0.4) + 0.2 * np.log(0.2))
    members = torch.stack([a, b])
    assert np.isclose(entropy(a).item(), mean_entropy)
    assert np.isclose(average(members).expected_entropy.item(), mean_entropy)
    assert np.isclose(bald(average(members)).item(), entropy_of_mean - mean_entropy)
    assert np.isclose(least_confidence(a).item(), 0.3)
    assert np.isclose(margin(a).item(), 0.5)


def test_scores_of_regions_by_hand():
    p = torch.tensor([0.9, 0.4]).double()[:, None]
    binary = [-(x * np.log(x) + (1 - x) * np.log(1 - x)) for x in (0.9, 0.4)]
    assert np.isclose(entropy(p, regions=True).item(), sum(binary))
    assert np.isclose(least_confidence(p, regions=True).item(), 0.4)
    assert np.isclose(margin(p, regions=True).item(), 0.8)
    assert np.isclose(bald(average([p, p], regions=True)).item(), 0)


def test_scores_at_the_ends():
    certain, equal = torch.tensor([1.0, 0.0])[:, None], torch.tensor([0.5, 0.5])[:, None]
    for score in (entropy, margin, least_confidence):
        assert score(certain).item() == 0
        assert score(certain, regions=True).item() == 0
    assert np.isclose(entropy(equal).item(), np.log(2))
    assert margin(equal).item() == 1
    assert bald(average([certain, certain])).item() == 0


def test_members_one_after_the_other():
    members = torch.rand(4, 3, 5, 6).softmax(1)
    before = members.clone()
    ensemble = average(iter(members))
    assert torch.equal(members, before)
    assert torch.allclose(ensemble.mean, members.mean(0))
    assert torch.allclose(ensemble.expected_entropy, torch.stack([entropy(p) for p in members]).mean(0))


def test_disagreement_by_hand():
    labels = [np.array([1, 1, 0, 2]), np.array([1, 0, 0, 2]), np.array([1, 1, 0, 0])]
    first = [1 - 2 / 3, 0, 1 - 2 / 3]  # of the pairs (0, 1), (0, 2), (1, 2)
    second = [0, 1, 1]
    whole = disagreement(labels, [1, 2], lambda mask: np.array([mask.sum()]))
    assert np.isclose(whole[0], np.mean([*first, *second]))
    ends = disagreement(labels, [1, 2], lambda mask: np.array([mask[:2].sum(), mask[2:].sum()]))
    assert np.allclose(ends, [np.mean(first), np.mean(second)])  # each half has one class only
    assert disagreement(labels[:1], [1], lambda mask: np.array([mask.sum()])) == 0
    assert disagreement(labels, [5], lambda mask: np.array([mask.sum()])) == 0


# ---- windows ---------------------------------------------------------------------------------------------------------


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


def test_voxels_count_for_the_region_whose_middle_is_nearest() -> None:
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


def test_outlines_are_those_of_each_plane_and_a_look_at_an_empty_one() -> None:
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
