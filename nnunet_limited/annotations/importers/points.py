"""Points in objects, as a table lists them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from nnunet_limited.annotations.annotation import Annotation
from nnunet_limited.annotations.importers.tables import Coordinates, to_voxel
from nnunet_limited.annotations.objects import ball
from nnunet_limited.errors import LimitedError

POINT_COLUMNS = ("case", "class", "x", "y", "z")


def from_point_rows(
    image: Any, ignore: int, rows: list[dict[str, Any]], coordinates: Coordinates, radius: float
) -> Annotation:
    """Return a ball of the class around each point of a case on the grid of its SimpleITK ``image``.

    The rest is ``ignore``, and so are voxels in balls of two classes. ``radius`` is in units of the smallest spacing.
    Raises LimitedError for a point outside the image.
    """
    label = np.full(image.GetSize()[::-1], ignore, np.int16)
    spacing = np.array(image.GetSpacing()[::-1])
    for value, middle in _middles(rows, coordinates, image):
        near = np.zeros(label.shape, bool)
        ball(near, np.ones(label.shape, bool), middle, radius * spacing.min(), spacing)
        clash = near & (label != ignore) & (label != value)
        label[near] = value
        label[clash] = ignore
    planes = int((label.reshape(-1, *label.shape[-2:]) != ignore).any(axis=(1, 2)).sum())
    return Annotation(label, len(rows), planes)


def _middles(rows: list[dict[str, Any]], coordinates: Coordinates, image: Any) -> Iterable[tuple[int, np.ndarray]]:
    """Yield class and voxel (z, y, x) of each point."""
    for row in rows:
        middle = np.rint(to_voxel([row[axis] for axis in "xyz"], coordinates, image)).astype(int)
        if (middle < 0).any() or (middle >= image.GetSize()[::-1]).any():
            raise LimitedError(
                f"{row['where']}: the point is voxel {middle[::-1].tolist()}, the image of {row['case']} has "
                f"{list(image.GetSize())}; correct it, or --coordinates {coordinates}"
            )
        yield row["class"], middle
