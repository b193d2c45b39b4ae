"""Boxes around objects and points in them, as tables list them."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nnunet_limited.annotations.annotation import Annotation, Box
from nnunet_limited.annotations.grid import Grid
from nnunet_limited.annotations.objects import ball, from_boxes
from nnunet_limited.errors import LimitedError
from nnunet_limited.util.files import utf8_text

BOX_COLUMNS = ("case", "class", "x0", "y0", "z0", "x1", "y1", "z1")
POINT_COLUMNS = ("case", "class", "x", "y", "z")
Coordinates = Literal["voxel", "lps", "ras"]
LARGEST = 1e9  # beyond any voxel or millimetre of a scan; NaN is not below it
ROUNDED = 0.05  # voxels; tables round millimetres


def read_table(file: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of a CSV file with these ``columns``, or of a JSON list of objects with these keys.

    The columns besides ``case`` and ``class`` are numbers.
    """
    if not file.is_file():
        raise LimitedError(f"{file} does not exist; write a CSV file with the columns {','.join(columns)}")
    try:
        text = utf8_text(file, "table")
        rows = json.loads(text) if file.suffix.lower() == ".json" else list(csv.DictReader(text.splitlines()))
    except (ValueError, RecursionError, csv.Error) as error:
        raise LimitedError(f"{file} is not readable ({error}); write CSV with columns {','.join(columns)}") from error
    if not isinstance(rows, list):
        raise LimitedError(
            f"{file} holds {str(rows)[:40]!r}, not a list of objects; write one with the keys {','.join(columns)} for "
            "each row"
        )
    if not rows:
        raise LimitedError(f"{file} holds no row; write one for each object, with the columns {','.join(columns)}")
    for line, row in enumerate(rows, 1):
        missing = [key for key in columns if not isinstance(row, dict) or row.get(key) in (None, "")]
        if missing:
            raise LimitedError(f"{file}, row {line}: no {missing[0]!r}; columns, comma-separated: {','.join(columns)}")
        more = [value for value in row.get(None) or () if value.strip()]  # without a column, as csv gives them
        if more:
            raise LimitedError(
                f"{file}, row {line}: it has more values than columns, the last is {more[-1]!r:.40}; write decimals "
                "with a point"
            )
        for key in columns[2:]:
            try:
                number = float("nan" if isinstance(row[key], bool) else row[key])
            except (TypeError, ValueError):
                number = math.nan
            if not abs(number) < LARGEST:
                raise LimitedError(f"{file}, row {line}: {key} is {row[key]!r:.60}, not a number; correct it")
            row[key] = number
    return rows


def to_voxel(point: Sequence[float], coordinates: Coordinates, image: Grid) -> np.ndarray:
    """Return the continuous voxel index (z, y, x) of a ``point`` (x, y, z) in the ``image``.

    The z of a point in a 2D image is ignored. ``voxel`` is the index itself, from 0; ``lps`` and ``ras`` are
    millimetres in the coordinate system of the scanner. Raises LimitedError if the image has no position in it.
    """
    known = np.asarray(point, float)
    if coordinates != "voxel":
        if image.matrix is None:
            raise LimitedError(f"--coordinates {coordinates}: the images have no position in space; give voxel indices")
        known = known * ([-1, -1, 1] if coordinates == "ras" else [1, 1, 1])
        axes = len(image.matrix) - 1
        moved = known[:axes] - image.matrix[:-1, -1]
        known = np.array([*np.linalg.solve(image.matrix[:-1, :-1], moved), *known[axes:]])
    if image.shape[0] == 1 and (image.matrix is None or len(image.matrix) == 3):
        known[2] = 0
    return known[::-1]


def from_box_rows(image: Grid, ignore: int, rows: list[dict[str, Any]], coordinates: Coordinates) -> Annotation:
    """Return background outside all boxes of a case on the grid of its ``image``, and ``ignore`` inside.

    A box holds the voxels whose middle is inside. Raises LimitedError for a box that leaves the image or holds none.
    """
    shape = image.shape
    found = []
    for row in rows:
        corners = np.stack([to_voxel([row[f"{axis}{end}"] for axis in "xyz"], coordinates, image) for end in "01"])
        start = np.ceil(corners.min(0) - ROUNDED).astype(int)
        stop = np.floor(corners.max(0) + ROUNDED).astype(int) + 1
        if (stop <= start).any():
            low, high = (np.round(corner[::-1], 2).tolist() for corner in (corners.min(0), corners.max(0)))
            raise LimitedError(
                f"{row['where']}: the box from {low} to {high} (voxels of the image) holds the middle of no voxel; "
                f"correct it, or --coordinates {coordinates}"
            )
        if (start < 0).any() or (stop > shape).any():
            raise LimitedError(
                f"{row['where']}: the box covers the voxels {start[::-1].tolist()} to {(stop - 1)[::-1].tolist()}, the "
                f"image of {row['case']} has {list(shape[::-1])}; correct it, or --coordinates {coordinates}"
            )
        found.append(Box(row["class"], tuple(start.tolist()), tuple(stop.tolist())))
    return from_boxes(np.zeros(shape, np.int16), ignore, found)


def from_point_rows(
    image: Grid, ignore: int, rows: list[dict[str, Any]], coordinates: Coordinates, radius: float
) -> Annotation:
    """Return a ball of the class around each point of a case on the grid of its ``image``.

    The rest is ``ignore``, and so are voxels in balls of two classes. ``radius`` is in units of the smallest spacing.
    Raises LimitedError for a point outside the image.
    """
    label = np.full(image.shape, ignore, np.int16)
    steps = image.spacing or (1.0, 1.0, 1.0)
    spacing = np.array([1e9] * (3 - len(steps)) + [*steps])  # a 2D image is one thick slice
    for row in rows:
        middle = np.rint(to_voxel([row[axis] for axis in "xyz"], coordinates, image)).astype(int)
        if (middle < 0).any() or (middle >= label.shape).any():
            raise LimitedError(
                f"{row['where']}: the point is voxel {middle[::-1].tolist()}, the image of {row['case']} has "
                f"{list(image.shape[::-1])}; correct it, or --coordinates {coordinates}"
            )
        near = np.zeros(label.shape, bool)
        ball(near, np.ones(label.shape, bool), middle, radius * spacing.min(), spacing)
        clash = near & (label != ignore) & (label != row["class"])
        label[near] = row["class"]
        label[clash] = ignore
    planes = int((label != ignore).any(axis=(1, 2)).sum())
    return Annotation(label, len(rows), planes)
