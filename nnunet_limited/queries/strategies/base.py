"""The base class of all query strategies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from nnunet_limited.errors import LimitedError
from nnunet_limited.queries.pool import Choice, Pool

STRATEGIES: dict[str, type[Strategy]] = {}


class Strategy(ABC):
    """A way to choose windows. A subclass with a ``name`` is registered under it.

    ``needs_model``: it wants scores; ``needs_foreground``: where each class is; ``features`` names the features it
    wants, if any; ``disagrees``: it compares the members of an ensemble as a committee.
    """

    name: ClassVar[str] = ""
    needs_model: ClassVar[bool] = True
    needs_foreground: ClassVar[bool] = False
    features: ClassVar[str | None] = None
    disagrees: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        """Register a strategy that has a name of its own."""
        if "name" in vars(cls):
            STRATEGIES[cls.name] = cls

    def query(
        self, pool: Pool, budget: int, seed: int, return_utilities: bool = False
    ) -> list[int] | tuple[list[int], np.ndarray]:
        """Return the numbers of up to ``budget`` windows of ``pool``, in the order in which they are to be annotated.

        They overlap neither each other nor what is blocked; there are fewer only if no more such windows are left. With
        ``return_utilities`` also an array (chosen, n): what each choice went by, nan for a window that was not free.
        Raises LimitedError for a budget below 1, and a pool without a free window or without what the strategy needs.
        """
        choice = self._chosen(pool, budget, seed, return_utilities)
        return (choice.indices, np.stack(choice.utilities)) if return_utilities else choice.indices

    def ranked(self, pool: Pool, budget: int, seed: int) -> list[tuple[int, float]]:
        """Return what :meth:`query` does, each number with the utility of that window when it was chosen."""
        choice = self._chosen(pool, budget, seed, keep=False)
        return list(zip(choice.indices, choice.worth, strict=True))

    def _chosen(self, pool: Pool, budget: int, seed: int, keep: bool) -> Choice:
        if budget < 1:
            raise LimitedError(f"budget {budget} asks for nothing; ask for at least 1 region")
        rng = np.random.default_rng(seed)
        choice = Choice(pool, rng, keep)
        if not choice.free.any():
            raise LimitedError("no window is left to ask for: all of the pool is annotated, or validated on")
        self.choose(choice, budget, rng)
        return choice

    @abstractmethod
    def choose(self, choice: Choice, budget: int, rng: np.random.Generator) -> None:
        """Take up to ``budget`` windows."""
