"""Boxes around objects, as a table lists them."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnunet_limited.annotations.annotation import Annotation, Box
from nnunet_limited.annotations.importers.tables import Coordinates, to_voxel
from nnunet_limited.annotations.objects import from_boxes
from nnunet_limited.errors import LimitedError

BOX_COLUMNS = ("case", "class", "x0", "y0", "z0", "x1", "y1", "z1")


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
