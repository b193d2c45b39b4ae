"""Annotation files as ITK-SNAP, 3D Slicer, MITK and scripts write them, brought onto the grid of their image."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk

from nnunet_limited.errors import LimitedError

Coordinates = Literal["voxel", "lps", "ras"]
ENDINGS = (".seg.nrrd", ".nii.gz", ".nii", ".nrrd", ".mha")
FILL = -1  # where a file says nothing because it covers a part of the image only


def read_image(file: Path, what: str) -> Any:
    """Read an image file of any format that SimpleITK knows."""
    try:
        return sitk.ReadImage(str(file))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise LimitedError(f"{what} {file} cannot be read ({reason}); save it anew, e.g. as .nii.gz") from error


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
    least = FILL if file.name.endswith(".seg.nrrd") else 0
    if not np.array_equal(values, np.rint(values)) or values.min(initial=0) < least:
        odd = values[(values != np.rint(values)) | (values < least)].flat[0]
        raise LimitedError(
            f"label {file} has the value {odd:g}, labels are whole numbers from 0; save it as a label map"
        )
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
            raise LimitedError(
                f"label {file}: segment {name!r} is no class; give it the name of one of {', '.join(names)}"
            )
        inside = layers[..., int(layer)] == int(value)
        if (inside & taken).any():
            raise LimitedError(f"label {file}: segment {name!r} overlaps another; erase it where they overlap")
        taken |= inside
        values[inside] = known.get(name.lower(), int(value))
        number += 1
    if not number:
        raise LimitedError(f"label {file} has no segment; draw one, or save it as .nrrd")
    return values


def read_table(file: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of a CSV file with these ``columns``, or of a JSON list of objects with these keys.

    The columns besides ``case`` and ``class`` are numbers.
    """
    if not file.is_file():
        raise LimitedError(f"{file} does not exist; write a CSV file with the columns {','.join(columns)}")
    try:
        text = file.read_text(encoding="utf-8-sig")  # as spreadsheets begin their files
        rows = json.loads(text) if file.suffix == ".json" else list(csv.DictReader(text.splitlines()))
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise LimitedError(
            f"{file} is not readable ({error}); write CSV with the columns {','.join(columns)}"
        ) from error
    if not isinstance(rows, list) or not rows:
        raise LimitedError(f"{file} holds no row; write one for each object, with the columns {','.join(columns)}")
    for line, row in enumerate(rows, 1):
        missing = [key for key in columns if not isinstance(row, dict) or row.get(key) in (None, "")]
        if missing:
            raise LimitedError(
                f"{file}, row {line}: no {missing[0]!r}; the columns, apart by commas, are {','.join(columns)}"
            )
        for key in columns[2:]:
            try:
                row[key] = float(row[key])
            except (TypeError, ValueError) as error:
                raise LimitedError(f"{file}, row {line}: {key} is {row[key]!r}, not a number; correct it") from error
    return rows


def to_voxel(point: Sequence[float], coordinates: Coordinates, image: Any) -> np.ndarray:
    """Return the continuous voxel index (z, y, x) of a ``point`` (x, y, z) in the SimpleITK ``image``.

    The z of a point in a 2D image does not count.

    ``voxel`` is the index itself, counted from 0; ``lps`` and ``ras`` are millimetres in the scanner's frame.
    """
    known = np.asarray(point, float)[: image.GetDimension()]
    if coordinates == "voxel":
        return known[::-1]
    sign = np.array([-1, -1, 1] if coordinates == "ras" else [1, 1, 1], float)[: image.GetDimension()]
    place = image.TransformPhysicalPointToContinuousIndex([float(v) for v in known * sign])
    return np.array(place[::-1])
