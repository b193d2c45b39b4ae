"""The voxel grid of an image in space, and whether a label belongs to the image."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from nnunet_limited.errors import LimitedError
from nnunet_limited.util.whole import NIFTI, uncompressed

FARTHEST = 1.0  # that a corner of a label may lie from that of its image, in voxels
NEAR = 0.01  # voxels; what headers round off
LARGEST = int(np.iinfo(np.int16).max)  # value of a label: nnU-Net stores labels as int16


@dataclass(frozen=True)
class Words:
    """How messages call a file and what it must lie on, and how a file with another grid is accepted."""

    what: str = "label"
    other: str = "its image"
    accept: str = 'set "grid_of_image": true in dataset.json'


LABEL, DENSE = Words(), Words("dense label")


@dataclass(frozen=True, eq=False)
class Grid:
    """The grid of an array of ``shape`` (z, y, x) with ``spacing`` in the same order, None if it is not known.

    ``matrix`` (d + 1, d + 1) maps indices (x, y, z, 1) of voxels to mm (left, posterior, superior), in 2D without z;
    None for files without a position, as PNG.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...] | None
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


def check_label(
    file: Path,
    values: np.ndarray,
    grid: Grid,
    image: Grid,
    allowed: Collection[int],
    aligned: bool = False,
    words: Words = LABEL,
) -> tuple[np.ndarray, str | None]:
    """Return the ``values`` of the label ``file`` as whole numbers (int16), and a warning if its grid is a little off.

    This is the one place that decides whether a label belongs to an image: by shape, position in space (not if the
    arrays are known to be ``aligned``) and the ``allowed`` values. Raises LimitedError where it does not.
    """
    warning = check_grid(file, grid, image, aligned, words)
    return check_values(file, values, allowed, words.what), warning


def check_grid(file: Path, grid: Grid, image: Grid, aligned: bool = False, words: Words = LABEL) -> str | None:
    """Return a warning if the ``grid`` of ``file`` is a little off that of its ``image``; refuse one that is more."""
    if grid.shape != image.shape:
        raise LimitedError(
            f"{words.what} {file} has shape {grid.shape}, {words.other} {image.shape}; resample it to {words.other}, "
            "or replace it by the right file"
        )
    if aligned:
        return None
    distance = farthest(grid, image)
    if distance <= NEAR:
        return None
    name, mine, theirs = differing(grid, image)
    found = f"{words.what} {file} has {name} {mine}, {words.other} {theirs}"
    if distance > FARTHEST and (factor := unit_factor(grid, image)):
        raise LimitedError(
            f"{found}: all are {factor:.4g} times those of {words.other}, as in another unit; correct the spacing of "
            f"the wrong one (in mm) or, if both arrays are aligned, {words.accept}"
        )
    if distance > FARTHEST:
        raise LimitedError(
            f"{found}: their corners lie {distance:.3g} voxels apart; resample it to {words.other} or, if both arrays "
            f"are aligned, {words.accept}"
        )
    return f"{found}: their corners lie {distance:.2g} voxels apart, which is taken for rounding"


def farthest(grid: Grid, image: Grid) -> float:
    """Return how far corresponding corners of two grids of one shape lie apart, along an axis of ``image`` in voxels.

    Without positions, spacings alone are compared.
    """
    if grid.matrix is None or image.matrix is None:
        if grid.spacing is None or image.spacing is None or len(grid.spacing) != len(image.spacing):
            return 0.0
        return float(np.max(np.abs(np.divide(grid.spacing, image.spacing) - 1) * image.shape))
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


def unit_factor(grid: Grid, image: Grid) -> float | None:
    """Return by how much all spacings of ``grid`` are larger than those of ``image`` if by 10 or more, or smaller."""
    if not grid.spacing or not image.spacing or len(grid.spacing) != len(image.spacing):
        return None
    factors = np.divide(grid.spacing, image.spacing)
    alike = np.allclose(factors, factors[0], rtol=0.01) and abs(np.log10(factors[0])) >= 1 - NEAR
    return float(factors[0]) if alike else None


def differing(grid: Grid, image: Grid) -> tuple[str, list[float], list[float]]:
    """Return in what two grids differ most: its name, and the value of each."""
    spacings = "spacing", _rounded(grid.spacing or ()), _rounded(image.spacing or ())
    if grid.matrix is None or image.matrix is None or grid.matrix.shape != image.matrix.shape:
        return spacings
    lengths = [np.linalg.norm(matrix[:-1, :-1], axis=0) for matrix in (grid.matrix, image.matrix)]
    if not np.allclose(lengths[0], lengths[1], rtol=1e-3):
        return spacings
    turned = [m[:-1, :-1] / size for m, size in zip((grid.matrix, image.matrix), lengths, strict=True)]
    if not np.allclose(turned[0], turned[1], atol=1e-3):
        return "direction", _rounded(turned[0].ravel()), _rounded(turned[1].ravel())
    return "origin", _rounded(grid.matrix[:-1, -1]), _rounded(image.matrix[:-1, -1])


def _rounded(values: Sequence[float] | np.ndarray) -> list[float]:
    return [float(value) for value in np.round(np.asarray(values, float), 4)]


@dataclass(frozen=True, eq=False)
class Fit:
    """How an array (z, y, x) lies in an image of parallel axes, both of which count from 0.

    ``axes`` are those of the array in the order of the image, ``signs`` -1 where they run backwards, and ``start`` is
    the voxel of the image at which the array then begins. ``matrix`` (4, 4) is that of the grid of the turned array.
    ``distance`` is how far a corner lies from its place, in voxels; infinite if the axes are no axes of the image.
    """

    axes: tuple[int, ...] = (0, 1, 2)
    signs: tuple[int, ...] = (1, 1, 1)
    start: tuple[int, ...] = (0, 0, 0)
    matrix: np.ndarray | None = None
    distance: float = float("inf")

    def turn(self, values: np.ndarray) -> np.ndarray:
        """Return ``values`` with the axes of the image; nothing is interpolated."""
        return np.flip(values.transpose(self.axes), tuple(axis for axis in range(3) if self.signs[axis] < 0))


def fit(shape: Sequence[int], grid: Grid, image: Grid) -> Fit:
    """Return how an array of ``shape`` (z, y, x) of a ``grid`` lies in an image; both have a position in space."""
    mine, theirs = (_matrix(one) for one in (grid, image))
    if not np.linalg.det(theirs):
        return Fit()
    to_image = np.linalg.inv(theirs) @ mine
    turn = np.rint(to_image[:3, :3])
    if not np.array_equal(np.abs(turn) @ np.ones(3), np.ones(3)) or not np.array_equal(turn @ turn.T, np.eye(3)):
        return Fit()
    size = np.array(shape[::-1])
    corners = np.array(list(itertools.product(*((-0.5, n - 0.5) for n in size))))
    seen = corners @ to_image[:3, :3].T + to_image[:3, 3]
    shift = np.rint((seen - corners @ turn.T).mean(0))
    distance = float(np.abs(seen - corners @ turn.T - shift).max())
    order, sign = np.abs(turn).argmax(1), turn.sum(1).astype(int)  # of the array's axis along each axis of the image
    last = np.where(sign < 0, size[order] - 1, 0)
    back = np.eye(4)  # from indices of the turned array to those of the array
    back[:3, :3] = turn.T
    back[order, 3] = last
    start = (shift - last).astype(int)
    axes = tuple(int(2 - axis) for axis in order[::-1])
    return Fit(axes, tuple(sign[::-1].tolist()), tuple(start[::-1].tolist()), mine @ back, distance)


def _matrix(grid: Grid) -> np.ndarray:
    """Return the matrix of a grid in three dimensions."""
    assert grid.matrix is not None
    matrix = np.eye(4)
    axes = [*range(len(grid.matrix) - 1), 3]
    matrix[np.ix_(axes, axes)] = grid.matrix
    return matrix


def turned(values: np.ndarray, grid: Grid, image: Grid) -> tuple[np.ndarray, Grid]:
    """Return ``values`` (z, y, x) and their grid with axes in the order and the directions of those of ``image``.

    Values and grid are returned as they are where that does not bring them to one grid.
    """
    if grid.matrix is None or image.matrix is None or grid.matrix.shape != image.matrix.shape:
        return values, grid
    found = fit(values.shape, grid, image)
    made = found.turn(values)
    if found.matrix is None or made.shape != image.shape:
        return values, grid
    keep = [*range(len(grid.matrix) - 1), 3]
    spacing = None
    if grid.spacing is not None:
        more = values.ndim - len(grid.spacing)
        spacing = tuple(grid.spacing[axis - more] for axis in found.axes[more:])
    place = Grid(made.shape, spacing, found.matrix[np.ix_(keep, keep)])
    return (values, grid) if farthest(place, image) > FARTHEST else (made, place)


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
        shown = f"{odd[0]:.0f}" if odd[0] == np.rint(odd[0]) and abs(odd[0]) < 1e9 else str(odd[0])
        raise LimitedError(
            f"{what} {file} has the value {shown}, but labels are whole numbers from 0 to {largest}; save a label map"
        )
    return found


def check_stored(file: Path, what: str = "label") -> None:
    """Refuse NaN and infinite numbers in a NIfTI file, which ITK reads as 0."""
    check_whole(file, not_finite(file), what=what)


def not_finite(file: Path) -> np.ndarray:
    """Return the numbers (n,) of a NIfTI file that are NaN or infinite; of other files none."""
    if not file.name.lower().endswith(NIFTI):
        return np.empty(0)
    with file.open("rb") as stream:  # by its content: readers take an uncompressed file under the name .nii.gz
        parts = uncompressed(stream)
        start = next(parts, b"")
        second = 540 in (int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big"))
        kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
        # nibabel refuses some headers that ITK accepts.
        with contextlib.suppress(nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError):
            if kind.header_class.from_fileobj(io.BytesIO(start)).get_data_dtype().kind == "f":
                values = np.asarray(kind.from_bytes(start + b"".join(parts)).dataobj)
                return values[~np.isfinite(values)]
    return np.empty(0)
