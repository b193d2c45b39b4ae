"""Annotations and their cost."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from nnunet_limited.errors import LimitedError


class Box(NamedTuple):
    """A box around one object of class ``value``: voxels from ``start`` up to but not including ``stop``."""

    value: int
    start: tuple[int, ...]
    stop: tuple[int, ...]

    @property
    def inside(self) -> tuple[slice, ...]:
        """Return the index of the voxels inside."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))


class Annotation(NamedTuple):
    """A sparse label and the work behind it.

    ``label`` is the dense label where it was annotated and the ignore value elsewhere. ``marks`` counts the strokes,
    contours, boxes or points drawn, ``slices`` the slices on which someone drew. ``warning`` is what is odd
    about the file, or "". ``complete`` is whether a label map has no voxel of the value of unannotated ones; None for
    others.
    """

    label: np.ndarray
    marks: int
    slices: int
    boxes: tuple[Box, ...] = ()
    warning: str = ""
    complete: bool | None = None

    def cost(self, ignore: int, seconds_per_mark: float) -> dict[str, float]:
        """Return what was annotated and the minutes it takes at ``seconds_per_mark``."""
        annotated = self.label != ignore
        return {
            "voxels": int(annotated.sum()),
            "foreground_voxels": int((annotated & (self.label != 0)).sum()),
            "annotated_share": float(annotated.mean()),
            "marks": self.marks,
            "slices": self.slices,
            "minutes": self.marks * seconds_per_mark / 60,
        }


def box_codes(shape: tuple[int, ...], boxes: Sequence[Box]) -> np.ndarray:
    """Return an array of ``shape`` whose bit ``c - 1`` is set where a voxel is in a box of class ``c``, 1 to 15.

    Raises LimitedError for a class beyond that.
    """
    codes = np.zeros(shape, np.int16)
    for box in boxes:
        if box.value > 15:
            raise LimitedError(f"a box has class {box.value}, but boxes have the classes 1 to 15; merge some")
        codes[box.inside] |= np.int16(1 << (box.value - 1))
    return codes


def classes(label: np.ndarray, ignore: int) -> list[int]:
    """Return the values of ``label`` besides ``ignore``, in order."""
    return [int(value) for value in np.unique(label) if value != ignore]


def only(label: np.ndarray, annotated: np.ndarray, ignore: int) -> np.ndarray:
    """Return ``label`` where ``annotated`` and ``ignore`` elsewhere."""
    return np.where(annotated, label, np.asarray(ignore, label.dtype))


def outlines(label: np.ndarray, annotated: np.ndarray, ignore: int, axis: int = 0) -> tuple[int, int]:
    """Return how many outlines of objects there are in the ``annotated`` part of ``label``, and in how many slices.

    An outline is that of one foreground object in one slice across ``axis``; a slice without any counts for one, as
    someone has looked at it. A 2D image is one slice.
    """
    label, annotated = (a[None] if a.ndim == 2 else np.moveaxis(a, axis, 0) for a in (label, annotated))
    planes = [n for n in range(len(label)) if annotated[n].any()]
    marks = 0
    for n in planes:
        present = [value for value in classes(label[n][annotated[n]], ignore) if value]
        marks += max(1, sum(ndimage.label((label[n] == value) & annotated[n])[1] for value in present))
    return marks, len(planes)
