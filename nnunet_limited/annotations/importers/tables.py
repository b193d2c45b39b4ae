"""Tables of boxes and points, and their coordinates."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nnunet_limited.errors import LimitedError

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
        raise LimitedError(
            f"{file} is not readable ({error}); write CSV with the columns {','.join(columns)}"
        ) from error
    if not isinstance(rows, list) or not rows:
        raise LimitedError(f"{file} holds no row; write one for each object, with the columns {','.join(columns)}")
    for line, row in enumerate(rows, 1):
        missing = [key for key in columns if not isinstance(row, dict) or row.get(key) in (None, "")]
        if missing:
            raise LimitedError(
                f"{file}, row {line}: no {missing[0]!r}; the columns, separated by commas, are {','.join(columns)}"
            )
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
