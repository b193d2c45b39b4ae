"""What networks see is recorded where it is in the case, and is replaced when its place is seen again."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import CLASSES, REGIONS

from nnunet_limited.data.sightings import NOWHERE, Sightings, origins

PATCH = (8, 8, 8)


def rows(case: int, corner: tuple[int, ...], matrix: np.ndarray | None = None) -> np.ndarray:
    """Return the origin of one crop."""
    return origins([case], [corner], [np.eye(4) if matrix is None else matrix]).numpy()


def see(sightings: Sightings, case: int, corner: tuple[int, ...], *voxels: tuple[int, ...]) -> None:
    """Record voxels of the first class in a crop."""
    seen = np.full((1, 2, sightings.per_crop), -1)
    for number, voxel in enumerate(voxels):
        seen[0, 0, number] = np.ravel_multi_index(voxel, PATCH)
    sightings.update(rows(case, corner), seen, PATCH)


def known(sightings: Sightings, case: str) -> list[list[int]]:
    """Return the voxels of the first class."""
    return sightings.foreground(case)[0][:, 1:].tolist()


def test_points_are_those_of_the_case_and_vanish_when_their_place_is_seen_without_them() -> None:
    sightings = Sightings(["b", "a"], 2)
    see(sightings, 1, (10, 20, 30), (0, 1, 2), (7, 7, 7))
    assert known(sightings, "b") == [[10, 21, 32], [17, 27, 37]]
    assert known(sightings, "a") == []
    assert sightings.foreground("b")[1].shape == (0, 4)
    see(sightings, 1, (14, 22, 33), (0, 0, 0))  # shows the second point, not the first
    assert known(sightings, "b") == [[14, 22, 33], [10, 21, 32]]
    see(sightings, 1, (10, 20, 30))
    assert known(sightings, "b") == []


def test_the_latest_points_stay() -> None:
    sightings = Sightings(["a"], 2)
    for crop in range(6):
        see(sightings, 0, (10 * crop, 0, 0), *((0, 0, voxel // 2) for voxel in range(sightings.per_crop)))
    stayed = known(sightings, "a")
    assert len(stayed) == sightings.points.shape[2] == 4 * sightings.per_crop
    assert {point[0] for point in stayed} == {20, 30, 40, 50}


def test_crops_of_unknown_place_and_parts_before_the_case_are_left_out() -> None:
    sightings = Sightings(["a"], 2)
    seen = np.zeros((1, 2, sightings.per_crop), int)
    unknown = origins([0], [(0, 0, 0)], [None]).numpy()
    assert np.isnan(unknown[0, 1:]).all()
    sightings.update(unknown, seen, PATCH)
    assert known(sightings, "a") == []
    see(sightings, 0, (-3, 0, 0), (3, 0, 0))
    assert known(sightings, "a") == [[0, 0, 0]]


def test_moved_crops() -> None:
    """A crop that is mirrored along z and twice as fine in x."""
    matrix = np.array([[-1.0, 0, 0, 7], [0, 1, 0, 0], [0, 0, 0.5, 0], [0, 0, 0, 1]])
    sightings = Sightings(["a"], 2)
    see(sightings, 0, (4, 4, 4), (7, 4, 1), (0, 4, 7))
    seen = np.full((1, 2, sightings.per_crop), -1)
    seen[0, 1, 0] = np.ravel_multi_index((7, 1, 4), PATCH)
    sightings.update(rows(0, (4, 4, 4), matrix), seen, PATCH)
    assert sightings.foreground("a")[1][:, 1:].tolist() == [[4, 5, 6]]
    assert known(sightings, "a") == [[4, 8, 11]]  # of both, this one lies beyond the crop


def test_memory_is_small_and_shared() -> None:
    large = Sightings([f"{number}" for number in range(1000)], 100)
    assert large.points.is_shared()
    assert large.points.numel() * 2 <= 5 * 2**20
    assert large.per_crop >= 1


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_voxels_of_each_class_are_spread_over_it(labels) -> None:
    probability = torch.full((2, labels.channels, 6, 6), 0.1)
    first = labels.first_foreground
    probability[0, first, 1] = probability[0, first, 4] = 0.8
    probability[0, first + 1, 3, 3] = 0.9
    valid = torch.ones(2, 1, 6, 6, dtype=torch.bool)
    valid[0, 0, 1, :3] = False
    found = labels.foreground_voxels(probability, valid, 3)
    assert found.shape == (2, len(labels.foreground_values), 3)
    assert found[0, 0].tolist() == [10, 24 + 1, 24 + 4]  # of 9, 10, 11 and 24 to 29
    assert found[0, 1].tolist() == [21, -1, -1]
    assert (found[1] == -1).all()
    nothing = labels.foreground_voxels(probability, torch.zeros_like(valid), 3)
    assert (nothing == NOWHERE).all()


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_large_and_small_objects_of_a_large_crop_are_found(labels) -> None:
    probability = torch.full((2, labels.channels, 64, 64, 64), 0.1)
    first = labels.first_foreground
    probability[0, first, 4:60, 10:40, 10:40] = 0.8
    probability[0, first + 1, 61, 5, 7:10] = 0.9  # 3 of 262,144 voxels
    probability[1, first, :, :, 32] = 0.8  # in one plane across the lines
    valid = torch.ones(2, 1, 64, 64, 64, dtype=torch.bool)
    valid[0, 0, :30] = False
    found = labels.foreground_voxels(probability, valid, 16)
    places = np.stack(np.unravel_index(found[0, 0].numpy(), (64, 64, 64)), -1)
    assert (probability[0, first].flatten()[found[0, 0]] == 0.8).all()
    assert (places[:, 0] >= 30).all()
    assert (places.max(0) - places.min(0) > [24, 15, 15]).all()
    assert (np.diff(found[0, 0]) > 0).all()
    small = np.ravel_multi_index((61, 5, 7), (64, 64, 64))
    assert found[0, 1].tolist() == [small, small + 1, small + 2] + [-1] * 13
    places = np.stack(np.unravel_index(found[1, 0].numpy(), (64, 64, 64)), -1)
    assert (places[:, 2] == 32).all()
    assert (np.ptp(places[:, :2], axis=0) > [50, 30]).all()
    assert (found[1, 1] == -1).all()
