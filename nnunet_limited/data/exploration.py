"""Places of unlabelled crops that cover a case evenly, however few crops it gets."""

from collections.abc import Sequence
from zlib import crc32

import numpy as np
import torch


class Exploration:
    """The next place to look at in each case; the counters are in shared memory, so worker processes take turns.

    Independent uniform places leave 37 % of a case unseen after as many crops as it holds. These follow an additive
    recurrence with the powers of the inverse of the generalised golden ratio (Roberts, The unreasonable effectiveness
    of quasirandom sequences, 2018), which has no large gaps after any number of crops.
    """

    def __init__(self, cases: Sequence[str], seed: int | None, first: int = 0, step: int = 1) -> None:
        """Take the names of the cases.

        Of the sequence of a case, each place from ``first`` on that is a multiple of ``step`` further is taken, so that
        several GPUs share it. Each case begins at a point of it that depends on its name and ``seed`` alone, so that it
        is the same on every GPU and in a continued run, also without a seed.
        """
        self.index = {case: number for number, case in enumerate(sorted(set(cases)))}
        self.counts = torch.zeros(len(self.index), dtype=torch.int64).share_memory_()
        known = [] if seed is None else [seed]
        self.shifts = np.stack([np.random.default_rng([*known, crc32(case.encode())]).random(3) for case in self.index])
        self.first, self.step = first, step

    def next_centre(self, case: str, shape: Sequence[int], patch: Sequence[int]) -> list[int]:
        """Return the voxel in the middle of the next crop of ``patch`` voxels in a case of ``shape`` voxels, (3,) both.

        Crops lie inside the case where it is large enough, and cover its borders nearly as often as its inside.
        """
        number = self.first + self.step * int(self.counts[self.index[case]])
        self.counts[self.index[case]] += 1  # without a lock: two processes may now and then take the same place
        size, sides = np.asarray(shape), np.asarray(patch)
        room = np.maximum(size - sides, 0)
        free = np.flatnonzero(room)
        place = self.shifts[self.index[case]].copy()
        place[free] = (place[free] + number * additive_steps(len(free))) % 1
        # A voxel at the border is seen from few places, so those that touch the border are taken more often.
        margin = np.minimum(sides, room) / 2
        corner = np.clip(place * (room + 2 * margin) - margin, 0, room)
        return [int(c) for c in np.where(room, np.round(corner) + sides // 2, size // 2)]


def additive_steps(dimensions: int) -> np.ndarray:
    """Return the steps (dimensions,) in (0, 1) of the additive recurrence that fills a cube of so many dimensions."""
    ratio = 2.0
    for _ in range(50):  # converges to the root of x ** (d + 1) = x + 1
        ratio = (1 + ratio) ** (1 / (dimensions + 1))
    return ratio ** -np.arange(1, dimensions + 1.0)
