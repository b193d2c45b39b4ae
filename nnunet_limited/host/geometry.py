"""Where the voxels of a crop come from, after nnU-Net's geometric augmentation."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from nnunet_limited.host.loaders import BasicTransform


def apply_with_map(transform: BasicTransform, data: dict[str, Any]) -> tuple[dict[str, Any], np.ndarray | None]:
    """Return ``data`` after one of nnU-Net's geometric transforms, and the map from its voxels to those before it.

    The map is an affine matrix (4, 4) on voxel indices (z, y, x, 1); an image of two axes, or a volume whose slices
    nnU-Net moves together, is moved in y and x. It is None if it is not affine, or of a transform that is not known.
    Random numbers are drawn as by calling the transform.
    """
    if isinstance(transform, RandomTransform):
        inner, parameters = transform.transform, transform.get_parameters(**data)
        return apply_with_map(inner, data) if parameters["apply_transform"] else (data, np.eye(4))
    kind = MAPS.get(type(transform).__name__)
    if kind is None:
        return transform(**data), None
    before, parameters = data["image"].shape[1:], transform.get_parameters(**data)
    made = transform.apply(data, **parameters)
    return made, kind(parameters, before, made["image"].shape[1:])


def name_of(transform: BasicTransform) -> str:
    """Return the name of a transform, or of the one that is applied at random."""
    return type(transform.transform if isinstance(transform, RandomTransform) else transform).__name__


def has_map(transform: BasicTransform) -> bool:
    """Return whether :func:`apply_with_map` always returns a map of a geometric transform."""
    inner = transform.transform if isinstance(transform, RandomTransform) else transform
    return name_of(transform) in MAPS and not getattr(inner, "p_elastic_deform", 0)


def compose(maps: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Return the map of several transforms, the first first; None if one of them is unknown."""
    made = np.eye(4)
    for one in maps:
        if one is None:
            return None
        made = made @ one
    return made


def _spatial(parameters: dict[str, Any], before: tuple[int, ...], after: tuple[int, ...]) -> np.ndarray | None:
    """Return the map of nnU-Net's rotation, scaling and crop; None if it deforms too."""
    if parameters["elastic_offsets"] is not None:
        return None
    middle, affine = np.array(parameters["center_location_in_pixels"]), parameters["affine"]
    if affine is None:  # nothing is interpolated: voxels are cut out
        return _embedded(np.eye(len(after)), [math.floor(c) - size // 2 for c, size in zip(middle, after, strict=True)])
    # Positions are counted from the corner of the first voxel, indices from its middle.
    return _embedded(affine, middle - 0.5 - affine @ ((np.array(after) - 1) / 2))


def _mirrored(parameters: dict[str, Any], before: tuple[int, ...], after: tuple[int, ...]) -> np.ndarray:
    axes = [axis in parameters["axes"] for axis in range(len(after))]
    return _embedded(np.diag(np.where(axes, -1.0, 1.0)), np.where(axes, np.array(after) - 1, 0))


def _same_place(parameters: dict[str, Any], before: tuple[int, ...], after: tuple[int, ...]) -> np.ndarray:
    return np.eye(4)


def _embedded(matrix: np.ndarray, shift: Any) -> np.ndarray:
    """Return ``matrix`` (d, d) and ``shift`` (d,) of the last d of three axes as one matrix (4, 4)."""
    made, first = np.eye(4), 3 - len(matrix)
    made[first:3, first:3] = matrix
    made[first:3, 3] = shift
    return made


MAPS: dict[str, Callable[[dict[str, Any], tuple[int, ...], tuple[int, ...]], np.ndarray | None]] = {
    "SpatialTransform": _spatial,
    "MirrorTransform": _mirrored,
    "Convert3DTo2DTransform": _same_place,
    "Convert2DTo3DTransform": _same_place,
}
