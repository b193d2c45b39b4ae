"""Strategies that rank windows by the uncertainty of the model."""

from typing import ClassVar

import numpy as np

from nnunet_limited.queries.pool import Choice, Pool
from nnunet_limited.queries.strategies.base import Strategy


class TopScore(Strategy):
    """The windows of highest mean score.

    A strategy for another score is a subclass with its name in ``score``; the score itself is one entry of
    ``VOXEL_SCORES`` in ``queries/uncertainty.py``.
    """

    score: ClassVar[str]

    def utilities(self, pool: Pool, rng: np.random.Generator) -> np.ndarray:
        """Return the utility of each window (n,)."""
        return pool.require_score(self.score)

    def choose(self, choice: Choice, budget: int, rng: np.random.Generator) -> None:
        """Take the best free window, one after the other."""
        utilities = self.utilities(choice.pool, rng)
        while len(choice.indices) < budget and choice.free.any():
            choice.take_best(utilities)


# The strategies that take the windows of the highest score of the same name, and what they show to annotators.
for _name, _reason in {
    "entropy": "Predictive entropy: that of the mean prediction.",
    "expected_entropy": "Mean entropy of the members.",
    "bald": "Mutual information of prediction and member (Houlsby et al., 2011, arXiv 1112.5745).",
    "margin": "Small difference between the two most probable classes (Scheffer et al., 2001).",
    "least_confidence": "Low probability of the most probable class (Lewis & Gale, SIGIR 1994).",
}.items():
    type(_name, (TopScore,), {"name": _name, "score": _name, "__doc__": _reason})


class Disagreement(TopScore):
    """1 - Dice between members (query by committee, Seung et al., COLT 1992); meant for whole cases."""

    name, score = "disagreement", "disagreement"
    needs_member_labels = True


def log_noisy(values: np.ndarray, beta: float, rng: np.random.Generator) -> np.ndarray:
    """Return log values plus Gumbel noise of scale 1 / ``beta``: the best k are a draw in proportion to values^beta."""
    return np.log(np.maximum(values, 1e-12)) + rng.gumbel(0, 1 / beta, np.shape(values))


class PowerEntropy(TopScore):
    """Entropy with power noise (Kirsch et al., TMLR 2023, arXiv 2106.12059)."""

    name, score = "power_entropy", "entropy"
    beta: ClassVar[float] = 1.0

    def utilities(self, pool: Pool, rng: np.random.Generator) -> np.ndarray:
        """Return noisy logarithms of the score."""
        return log_noisy(pool.require_score(self.score), self.beta, rng)


class PowerBALD(PowerEntropy):
    """PowerBALD: mutual information with power noise (Kirsch et al., TMLR 2023, arXiv 2106.12059)."""

    name, score = "power_bald", "bald"


class SoftRankEntropy(TopScore):
    """The rank by entropy with noise (Kirsch et al., TMLR 2023, arXiv 2106.12059)."""

    name, score = "softrank_entropy", "entropy"

    def utilities(self, pool: Pool, rng: np.random.Generator) -> np.ndarray:
        """Return noisy logarithms of 1 / rank; equal scores share the best of their ranks."""
        values = pool.require_score(self.score)
        ranks = 1 + len(values) - np.searchsorted(np.sort(values), values, side="right")
        return log_noisy(1 / ranks, 1.0, rng)


class SoftRankBALD(SoftRankEntropy):
    """The rank by mutual information with noise (Kirsch et al., TMLR 2023, arXiv 2106.12059)."""

    name, score = "softrank_bald", "bald"


class ClaspPE(Strategy):
    """ClaSP PE, the default (Lüth et al., TMLR 2026, arXiv 2601.13677).

    Two thirds of the budget are divided equally between the classes and chosen by entropy weighted by the class, the
    rest by entropy alone. Power noise makes early rounds diverse and fades: its exponent grows from 1 to 100 over the
    loop.
    """

    name = "clasp_pe"
    class_fraction: ClassVar[float] = 0.66
    last_beta: ClassVar[float] = 100.0

    def choose(self, choice: Choice, budget: int, rng: np.random.Generator) -> None:
        """Take the best window of each turn; turns are shuffled, so that any part of the list is fair to classes."""
        pool = choice.pool
        beta = self.last_beta**pool.progress
        plain = log_noisy(pool.require_score("entropy"), beta, rng)
        assert pool.class_scores is not None
        by_class = log_noisy(pool.class_scores, beta, rng)
        classes, stratified = by_class.shape[1], int(self.class_fraction * budget)
        turns = [*range(classes)] * (stratified // classes)
        turns += rng.permutation(classes)[: stratified % classes].tolist()
        turns += [classes] * (budget - stratified)
        for turn in rng.permutation(turns):
            if choice.free.any():
                choice.take_best(plain if turn == classes else by_class[:, turn])
