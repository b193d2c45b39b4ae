"""Label images as ITK-SNAP, 3D Slicer, MITK and scripts write them, on the grid of the annotated image."""

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from nnunet_limited.annotations.annotation import Annotation, classes
from nnunet_limited.annotations.grid import check_whole
from nnunet_limited.errors import LimitedError
from nnunet_limited.util.whole import require_whole

ENDINGS = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".mha")
FILL = -1  # the value outside a file that covers a part of the image only


def read_image(file: Path, what: str) -> Any:
    """Read an image file of any format that SimpleITK knows."""
    require_whole(file)
    try:
        return sitk.ReadImage(str(file))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise LimitedError(f"{what} {file} cannot be read ({reason}); save it again, e.g. as .nii.gz") from error


def read_labels(file: Path, image: Any, names: dict[str, int]) -> np.ndarray:
    """Return the values (z, y, x) of a label file on the grid of the SimpleITK ``image``; -1 where it does not reach.

    A file may cover a part of the image, as those of 3D Slicer do, but on the same grid. Its segments get the values
    that ``names`` gives to their names, which are compared without regard to case; without a segment, it is -1 too.
    Raises LimitedError for another grid, for segments of other names or that overlap, and for values that are no whole
    numbers.
    """
    drawn = read_image(file, "label")
    if drawn.GetDimension() != image.GetDimension():
        raise LimitedError(
            f"label {file} has {drawn.GetDimension()} dimensions, its image {image.GetDimension()}; draw on the image"
        )
    values = _segments(drawn, file, names) if file.name.endswith(".seg.nrrd") else sitk.GetArrayFromImage(drawn)
    if values.shape != tuple(drawn.GetSize()[::-1]):
        raise LimitedError(f"label {file} has {drawn.GetNumberOfComponentsPerPixel()} channels; save one label map")
    smallest = FILL if file.name.endswith(".seg.nrrd") else 0
    check_whole(file, values, smallest)
    whole = np.full(image.GetSize()[::-1], FILL, np.int16)
    start = _offset(drawn, image, file)
    whole[tuple(slice(a, a + n) for a, n in zip(start, values.shape, strict=True))] = values
    return whole


def _offset(drawn: Any, image: Any, file: Path) -> tuple[int, ...]:
    """Return where on the grid of ``image`` the first voxel of ``drawn`` lies, as (z, y, x)."""
    remedy = "draw on the image itself, or resample the label to it"
    for what, mine, theirs in (
        ("spacing", drawn.GetSpacing(), image.GetSpacing()),
        ("direction", drawn.GetDirection(), image.GetDirection()),
    ):
        if not np.allclose(mine, theirs, rtol=1e-3, atol=1e-3):
            raise LimitedError(
                f"label {file} has {what} {np.round(mine, 4).tolist()}, its image {np.round(theirs, 4).tolist()}; "
                f"{remedy}"
            )
    place = np.array(image.TransformPhysicalPointToContinuousIndex(drawn.GetOrigin()))
    start = np.rint(place).astype(int)
    end = start + drawn.GetSize()
    if np.abs(place - start).max() > 0.05 or (start < 0).any() or (end > image.GetSize()).any():
        raise LimitedError(
            f"label {file} begins at voxel {np.round(place, 2).tolist()} and has {list(drawn.GetSize())}, its image "
            f"has {list(image.GetSize())}; {remedy}"
        )
    return tuple(int(a) for a in start[::-1])


def _segments(drawn: Any, file: Path, names: dict[str, int]) -> np.ndarray:
    """Return the segments of a file of 3D Slicer as one array of values."""
    layers = sitk.GetArrayFromImage(drawn)
    layers = layers[..., None] if drawn.GetNumberOfComponentsPerPixel() == 1 else layers
    values = np.full(layers.shape[:-1], FILL, np.int16)
    known = {name.lower(): value for name, value in names.items()}
    taken = np.zeros(values.shape, bool)
    number = 0
    while drawn.HasMetaDataKey(f"Segment{number}_LabelValue"):
        value, layer, name = (
            drawn.GetMetaData(key) if drawn.HasMetaDataKey(key) else default
            for key, default in (
                (f"Segment{number}_LabelValue", "0"),
                (f"Segment{number}_Layer", "0"),
                (f"Segment{number}_Name", ""),
            )
        )
        if name and name.lower() not in known:
            raise LimitedError(f"label {file}: segment {name!r} is not a class; name it like one of {', '.join(names)}")
        inside = layers[..., int(layer)] == int(value)
        if (inside & taken).any():
            raise LimitedError(f"label {file}: segment {name!r} overlaps another; erase it where they overlap")
        taken |= inside
        values[inside] = known.get(name.lower(), int(value))
        number += 1
    if not number:
        raise LimitedError(f"label {file} has no segment; draw one, or save it as .nrrd")
    return values


def from_label_image(image: Any, ignore: int, file: Path, numbers: dict[int, int], names: dict[str, Any]) -> Annotation:
    """Return the label (z, y, x) drawn in ``file`` on the grid of the SimpleITK ``image``; the rest is ``ignore``.

    ``numbers`` maps the values in the file to values of the label, ``names`` the names of classes to their values.
    Raises LimitedError for a value that is not among ``numbers``, and for a file in which nothing is drawn.
    """
    background = next(number for number, value in numbers.items() if value == 0)
    known = {name: background if value == 0 else value for name, value in names.items() if isinstance(value, int)}
    drawn = read_labels(file, image, known)
    unknown = sorted(set(np.unique(drawn).tolist()) - {*numbers, FILL})
    if unknown:
        raise LimitedError(
            f"label {file} has the value {unknown[0]}, which is neither a class nor the value of unannotated voxels "
            f"(known: {', '.join(map(str, sorted(numbers)))}); correct it, or --unlabeled"
        )
    label = np.full(drawn.shape, ignore, np.int16)
    for number, value in numbers.items():
        label[drawn == number] = value
    if (label == ignore).all():
        raise LimitedError(f"label {file} has no annotated voxel; draw something, or remove the file")
    in_plane = np.zeros((3, 3, 3))  # people draw in slices
    in_plane[1] = 1
    volume = label.reshape(-1, *label.shape[-2:])
    marks = sum(ndimage.label(volume == value, in_plane)[1] for value in classes(label, ignore))
    planes = int((volume != ignore).any(axis=(1, 2)).sum())
    return Annotation(label, marks, planes)
