"""What every query strategy is, and the ones that rank regions by a score."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cache
from importlib.metadata import entry_points
from typing import ClassVar

import numpy as np

from nnunet_limited.errors import LimitedError
from nnunet_limited.queries.pool import Choice, Pool

STRATEGIES: dict[str, type[Strategy]] = {}


class Strategy(ABC):
    """A way to choose regions. A subclass with a ``name`` is registered under it.

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
        """Return the numbers of up to ``budget`` regions of ``pool``, in the order in which they are to be annotated.

        They overlap neither each other nor what is blocked; there are fewer only if no more such regions are left. With
        ``return_utilities`` also an array (chosen, n): what each choice went by, nan for a region that was not free.
        Raises LimitedError for a budget below 1, and a pool without a free region or without what the strategy needs.
        """
        choice = self._chosen(pool, budget, seed, return_utilities)
        return (choice.indices, np.stack(choice.utilities)) if return_utilities else choice.indices

    def ranked(self, pool: Pool, budget: int, seed: int) -> list[tuple[int, float]]:
        """Return what :meth:`query` does, each number with the utility of that region when it was chosen."""
        choice = self._chosen(pool, budget, seed, keep=False)
        return list(zip(choice.indices, choice.worth, strict=True))

    def _chosen(self, pool: Pool, budget: int, seed: int, keep: bool) -> Choice:
        if budget < 1:
            raise LimitedError(f"budget {budget} asks for nothing; ask for at least 1 region")
        rng = np.random.default_rng(seed)
        choice = Choice(pool, rng, keep)
        if not choice.free.any():
            raise LimitedError("no region is left to ask for: all of the pool is annotated, or validated on")
        self.choose(choice, budget, rng)
        return choice

    @abstractmethod
    def choose(self, choice: Choice, budget: int, rng: np.random.Generator) -> None:
        """Take up to ``budget`` regions."""


def strategies() -> dict[str, type[Strategy]]:
    """Return every strategy by its name, with those of the entry points ``nnunet_limited.query_strategies``."""
    import nnunet_limited.queries.baselines  # noqa: F401, they register theirs
    import nnunet_limited.queries.diverse  # noqa: F401, they register theirs

    _load_own()
    return dict(sorted(STRATEGIES.items()))


@cache
def _load_own() -> None:
    """Let the strategies of other packages register themselves."""
    for entry in entry_points(group="nnunet_limited.query_strategies"):
        entry.load()


def find_strategy(name: str) -> Strategy:
    """Return the strategy of a name; raise LimitedError if there is none."""
    known = strategies()
    if name not in known:
        raise LimitedError(f"strategy {name!r} is none of {', '.join(known)}; choose one")
    return known[name]()


class TopScore(Strategy):
    """The regions of highest mean score."""

    score: ClassVar[str]

    def utilities(self, pool: Pool, rng: np.random.Generator) -> np.ndarray:
        """Return how much each region is worth (n,)."""
        return pool.need_score(self.score)

    def choose(self, choice: Choice, budget: int, rng: np.random.Generator) -> None:
        """Take the best of what is free, one after the other."""
        utilities = self.utilities(choice.pool, rng)
        while len(choice.indices) < budget and choice.free.any():
            choice.take_best(utilities)


class Entropy(TopScore):
    """Predictive entropy: that of the mean prediction."""

    name, score = "entropy", "entropy"


class ExpectedEntropy(TopScore):
    """Mean entropy of the members."""

    name, score = "expected_entropy", "expected_entropy"


class Bald(TopScore):
    """Mutual information of prediction and member (Houlsby et al., 2011, arXiv 1112.5745)."""

    name, score = "bald", "bald"


class Margin(TopScore):
    """How close the two likeliest classes are (Scheffer et al., 2001)."""

    name, score = "margin", "margin"


class LeastConfidence(TopScore):
    """How far the likeliest class is from certain (Lewis & Gale, SIGIR 1994)."""

    name, score = "least_confidence", "least_confidence"


class Disagreement(TopScore):
    """1 - Dice between members (query by committee, Seung et al., COLT 1992); meant for whole cases."""

    name, score = "disagreement", "disagreement"
    disagrees = True


def log_noisy(values: np.ndarray, beta: float, rng: np.random.Generator) -> np.ndarray:
    """Return log values plus Gumbel noise of scale 1 / ``beta``: the best k are a draw in proportion to values^beta."""
    return np.log(np.maximum(values, 1e-12)) + rng.gumbel(0, 1 / beta, np.shape(values))


class PowerEntropy(TopScore):
    """Entropy with power noise (Kirsch et al., TMLR 2023, arXiv 2106.12059)."""

    name, score = "power_entropy", "entropy"
    beta: ClassVar[float] = 1.0

    def utilities(self, pool: Pool, rng: np.random.Generator) -> np.ndarray:
        """Return noisy logarithms of the score."""
        return log_noisy(pool.need_score(self.score), self.beta, rng)


class PowerBald(PowerEntropy):
    """PowerBALD: mutual information with power noise (Kirsch et al., TMLR 2023, arXiv 2106.12059)."""

    name, score = "power_bald", "bald"


class SoftRankEntropy(TopScore):
    """The rank by entropy with noise (Kirsch et al., TMLR 2023, arXiv 2106.12059)."""

    name, score = "softrank_entropy", "entropy"

    def utilities(self, pool: Pool, rng: np.random.Generator) -> np.ndarray:
        """Return noisy logarithms of 1 / rank; equal scores share the best of their ranks."""
        values = pool.need_score(self.score)
        ranks = 1 + len(values) - np.searchsorted(np.sort(values), values, side="right")
        return log_noisy(1 / ranks, 1.0, rng)


class SoftRankBald(SoftRankEntropy):
    """The rank by mutual information with noise (Kirsch et al., TMLR 2023, arXiv 2106.12059)."""

    name, score = "softrank_bald", "bald"


class ClaspPE(Strategy):
    """ClaSP PE, the default (Lüth et al., TMLR 2026, arXiv 2601.13677).

    Two thirds of the budget go to the classes in equal parts, by entropy weighted by the class, the rest to entropy
    alone. Power noise makes early rounds diverse and fades: its exponent grows from 1 to 100 over the loop.
    """

    name = "clasp_pe"
    class_share: ClassVar[float] = 0.66
    last_beta: ClassVar[float] = 100.0

    def choose(self, choice: Choice, budget: int, rng: np.random.Generator) -> None:
        """Take the best region for each turn; turns are shuffled, so that a loop cut short is fair to classes too."""
        pool = choice.pool
        beta = self.last_beta**pool.progress
        plain = log_noisy(pool.need_score("entropy"), beta, rng)
        assert pool.class_scores is not None
        by_class = log_noisy(pool.class_scores, beta, rng)
        classes, stratified = by_class.shape[1], int(self.class_share * budget)
        turns = [*range(classes)] * (stratified // classes)
        turns += rng.permutation(classes)[: stratified % classes].tolist()
        turns += [classes] * (budget - stratified)
        for turn in rng.permutation(turns):
            if choice.free.any():
                choice.take_best(plain if turn == classes else by_class[:, turn])
