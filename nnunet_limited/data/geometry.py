"""Turn and mirror crops together with what belongs to their voxels; drawn from numpy's global generator."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from nnunet_limited.data.mixing import cutmix

SPACING_TOLERANCE = 0.1  # axes whose spacing differs by at most 10 % are turned into one another


class Move(NamedTuple):
    """A quarter turn, ``turns`` times in a plane of two spatial axes, and then mirror images along ``flips``."""

    plane: tuple[int, int] = (0, 1)
    turns: int = 0
    flips: tuple[int, ...] = ()


def square_planes(shape: Sequence[int], spacing: Sequence[float]) -> list[tuple[int, int]]:
    """Return the pairs of spatial axes with the same number of voxels and the same spacing, the last first.

    A quarter turn in such a plane keeps the shape of a crop and the proportions of what it shows.
    """
    pairs = [(a, b) for b in range(len(shape)) for a in range(b)]
    equal = [(a, b) for a, b in pairs if shape[a] == shape[b] and abs(spacing[a] / spacing[b] - 1) <= SPACING_TOLERANCE]
    return equal[::-1]


def draw_moves(batch: int, planes: Sequence[tuple[int, int]], axes: Sequence[int]) -> list[Move]:
    """Return a move for each crop: 0 to 3 quarter turns in one of ``planes``, each of ``axes`` mirrored or not.

    All are equally likely, the crop as it stands among them.
    """
    moves = []
    for _ in range(batch):
        plane, turns = (planes[np.random.randint(len(planes))], np.random.randint(4)) if planes else ((0, 1), 0)
        moves.append(Move(plane, int(turns), tuple(axis for axis in axes if np.random.randint(2))))
    return moves


def move(value: torch.Tensor, moves: Sequence[Move]) -> torch.Tensor:
    """Return ``value`` (b, c, *spatial) with each crop moved."""
    moved = []
    for crop, (plane, turns, flips) in zip(value, moves, strict=True):
        turned = torch.rot90(crop, turns, [1 + axis for axis in plane]) if turns else crop
        moved.append(turned.flip([1 + axis for axis in flips]) if flips else turned)
    return torch.stack(moved)


class StudentView:
    """Move crops at random and mix them by CutMix, each with what belongs to its voxels."""

    def __init__(
        self,
        geometric: str = "none",
        mix: bool = False,
        planes: Sequence[tuple[int, int]] = (),
        axes: Sequence[int] = (),
    ) -> None:
        """Take the settings ``geometric_view`` and ``cutmix``, and where crops may be turned and mirrored."""
        self.planes = tuple(planes) if geometric in ("rot90", "both") else ()
        self.axes = tuple(axes) if geometric in ("flip", "both") else ()
        self.mix = mix

    @property
    def changes_crops(self) -> bool:
        """Whether crops are moved or mixed at all."""
        return bool(self.planes or self.axes or self.mix)

    def __call__(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return ``values`` (b, c, *spatial) after the same moves, with the same boxes of the next crop in them."""
        if self.planes or self.axes:
            moves = draw_moves(len(values[0]), self.planes, self.axes)
            values = tuple(move(value, moves) for value in values)
        return cutmix(*values) if self.mix else values
