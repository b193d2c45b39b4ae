"""Strategies that no model or only its prediction guides: what every other has to beat."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from nnunet_limited.errors import LimitedError
from nnunet_limited.queries.pool import Choice
from nnunet_limited.queries.strategies.base import Strategy


class Random(Strategy):
    """A random case, and a random window of it."""

    name = "random"
    needs_model = False

    def choose(self, choice: Choice, budget: int, rng: np.random.Generator) -> None:
        """Take one window after the other."""
        while len(choice.indices) < budget and choice.free.any():
            self.take_any(choice, rng)

    def take_any(self, choice: Choice, rng: np.random.Generator) -> None:
        """Take a random window of a random case."""
        cases = choice.pool.cases
        chance = choice.free & (cases == rng.choice(np.unique(cases[choice.free])))
        choice.take(rng.choice(np.flatnonzero(chance)), chance.astype(float))


class StratifiedRandom(Random):
    """A random window of each case in turn, the cases in random order: all get as many, or one more."""

    name = "random_stratified"

    def choose(self, choice: Choice, budget: int, rng: np.random.Generator) -> None:
        """Take from the cases that have had the least so far."""
        cases = choice.pool.cases
        taken = np.zeros(cases.max() + 1)
        while len(choice.indices) < budget and choice.free.any():
            left = np.unique(cases[choice.free])
            case = rng.choice(left[taken[left] == taken[left].min()])
            chance = choice.free & (cases == case)
            choice.take(rng.choice(np.flatnonzero(chance)), chance.astype(float))
            taken[case] += 1


class ForegroundRandom66(Random):
    """Foreground-aware random: in two of three turns around a class or its border (Lüth et al., arXiv 2511.19183).

    Then a class that the case shows is drawn, and a window whose middle lies on it. Where the foreground comes from
    the hidden labels, as is usual in simulations, an oracle helps; in real use it is that of the model's prediction.
    """

    name = "random_fg66"
    needs_foreground = True
    anywhere: ClassVar[float] = 1 / 3

    def choose(self, choice: Choice, budget: int, rng: np.random.Generator) -> None:
        """Take one window after the other."""
        if choice.pool.foreground is None or choice.pool.border is None:
            raise LimitedError("this strategy needs a prediction to know the foreground; give a trained model")
        while len(choice.indices) < budget and choice.free.any():
            on = None if rng.random() < self.anywhere else rng.choice(2)
            if on is None or not self.take_foreground(choice, (choice.pool.foreground, choice.pool.border)[on], rng):
                self.take_any(choice, rng)

    def take_foreground(self, choice: Choice, voxels: np.ndarray, rng: np.random.Generator) -> bool:
        """Take a window in proportion to its ``voxels`` (n, c) of a random class of a random case; tell if it can."""
        cases = choice.pool.cases
        shown = choice.free & voxels.any(1)
        if not shown.any():
            return False
        shown &= cases == rng.choice(np.unique(cases[shown]))
        value = rng.choice(np.flatnonzero(voxels[shown].any(0)))
        chance = np.where(shown, voxels[:, value], 0.0)
        choice.take(rng.choice(len(chance), p=chance / chance.sum()), chance)
        return True


class ForegroundRandom33(ForegroundRandom66):
    """Foreground-aware random, in one of three turns (Lüth et al., arXiv 2511.19183)."""

    name = "random_fg33"
    anywhere = 2 / 3
