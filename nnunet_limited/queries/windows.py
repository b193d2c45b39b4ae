"""Windows, the parts of scans that can be annotated, and sums over them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numpy as np
from annotated_types import Interval
from pydantic import PositiveInt

from nnunet_limited.errors import LimitedError


class Window(NamedTuple):
    """A part of a case: voxels from ``start`` on, ``size`` of them along each axis, as arrays have them (z, y, x)."""

    case: str
    start: tuple[int, ...]
    size: tuple[int, ...]

    @property
    def inside(self) -> tuple[slice, ...]:
        """Return the index of its voxels."""
        return tuple(slice(a, a + n) for a, n in zip(self.start, self.size, strict=True))


class Granularity(NamedTuple):
    """The unit of annotation: a whole ``case``, a ``slice`` across an axis, or a ``patch``.

    ``axis`` is the axis of slices (default: that of largest spacing), ``size`` the size of patches in voxels.
    """

    kind: Literal["case", "slice", "patch"] = "case"
    axis: Annotated[int, Interval(ge=0, le=2)] | None = None
    size: tuple[PositiveInt, ...] = ()

    def plane_axis(self, spacing: Sequence[float]) -> int:
        """Return the axis across which people draw: ``axis`` or, without it, that of the largest ``spacing``."""
        return int(np.argmax(spacing)) if self.axis is None else self.axis

    def window_grid(self, shape: Sequence[int], spacing: Sequence[float], case: str) -> WindowGrid:
        """Return the candidates of a case of ``shape`` in voxels: all slices, or patches at steps of half their size.

        Raises LimitedError for an axis or size that does not fit the image.
        """
        size = tuple(shape)
        if self.kind == "slice":
            axis = self.plane_axis(spacing)
            if axis >= len(shape):
                raise LimitedError(f"--axis {axis}: case {case} has the axes 0 to {len(shape) - 1}; choose one of them")
            size = tuple(1 if a == axis else n for a, n in enumerate(shape))
        elif self.kind == "patch":
            flat = shape[0] == 1 and len(self.size) == len(shape) - 1  # a patch of a 2D image
            size = (1, *self.size) if flat else self.size
            if len(size) != len(shape):
                raise LimitedError(
                    f"--size {'x'.join(map(str, self.size))} has {len(self.size)} numbers, case {case} {len(shape)} "
                    "axes; give one number per axis"
                )
            size = tuple(min(s, n) for s, n in zip(size, shape, strict=True))
        places = [np.unique([*range(0, n - s + 1, max(1, s // 2)), n - s]) for n, s in zip(shape, size, strict=True)]
        return WindowGrid(tuple(places), size)


@dataclass(frozen=True)
class WindowGrid:
    """Windows of one ``size`` in a case: every combination of the ``starts`` along each axis, the last one fastest."""

    starts: tuple[np.ndarray, ...]
    size: tuple[int, ...]

    def __len__(self) -> int:
        return int(np.prod([len(one) for one in self.starts]))

    def windows(self, case: str) -> list[Window]:
        """Return the windows one by one."""
        grid = np.stack(np.meshgrid(*self.starts, indexing="ij"), axis=-1).reshape(-1, len(self.starts))
        return [Window(case, tuple(start), self.size) for start in grid.tolist()]

    @property
    def bounds(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the first voxel and the end of the windows along each axis."""
        return [(start, start + size) for start, size in zip(self.starts, self.size, strict=True)]

    @property
    def cells(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return, along each axis, the bounds of the cell of each window: what is nearest to its middle.

        The cells tile the image.
        """
        cells = []
        for start, size in zip(self.starts, self.size, strict=True):
            between = (start[1:] + start[:-1] + size) / 2
            cells.append((np.concatenate([[-np.inf], between]), np.concatenate([between, [np.inf]])))
        return cells


@dataclass(frozen=True)
class MapExtent:
    """The part of a scan that a map of any resolution covers: from ``lower`` to ``upper``, in voxels of the scan."""

    lower: tuple[float, ...]
    upper: tuple[float, ...]

    def sums(self, values: np.ndarray, bounds: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Return the integral of a map over boxes of the scan, in scan voxels, 0 outside of the map.

        ``values`` (*further, *spatial) is constant within each of its voxels; ``bounds`` are those of the boxes along
        each spatial axis, and the result is (*further, *boxes along each axis).
        """
        total = np.asarray(values, np.float32)
        first = total.ndim - len(self.lower)
        for axis, ((start, stop), low, high) in enumerate(zip(bounds, self.lower, self.upper, strict=True), first):
            edges = np.linspace(low, high, total.shape[axis] + 1)
            shared = np.minimum(stop[:, None], edges[1:]) - np.maximum(start[:, None], edges[:-1])
            covered = shared.clip(min=0).astype(np.float32)  # length of each voxel inside each box along this axis
            total = np.moveaxis(np.tensordot(total, covered, (axis, 1)), -1, axis)
        return total

    def spread(self, values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
        """Return a map (*spatial) resampled to a scan of ``shape`` by the nearest voxel; 0 outside of the map."""
        places, inside = [], np.ones(tuple(shape), bool)
        for axis, (low, high, size) in enumerate(zip(self.lower, self.upper, shape, strict=True)):
            place = (np.arange(size) + 0.5 - low) / (high - low)
            line = [1] * len(shape)
            line[axis] = size
            inside &= ((place >= 0) & (place < 1)).reshape(line)
            places.append((place.clip(0, 1 - 1e-9) * values.shape[axis]).astype(int))
        return np.where(inside, values[np.ix_(*places)], 0)


class WindowOverlap:
    """Windows as arrays, to find quickly which of them overlap another one."""

    def __init__(self, windows: Sequence[Window]) -> None:
        """Store windows; the number of axes may differ between cases."""
        members: dict[str, list[int]] = {}
        for n, window in enumerate(windows):
            members.setdefault(window.case, []).append(n)
        self.by_case = {}
        for case, found in members.items():
            _, starts, sizes = zip(*(windows[n] for n in found), strict=True)
            self.by_case[case] = np.array(found), np.array(starts), np.array(sizes)

    def find(self, other: Window) -> np.ndarray:
        """Return the indices of the windows that share a voxel with ``other``."""
        if other.case not in self.by_case:
            return np.zeros(0, int)
        members, starts, sizes = self.by_case[other.case]
        shared = (starts < np.add(other.start, other.size)) & (starts + sizes > other.start)
        return members[shared.all(1)]
