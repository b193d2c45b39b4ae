"""Baselines: random strategies, of which some use the foreground."""

from typing import ClassVar

import numpy as np

from nnunet_limited.errors import LimitedError
from nnunet_limited.queries.pool import Choice
from nnunet_limited.queries.strategies.base import Strategy


class Random(Strategy):
    """A random window of a random case."""

    name = "random"
    needs_model = False

    def choose(self, choice: Choice, budget: int, rng: np.random.Generator) -> None:
        """Take one window after the other."""
        while len(choice.indices) < budget and choice.free.any():
            self.take_one(choice, rng)

    def take_one(self, choice: Choice, rng: np.random.Generator) -> None:
        """Take a random window of a random case."""
        take_window_of(choice, rng.choice(np.unique(choice.pool.cases[choice.free])), rng)


def take_window_of(choice: Choice, case: int, rng: np.random.Generator) -> None:
    """Take a random free window of the case with the number ``case``."""
    candidates = choice.free & (choice.pool.cases == case)
    choice.take(rng.choice(np.flatnonzero(candidates)), candidates.astype(float))


class StratifiedRandom(Random):
    """A random window of each case in turn, the cases in random order; the numbers per case differ by at most one."""

    name = "random_stratified"

    def take_one(self, choice: Choice, rng: np.random.Generator) -> None:
        """Take a window of one of the cases with the fewest windows so far."""
        cases = choice.pool.cases
        left = np.unique(cases[choice.free])
        counts = np.bincount(cases[choice.indices], minlength=len(choice.pool))[left]
        take_window_of(choice, rng.choice(left[counts == counts.min()]), rng)


class ForegroundRandom66(Random):
    """Foreground-aware random: in two of three turns on a class or its border (Lüth et al., arXiv 2511.19183).

    In such a turn a class that a random case shows is drawn, and then a window with its middle on it. Simulations
    usually take the foreground from the hidden labels, which helps; otherwise it is that of the model's prediction.
    """

    name = "random_fg66"
    needs_foreground = True
    random_fraction: ClassVar[float] = 1 / 3

    def take_one(self, choice: Choice, rng: np.random.Generator) -> None:
        """Take a window in proportion to its voxels of a class; by chance, or if no window has any, a random one."""
        pool = choice.pool
        if pool.foreground is None or pool.border is None:
            raise LimitedError("this strategy needs a prediction that shows the foreground; give a trained model")
        if rng.random() >= self.random_fraction:
            voxels = (pool.foreground, pool.border)[rng.choice(2)]
            shown = choice.free & voxels.any(1)
            if shown.any():
                shown &= pool.cases == rng.choice(np.unique(pool.cases[shown]))
                value = rng.choice(np.flatnonzero(voxels[shown].any(0)))
                weights = np.where(shown, voxels[:, value], 0.0)
                choice.take(rng.choice(len(weights), p=weights / weights.sum()), weights)
                return
        super().take_one(choice, rng)


class ForegroundRandom33(ForegroundRandom66):
    """Foreground-aware random, in one of three turns (Lüth et al., arXiv 2511.19183)."""

    name = "random_fg33"
    random_fraction = 2 / 3
