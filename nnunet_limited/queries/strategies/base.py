"""The base class of all query strategies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from nnunet_limited.errors import LimitedError
from nnunet_limited.queries.pool import Choice, Pool

STRATEGIES: dict[str, type[Strategy]] = {}


class Strategy(ABC):
    """A way to choose windows. A subclass with a ``name`` is registered under it, for ``--strategy NAME``.

    ``needs_model``: it uses scores or features of a trained model.
    ``needs_foreground``: it uses where each class is, by the prediction or, in a simulation, by the hidden labels.
    ``needs_member_labels``: it compares the label images of the members of an ensemble.
    ``features``: the kind of features that it uses, or None (see ``queries/pool.py``).

    The first line of its docstring is shown to annotators as the reason of its choice.
    """

    name: ClassVar[str] = ""
    needs_model: ClassVar[bool] = True
    needs_foreground: ClassVar[bool] = False
    needs_member_labels: ClassVar[bool] = False
    features: ClassVar[str | None] = None

    def __init_subclass__(cls) -> None:
        """Register a strategy that has a name of its own."""
        if "name" in vars(cls):
            STRATEGIES[cls.name] = cls

    def query(
        self, pool: Pool, budget: int, seed: int, return_utilities: bool = False
    ) -> list[int] | tuple[list[int], np.ndarray]:
        """Return the indices of up to ``budget`` windows of ``pool``, in the order in which they are to be annotated.

        They overlap neither each other nor a blocked window; there are fewer only if no such window is left. With
        ``return_utilities`` also return the utilities of all windows for each choice (chosen, n), nan where a window
        was not free. Raises LimitedError for a budget below 1, and for a pool without a free window or without what
        the strategy needs.
        """
        choice = self._run(pool, budget, seed, return_utilities)
        return (choice.indices, np.stack(choice.utilities)) if return_utilities else choice.indices

    def ranked(self, pool: Pool, budget: int, seed: int) -> list[tuple[int, float]]:
        """Return the windows of :meth:`query`, each index with the utility of the window when it was chosen."""
        choice = self._run(pool, budget, seed, keep_utilities=False)
        return list(zip(choice.indices, choice.chosen_utilities, strict=True))

    def _run(self, pool: Pool, budget: int, seed: int, keep_utilities: bool) -> Choice:
        if budget < 1:
            raise LimitedError(f"budget {budget} is too small; choose at least 1 window")
        rng = np.random.default_rng(seed)
        choice = Choice(pool, rng, keep_utilities)
        if not choice.free.any():
            raise LimitedError("no case, slice or patch is left to query: all are annotated or validated on")
        self.choose(choice, budget, rng)
        return choice

    @abstractmethod
    def choose(self, choice: Choice, budget: int, rng: np.random.Generator) -> None:
        """Take up to ``budget`` windows of ``choice.pool``; all randomness comes from ``rng``."""
