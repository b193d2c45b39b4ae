"""The map of a crop's voxels agrees with coordinates that went through the same transforms."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_limited.data.views import Views
from nnunet_limited.host.geometry import apply_with_map, has_map, name_of
from nnunet_limited.util.random_state import seed_everything


def coordinates(shape: tuple[int, ...]) -> torch.Tensor:
    """Return the index of each voxel (d, *shape)."""
    return torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in shape), indexing="ij"))


def moved(transforms: list[Any], shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Return the coordinates after the transforms, where they are inside, and the composed map."""
    data: dict[str, Any] = {"image": coordinates(shape), "segmentation": torch.zeros(1, *shape, dtype=torch.int16)}
    maps = []
    for transform in transforms:
        data, one = apply_with_map(transform, data)
        maps.append(one)
    return data["image"], data["segmentation"][0] >= 0, reduce(np.matmul, maps)


@pytest.mark.parametrize(
    ("before", "patch", "dummy_2d"),
    [((40, 44), (24, 32), False), ((31, 34, 38), (16, 21, 24), False), ((10, 34, 38), (10, 20, 24), True)],
    ids=["2d", "3d", "dummy_2d"],
)
def test_map_agrees_with_moved_coordinates(before: tuple[int, ...], patch: tuple[int, ...], dummy_2d: bool) -> None:
    pipeline = nnUNetTrainer.get_training_transforms(
        patch, (-np.pi, np.pi), None, tuple(range(len(patch))), dummy_2d, use_mask_for_norm=[False]
    )
    geometric = Views(pipeline).geometric
    seed_everything(0)
    rotated, mirrored = 0, 0
    for _ in range(40):
        found, inside, matrix = moved(geometric, before)
        rotated += bool(abs(matrix[1, 2]) > 0.05)
        mirrored += bool(np.linalg.det(matrix[:3, :3]) < 0)
        grid = coordinates(patch).flatten(1).double().numpy()
        points = np.concatenate([np.zeros((3 - len(patch), grid.shape[1])), grid, np.ones((1, grid.shape[1]))])
        expected = (matrix @ points)[3 - len(patch) : 3].reshape(found.shape)
        # Voxels next to the border of the image are mixed with the zeros beyond it.
        within = ((expected >= 0) & (expected <= np.reshape(before, (-1, *[1] * len(patch))) - 1)).all(0)
        assert within.mean() > 0.5
        assert inside.numpy()[within].all()
        assert np.abs(found.numpy() - expected)[:, within].max() < 1e-3
    assert rotated > 2
    assert mirrored > 2


def test_transforms_that_are_not_affine_or_not_known_have_no_map() -> None:
    class Mine(SpatialTransform):
        pass

    settings: dict[str, Any] = {"patch_center_dist_from_border": 0, "random_crop": False}
    for transform in (SpatialTransform((8, 8), **settings, p_elastic_deform=1), Mine((8, 8), **settings)):
        for wrapped in (transform, RandomTransform(transform, 1.0)):
            made, matrix = apply_with_map(wrapped, {"image": torch.rand(1, 12, 12)})
            assert made["image"].shape == (1, 8, 8)
            assert matrix is None
    made, matrix = apply_with_map(RandomTransform(Mine((8, 8), **settings), 0.0), {"image": torch.rand(1, 12, 12)})
    assert made["image"].shape == (1, 12, 12)
    assert np.array_equal(matrix, np.eye(4))


def test_moves_without_a_map_are_named() -> None:
    class Mine(SpatialTransform):
        pass

    settings: dict[str, Any] = {"patch_center_dist_from_border": 0, "random_crop": False}
    plain, elastic = (SpatialTransform((8, 8), **settings, p_elastic_deform=p) for p in (0.0, 0.2))
    for transform, mapped in ((elastic, False), (Mine((8, 8), **settings), False), (plain, True)):
        for wrapped in (transform, RandomTransform(transform, 0.5)):
            assert has_map(wrapped) == mapped
            assert name_of(wrapped) == type(transform).__name__


def test_random_numbers_are_those_of_a_plain_call() -> None:
    pipeline = nnUNetTrainer.get_training_transforms((16, 16), (-1.0, 1.0), None, (0, 1), False, [False])
    image = torch.rand(1, 24, 24)
    made = []
    for apply in (lambda t, d: t(**d), lambda t, d: apply_with_map(t, d)[0]):
        seed_everything(1)
        made.append([reduce(lambda d, t: apply(t, d), Views(pipeline).geometric, {"image": image}) for _ in range(9)])
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(*made, strict=True))
