"""Label images as ITK-SNAP, 3D Slicer, MITK and scripts write them, on the grid of the annotated image."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from nnunet_limited.annotations.annotation import Annotation, classes
from nnunet_limited.annotations.grid import (
    FARTHEST,
    LABEL,
    NEAR,
    Fit,
    Grid,
    check_stored,
    check_whole,
    differing,
    farthest,
    fit,
    unit_factor,
)
from nnunet_limited.annotations.importers.segments import (
    FILL,
    ClassNames,
    class_values,
    find_segments,
    is_of_mitk,
    merge_segments,
)
from nnunet_limited.errors import LimitedError
from nnunet_limited.util.whole import refuse_no_length, require_whole

ENDINGS = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".mha")
DRAW = "draw on the image itself, or resample the label to it"
ACCEPT = f"give --grid-of-image, or {LABEL.accept}"

# Reads a label (*spatial) and its grid as nnU-Net does; for files that SimpleITK does not read, or places otherwise.
Reader = Callable[[Path], tuple[np.ndarray, Grid]]


@dataclass(frozen=True)
class Drawing:
    """What a label file shows on the grid of its image: ``values`` (z, y, x), -1 where the file does not reach.

    In files with ``segments`` they are -1 where no segment is, and label values if the segments are ``named``. All
    others are the numbers in the file. ``empty`` is a file with segments, none of which has a voxel. ``warning`` tells
    of a grid that is a little off, or is "".
    """

    values: np.ndarray
    warning: str
    segments: bool
    named: bool
    empty: bool


def read_drawing(
    file: Path,
    image: Grid,
    names: ClassNames,
    known: Collection[int],
    blank: Collection[int],
    foreign: str,
    read: Reader | None = None,
    aligned: bool = False,
    accept: str = LABEL.accept,
) -> Drawing:
    """Read a label file on the grid of its ``image``.

    It may cover a part of the image or more than it, and its axes may run in another order, but on the same grid.
    Outside of the image only the numbers ``blank`` are accepted. ``known`` are the numbers that may be in the file, and
    ``foreign`` ends the message about others; names of segments decide in place of numbers. ``read`` takes the place of
    SimpleITK. Where arrays are known to be ``aligned``, the position of a file of the image's shape does not count;
    ``accept`` states how to declare it.
    Raises LimitedError for another grid, unknown or overlapping segments, and unknown numbers.
    """
    require_whole(file, "label")
    header: dict[str, str] = {}
    if read is not None:
        numbers, grid = read(file)
        numbers = numbers[..., None]
    else:
        numbers, grid, header = _read_sitk(file)
    if aligned and numbers.shape[:3] == image.shape:
        grid = image
    segments = find_segments(header, numbers.shape[-1], file)
    if segments is None and file.name.endswith(".seg.nrrd"):
        if numbers.any():
            raise LimitedError(f"label {file} has no segment; draw one, or save it as .nrrd")
        segments = []
    values = class_values(segments, names, header, file) if segments is not None else None
    named = values is not None
    if segments is not None and values is None:
        values = [one.value for one in segments]
        if is_of_mitk(header) and numbers.shape[-1] == 1:  # a label map, in which 0 has a meaning too
            segments = None
    if segments is None or values is None:
        if numbers.shape[-1] > 1:
            raise LimitedError(f"label {file} has {numbers.shape[-1]} channels; save one label map")
        drawn = _check_numbers(numbers[..., 0], known, file, foreign)
        return Drawing(*_place(drawn, grid, image, blank, file, False, accept), False, False, False)
    if not named:
        _check_numbers(np.array(values), known, file, foreign)
    drawn = merge_segments(numbers, segments, values, names, file)
    empty = not (drawn != FILL).any()
    if empty and drawn.size == 1:  # 3D Slicer's file of a segmentation without a voxel, whatever its scan
        return Drawing(np.full(image.shape, FILL, np.int32), "", True, named, True)
    placed = _place(drawn, grid, image, (0,) if named else blank, file, True, accept)
    return Drawing(*placed, True, named, empty)


def _read_sitk(file: Path) -> tuple[np.ndarray, Grid, dict[str, str]]:
    """Return the numbers (z, y, x, components) of a file, its grid and its header."""
    try:
        image = sitk.ReadImage(str(file))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        remedy = DRAW if "orthonormal" in reason else "save it again, e.g. as .nii.gz"
        raise LimitedError(f"label {file} cannot be read ({reason}); {remedy}") from error
    while image.GetDimension() > 3 and image.GetSize()[-1] == 1:  # as programs write volumes "over time"
        image = sitk.Extract(image, [*image.GetSize()[:-1], 0], [0] * image.GetDimension())
    if image.GetDimension() > 3:
        raise LimitedError(f"label {file} has {image.GetDimension()} dimensions; save one volume")
    array = sitk.GetArrayFromImage(image)
    if array.dtype.kind == "f":
        check_stored(file)
    if array.dtype.kind == "c":
        raise LimitedError(f"label {file} holds complex numbers; save a label map")
    if image.GetNumberOfComponentsPerPixel() == 1:
        array = array[..., None]
    array = array[None] if image.GetDimension() == 2 else array
    grid = Grid.of_sitk(array.shape[:3], image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return array, grid, {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}


def _check_numbers(numbers: np.ndarray, known: Collection[int], file: Path, foreign: str) -> np.ndarray:
    """Return ``numbers`` as int32; refuse what is not a whole number or not ``known``."""
    found = check_whole(file, numbers, largest=int(np.iinfo(np.int32).max))
    unknown = found[~np.isin(found, sorted(known))]
    if unknown.size:
        raise LimitedError(f"label {file} has the value {unknown[0]:.0f}, {foreign}")
    return numbers.astype(np.int32)


def _place(
    drawn: np.ndarray, grid: Grid, image: Grid, blank: Collection[int], file: Path, segments: bool, accept: str
) -> tuple[np.ndarray, str]:
    """Return ``drawn`` (z, y, x) of a ``grid`` on that of the ``image``, -1 where it does not reach, and a warning.

    Raises LimitedError for axes, steps or positions that differ by more than a voxel at a corner, and for numbers other
    than ``blank`` outside of the image.
    """
    whole = np.full(image.shape, FILL, np.int32)
    if grid.matrix is None or image.matrix is None:
        if drawn.shape != image.shape:
            raise LimitedError(f"label {file} has the shape {list(drawn.shape)}, its image {list(image.shape)}; {DRAW}")
        return drawn, ""
    if drawn.shape == image.shape and farthest(grid, image) <= FARTHEST:
        found = Fit(distance=farthest(grid, image))
    else:
        found = fit(drawn.shape, grid, image)
    turned, start, distance = found.turn(drawn), np.array(found.start), found.distance
    if found.matrix is not None and turned.shape == image.shape:
        off = farthest(Grid(image.shape, None, found.matrix), image)
        start, distance = (0 * start, off) if off <= FARTHEST else (start, distance)  # half a voxel is no shift by one
    low, high = np.maximum(start, 0), np.minimum(start + turned.shape, image.shape)
    inside = tuple(slice(a, b) for a, b in zip(low - start, high - start, strict=True))
    outside = np.ones(turned.shape, bool)
    outside[inside] = False
    lost = int((outside & ~np.isin(turned, [FILL, *blank])).sum())
    same_size = sorted(drawn.shape) == sorted(image.shape) and (start != 0).any() and not segments
    if distance > FARTHEST or (high <= low).any() or lost or same_size:
        name, mine, theirs = differing(grid, image)
        factor = unit_factor(grid, image)
        unit = "" if factor is None else f", all {factor:.4g} times those of the image as in another unit"
        where = f"has {name} {mine}, its image {theirs}{unit}"
        if distance <= FARTHEST and not same_size:
            where = f"begins at voxel {start[::-1].tolist()} and has {list(turned.shape[::-1])}, its image has "
            where += f"{list(image.shape[::-1])}" + (f", and {lost} drawn voxels are outside" if lost else "")
        refuse_no_length(file, "label")
        accept = f", or, if both arrays are aligned, {accept}" if drawn.shape == image.shape else ""
        raise LimitedError(f"label {file} {where}; {DRAW}{accept}")
    whole[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = turned[inside]
    return whole, f"label {file} lies {distance:.2g} voxels off the grid of its image" if distance > NEAR else ""


def from_label_image(
    image: Grid,
    ignore: int,
    file: Path,
    numbers: dict[int, int],
    names: ClassNames,
    unlabeled: int,
    read: Reader | None = None,
    aligned: bool = False,
) -> Annotation:
    """Return the label (z, y, x) drawn in ``file`` on the grid of its ``image``; the rest is ``ignore``.

    ``numbers`` maps the numbers in the file to values of the label, ``names`` the names of segments; ``unlabeled`` is
    the number of unannotated voxels, ``aligned`` as for :func:`read_drawing`. Raises LimitedError for a number that is
    not among ``numbers``, and for a file in which nothing is drawn.
    """
    foreign = (
        "which is neither a class nor the value of unannotated voxels (known: "
        f"{', '.join(map(str, sorted(numbers)))}); correct it, --unlabeled or --background"
    )
    blank = [number for number, value in numbers.items() if value in (0, ignore)]
    drawing = read_drawing(file, image, names, numbers, blank, foreign, read, aligned, ACCEPT)
    if drawing.named:
        label = np.where(drawing.values == FILL, ignore, drawing.values).astype(np.int16)
    else:
        label = np.full(image.shape, ignore, np.int16)
        for number, value in numbers.items():
            label[drawing.values == number] = value
    if (label == ignore).all():
        raise LimitedError(f"label {file} has no annotated voxel: nothing is drawn in it; draw something, or remove it")
    in_plane = np.zeros((3, 3, 3))  # people draw in slices
    in_plane[1] = 1
    marks = sum(ndimage.label(label == value, in_plane)[1] for value in classes(label, ignore))
    planes = int((label != ignore).any(axis=(1, 2)).sum())
    complete = None if drawing.segments else not (drawing.values == unlabeled).any()
    return Annotation(label, marks, planes, (), drawing.warning, complete)
