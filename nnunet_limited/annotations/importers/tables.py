"""Boxes around objects and points in them, as tables list them."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nnunet_limited.annotations.annotation import Annotation, Box
from nnunet_limited.annotations.objects import ball, from_boxes
from nnunet_limited.errors import LimitedError

BOX_COLUMNS = ("case", "class", "x0", "y0", "z0", "x1", "y1", "z1")
POINT_COLUMNS = ("case", "class", "x", "y", "z")
Coordinates = Literal["voxel", "lps", "ras"]


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
        raise LimitedError(f"{file} is not readable ({error}); write CSV with columns {','.join(columns)}") from error
    if not isinstance(rows, list) or not rows:
        raise LimitedError(f"{file} holds no row; write one for each object, with the columns {','.join(columns)}")
    for line, row in enumerate(rows, 1):
        missing = [key for key in columns if not isinstance(row, dict) or row.get(key) in (None, "")]
        if missing:
            raise LimitedError(f"{file}, row {line}: no {missing[0]!r}; columns, comma-separated: {','.join(columns)}")
        for key in columns[2:]:
            try:
                row[key] = float(row[key])
            except (TypeError, ValueError) as error:
                raise LimitedError(f"{file}, row {line}: {key} is {row[key]!r}, not a number; correct it") from error
    return rows


def to_voxel(point: Sequence[float], coordinates: Coordinates, image: Any) -> np.ndarray:
    """Return the continuous voxel index (z, y, x) of a ``point`` (x, y, z) in the SimpleITK ``image``.

    The z of a point in a 2D image is ignored. ``voxel`` is the index itself, from 0; ``lps`` and ``ras`` are
    millimetres in the coordinate system of the scanner.
    """
    known = np.asarray(point, float)[: image.GetDimension()]
    if coordinates == "voxel":
        return known[::-1]
    sign = np.array([-1, -1, 1] if coordinates == "ras" else [1, 1, 1], float)[: image.GetDimension()]
    place = image.TransformPhysicalPointToContinuousIndex([float(v) for v in known * sign])
    return np.array(place[::-1])


def from_box_rows(image: Any, ignore: int, rows: list[dict[str, Any]], coordinates: Coordinates) -> Annotation:
    """Return background outside all boxes of a case on the grid of its SimpleITK ``image``, and ``ignore`` inside.

    Raises LimitedError for a box that leaves the image.
    """
    shape = image.GetSize()[::-1]
    found = []
    for row in rows:
        corners = np.stack([to_voxel([row[f"{axis}{end}"] for axis in "xyz"], coordinates, image) for end in "01"])
        start, stop = np.ceil(corners.min(0) - 0.5).astype(int), np.floor(corners.max(0) + 0.5).astype(int) + 1
        if (start < 0).any() or (stop > shape).any():
            raise LimitedError(
                f"{row['where']}: the box covers the voxels {start[::-1].tolist()} to {(stop - 1)[::-1].tolist()}, the "
                f"image of {row['case']} has {list(shape[::-1])}; correct it, or --coordinates {coordinates}"
            )
        found.append(Box(row["class"], tuple(start.tolist()), tuple(stop.tolist())))
    return from_boxes(np.zeros(shape, np.int16), ignore, found)


def from_point_rows(
    image: Any, ignore: int, rows: list[dict[str, Any]], coordinates: Coordinates, radius: float
) -> Annotation:
    """Return a ball of the class around each point of a case on the grid of its SimpleITK ``image``.

    The rest is ``ignore``, and so are voxels in balls of two classes. ``radius`` is in units of the smallest spacing.
    Raises LimitedError for a point outside the image.
    """
    label = np.full(image.GetSize()[::-1], ignore, np.int16)
    spacing = np.array(image.GetSpacing()[::-1])
    for row in rows:
        middle = np.rint(to_voxel([row[axis] for axis in "xyz"], coordinates, image)).astype(int)
        if (middle < 0).any() or (middle >= label.shape).any():
            raise LimitedError(
                f"{row['where']}: the point is voxel {middle[::-1].tolist()}, the image of {row['case']} has "
                f"{list(image.GetSize())}; correct it, or --coordinates {coordinates}"
            )
        near = np.zeros(label.shape, bool)
        ball(near, np.ones(label.shape, bool), middle, radius * spacing.min(), spacing)
        clash = near & (label != ignore) & (label != row["class"])
        label[near] = row["class"]
        label[clash] = ignore
    planes = int((label.reshape(-1, *label.shape[-2:]) != ignore).any(axis=(1, 2)).sum())
    return Annotation(label, len(rows), planes)
