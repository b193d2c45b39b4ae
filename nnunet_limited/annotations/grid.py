"""The voxel grid of an image in space, and whether a label belongs to the image."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.errors import LimitedError

FARTHEST = 1.0  # that a corner of a label may lie from that of its image, in voxels
NEAR = 0.01  # voxels; what headers round off
LARGEST = int(np.iinfo(np.int16).max)  # value of a label: nnU-Net stores labels as int16
ACCEPT = 'set "grid_of_image": true in dataset.json'


@dataclass(frozen=True, eq=False)
class Grid:
    """The grid of an array of ``shape`` (z, y, x) with ``spacing`` in the same order.

    ``matrix`` (d + 1, d + 1) maps indices (x, y, z, 1) of voxels to mm (left, posterior, superior), in 2D without z;
    None for files without a position, as PNG.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    matrix: np.ndarray | None = None

    @classmethod
    def of_sitk(cls, shape: Sequence[int], spacing: Sequence[float], origin: Sequence[float], direction: Any) -> Grid:
        """Return the grid of SimpleITK's ``spacing``, ``origin`` and ``direction``, which are in the order x, y, z."""
        dimensions = len(spacing)
        matrix = np.eye(dimensions + 1)
        matrix[:-1, :-1] = np.reshape(direction, (dimensions, dimensions)) * np.asarray(spacing)
        matrix[:-1, -1] = origin
        return cls(tuple(shape), tuple(spacing[::-1]), matrix)

    @classmethod
    def of(cls, image: Any) -> Grid:
        """Return the grid of a SimpleITK image."""
        return cls.of_sitk(image.GetSize()[::-1], image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    def part(self, start: Sequence[int], shape: Sequence[int]) -> Grid:
        """Return the grid of the part of ``shape`` that begins at voxel ``start``, both (z, y, x); it may reach out."""
        if self.matrix is None:
            return Grid(tuple(shape), self.spacing)
        matrix = self.matrix.copy()
        matrix[:-1, -1] += matrix[:-1, :-1] @ np.asarray(start, float)[::-1]
        return Grid(tuple(shape), self.spacing, matrix)


def check_label(
    file: Path,
    values: np.ndarray,
    grid: Grid,
    image: Grid,
    allowed: Collection[int],
    aligned: bool = False,
    what: str = "label",
) -> tuple[np.ndarray, str | None]:
    """Return the ``values`` of the label ``file`` as whole numbers (int16), and a warning if its grid is a little off.

    This is the one place that decides whether a label belongs to an image: by shape, position in space (not if the
    arrays are known to be ``aligned``) and the ``allowed`` values. Raises LimitedError where it does not.
    """
    warning = check_grid(file, grid, image, aligned, what)
    return check_values(file, values, allowed, what), warning


def check_grid(file: Path, grid: Grid, image: Grid, aligned: bool = False, what: str = "label") -> str | None:
    """Return a warning if the ``grid`` of ``file`` is a little off that of its ``image``; refuse one that is more."""
    if grid.shape != image.shape:
        raise LimitedError(
            f"{what} {file} has shape {grid.shape}, its image {image.shape}; draw on the image itself, or resample the "
            f"{what} to it"
        )
    if aligned:
        return None
    distance = farthest(grid, image)
    if distance <= NEAR:
        return None
    name, mine, theirs = differing(grid, image)
    found = f"{what} {file} has {name} {mine}, its image {theirs}: their corners lie {distance:.3g} voxels apart"
    if distance > FARTHEST:
        raise LimitedError(f"{found}; resample it to its image, or, if both arrays are aligned, {ACCEPT}")
    return f"{found}; it is used as if they were on one grid"


def farthest(grid: Grid, image: Grid) -> float:
    """Return how far corresponding corners of two grids of one shape lie apart, along an axis of ``image`` in voxels.

    Without positions, spacings alone are compared.
    """
    if grid.matrix is None or image.matrix is None:
        ratio = np.asarray(grid.spacing) / np.asarray(image.spacing) if len(grid.spacing) == len(image.spacing) else 1
        return float(np.max(np.abs(ratio - 1) * np.asarray(image.shape))) if np.any(ratio != 1) else 0.0
    dimensions = min(len(grid.matrix), len(image.matrix)) - 1  # a file of one slice may be 2D or 3D
    keep = [*range(dimensions), -1]
    mine, theirs = (matrix[np.ix_(keep, keep)] for matrix in (grid.matrix, image.matrix))
    corners = itertools.product(*((-0.5, size - 0.5) for size in image.shape[::-1][:dimensions]))
    points = np.array([(*corner, 1.0) for corner in corners])
    try:
        seen = points @ (np.linalg.inv(theirs) @ mine).T
    except np.linalg.LinAlgError:
        return float("inf")
    return float(np.abs(seen - points).max())


def differing(grid: Grid, image: Grid) -> tuple[str, list[float], list[float]]:
    """Return in what two grids differ most: its name, and the value of each."""
    if grid.matrix is None or image.matrix is None or grid.matrix.shape != image.matrix.shape:
        return "spacing", _rounded(grid.spacing), _rounded(image.spacing)
    lengths = [np.linalg.norm(matrix[:-1, :-1], axis=0) for matrix in (grid.matrix, image.matrix)]
    if not np.allclose(lengths[0], lengths[1], rtol=1e-3):
        return "spacing", _rounded(grid.spacing), _rounded(image.spacing)
    turned = [m[:-1, :-1] / size for m, size in zip((grid.matrix, image.matrix), lengths, strict=True)]
    if not np.allclose(turned[0], turned[1], atol=1e-3):
        return "direction", _rounded(turned[0].ravel()), _rounded(turned[1].ravel())
    return "origin", _rounded(grid.matrix[:-1, -1]), _rounded(image.matrix[:-1, -1])


def _rounded(values: Sequence[float] | np.ndarray) -> list[float]:
    return [float(value) for value in np.round(np.asarray(values, float), 4)]


def check_values(file: Path, values: np.ndarray, allowed: Collection[int], what: str = "label") -> np.ndarray:
    """Return ``values`` as int16; refuse what is not a whole number, and what is not ``allowed``."""
    found = check_whole(file, values, what=what)
    unexpected = found[~np.isin(found, sorted(allowed))]
    if unexpected.size:
        raise LimitedError(
            f"{what} {file} has the value {unexpected[0]:.0f}; dataset.json declares only "
            f"{', '.join(map(str, sorted(allowed)))}; correct the {what}, or the labels of dataset.json"
        )
    return values.astype(np.int16)


def check_whole(
    file: Path, values: np.ndarray, smallest: int = 0, what: str = "label", largest: int = LARGEST
) -> np.ndarray:
    """Return the sorted ``values`` that occur; refuse all but whole numbers from ``smallest`` to ``largest``."""
    found = np.unique(values)
    odd = found[~np.isfinite(found) | (found != np.rint(found)) | (found < smallest) | (found > largest)]
    if odd.size:
        raise LimitedError(
            f"{what} {file} has the value {odd[0]}, but labels are whole numbers from 0 to {largest}; save a label map"
        )
    return found
