"""Strategies that spread their choice over a space of features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from nnunet_limited.queries.pool import ENCODER, GRADIENT, SIGNATURE, Choice
from nnunet_limited.queries.strategies.base import Strategy
from nnunet_limited.util.extras import require_extra

COMPONENTS = 32


class Diverse(Strategy):
    """Features decide, among windows apart from each other; a second go fills up a budget that they do not."""

    features = ENCODER
    needs_model = False

    def choose(self, choice: Choice, budget: int, rng: np.random.Generator) -> None:
        """Take windows out of a random set that do not overlap, as long as there are any."""
        while len(choice.indices) < budget and choice.free.any():
            apart = choice.apart(self.order(choice, rng))
            count = min(budget - len(choice.indices), len(apart))
            for index, utilities in self.spread(choice, apart, count, rng):
                spread = np.full(len(choice.pool), np.nan)
                spread[apart] = utilities
                choice.take(index, spread)

    def order(self, choice: Choice, rng: np.random.Generator) -> np.ndarray:
        """Return which windows come first where they overlap."""
        return rng.permutation(len(choice.pool))

    def spread(
        self, choice: Choice, apart: np.ndarray, count: int, rng: np.random.Generator
    ) -> list[tuple[int, np.ndarray]]:
        """Return ``count`` of the windows ``apart``, each with the utilities of all of those that decided."""
        raise NotImplementedError

    def space(self, choice: Choice, apart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the principal components, up to 32, of the standardised features of the windows ``apart``, and of
        what is annotated or chosen. They keep their sizes: whitened, all of few windows would be equally far apart.
        """
        from sklearn.decomposition import PCA
        from sklearn.preprocessing import StandardScaler

        assert self.features is not None
        mine, known = choice.pool.need_features(self.features)
        standard = StandardScaler().fit(mine)
        points = standard.transform(np.concatenate([mine[apart], known, mine[choice.indices]]))
        if len(mine) > 1:
            axes = PCA(min(COMPONENTS, *mine.shape), random_state=0).fit(standard.transform(mine))
            points = axes.transform(points)
        return points[: len(apart)], points[len(apart) :]


class FromLibrary(Diverse):
    """A strategy of scikit-activeml on features."""

    @staticmethod
    def made(seed: int) -> Any:
        """Return the strategy."""
        raise NotImplementedError

    def spread(
        self, choice: Choice, apart: np.ndarray, count: int, rng: np.random.Generator
    ) -> list[tuple[int, np.ndarray]]:
        """Ask it; what is annotated goes in as labelled."""
        require_extra("al", f"strategy {self.name}", "skactiveml")
        mine, known = self.space(choice, apart)
        points = np.concatenate([mine, known])
        points = points + rng.normal(0, 1e-6, points.shape)  # it cannot tell equal points apart
        labels = np.full(len(points), np.nan)
        labels[len(mine) :] = 0
        strategy = self.made(int(rng.integers(2**31)))
        chosen, utilities = strategy.query(points, labels, batch_size=count, return_utilities=True)
        return [(int(apart[i]), u[: len(mine)]) for i, u in zip(chosen, utilities, strict=True)]


class CoreSet(FromLibrary):
    """The window farthest from all that is annotated, one after the other (Sener & Savarese, arXiv 1708.00489)."""

    name = "core_set"

    @staticmethod
    def made(seed: int) -> Any:
        """Return the k-center greedy of scikit-activeml."""
        from skactiveml.pool import CoreSet as Library

        return Library(random_state=seed)


class TypiClust(FromLibrary):
    """The most typical window of each cluster without annotation (Hacohen et al., ICML 2022, arXiv 2202.02794).

    For a cold start, where there is no model yet.
    """

    name = "typiclust"

    @staticmethod
    def made(seed: int) -> Any:
        """Return that of scikit-activeml with the 20 neighbours of the paper."""
        from skactiveml.pool import TypiClust as Library

        return Library(random_state=seed, k=20)


class KMeansBALD(Diverse):
    """The most uncertain window of each cluster of the most uncertain ones (Zhdanov, 2019, arXiv 1901.05954).

    Clusters are those of k-means on the features, weighted by mutual information.
    """

    name = "kmeans_bald"
    needs_model = True
    prefilter: ClassVar[int] = 10

    def order(self, choice: Choice, rng: np.random.Generator) -> np.ndarray:
        """Return the most uncertain first."""
        bald = choice.pool.need_score("bald")
        shuffled = rng.permutation(len(bald))
        return shuffled[np.argsort(-bald[shuffled], kind="stable")]

    def spread(
        self, choice: Choice, apart: np.ndarray, count: int, rng: np.random.Generator
    ) -> list[tuple[int, np.ndarray]]:
        """Return the best of each cluster among the best ten times as many."""
        from sklearn.cluster import KMeans

        bald = choice.pool.need_score("bald")[apart]
        few = min(len(apart), self.prefilter * count)  # apart is in order
        points = self.space(choice, apart)[0][:few]
        points = points + rng.normal(0, 1e-6, points.shape)
        means = KMeans(count, n_init=1, random_state=int(rng.integers(2**31)))
        cluster = means.fit_predict(points, sample_weight=bald[:few] + 1e-12)
        found = []
        for number in dict.fromkeys(cluster.tolist()):
            utilities = np.full(len(apart), np.nan)
            utilities[:few][cluster == number] = bald[:few][cluster == number]
            found.append((int(apart[np.nanargmax(utilities)]), utilities))
        return found


class BADGE(Diverse):
    """Windows whose gradients are large and differ (Ash et al., ICLR 2020, arXiv 1906.03671).

    The gradient is that of the last layer for the predicted class, its mean over a window's voxels; k-means++ chooses.
    """

    name = "badge"
    needs_model = True
    features = GRADIENT

    def spread(
        self, choice: Choice, apart: np.ndarray, count: int, rng: np.random.Generator
    ) -> list[tuple[int, np.ndarray]]:
        """Return the longest gradient, then draw in proportion to the squared distance to what is chosen."""
        gradients = choice.pool.need_features(GRADIENT)[0]
        mine = gradients[apart]
        found: list[tuple[int, np.ndarray]] = []
        left, distance = np.ones(len(apart), bool), np.full(len(apart), np.inf)
        for other in gradients[choice.indices]:
            distance = np.minimum(distance, ((mine - other) ** 2).sum(1))
        while len(found) < count:
            if np.isinf(distance).any():  # nothing is chosen yet
                utilities = (mine**2).sum(1)
                place = int(np.argmax(utilities))
            else:
                utilities = np.where(left, distance, 0.0)
                weights = utilities if utilities.any() else left.astype(float)
                place = int(rng.choice(len(apart), p=weights / weights.sum()))
            found.append((int(apart[place]), np.where(left, utilities, np.nan)))
            left[place] = False
            distance = np.minimum(distance, ((mine - mine[place]) ** 2).sum(1))
        return found


class CDAL(Diverse):
    """Windows whose classes are confused in other ways (Agarwal et al., ECCV 2020, arXiv 2008.05723).

    A window's signature is the mean prediction over the voxels predicted as each class; the one farthest from all
    that is annotated comes next. Distance is the symmetric Kullback-Leibler divergence, the mean over classes that
    both show.
    """

    name = "cdal"
    needs_model = True
    features = SIGNATURE

    def spread(
        self, choice: Choice, apart: np.ndarray, count: int, rng: np.random.Generator
    ) -> list[tuple[int, np.ndarray]]:
        """Return the farthest, one after the other; the first at random if nothing is annotated."""
        mine, known = choice.pool.need_features(SIGNATURE)
        mine, known = mine[apart], np.concatenate([known, mine[choice.indices]])
        return _farthest(apart, mine, known, signature_distance, count, rng)


def signature_distance(signatures: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the distance (n,) of signatures (n, c * c) to another one; rows of classes that are not there are 0."""
    size = round(signatures.shape[1] ** 0.5)
    p, q = signatures.reshape(-1, size, size), other.reshape(1, size, size)
    both = p.any(2) & q.any(2)
    divergence = ((p - q) * (np.log(p + 1e-6) - np.log(q + 1e-6))).sum(2)
    mean: np.ndarray = np.where(both, divergence, 0).sum(1) / np.maximum(both.sum(1), 1)
    shared = np.any(both, axis=1)
    return np.where(shared, mean, np.log(1e6))  # nothing in common: as far as certain classes are apart


def _farthest(
    apart: np.ndarray,
    mine: np.ndarray,
    known: np.ndarray,
    distance_to: Callable[[np.ndarray, np.ndarray], np.ndarray],
    count: int,
    rng: np.random.Generator,
) -> list[tuple[int, np.ndarray]]:
    """Return ``count`` of the windows, each the farthest from what is known and chosen before (k-center greedy)."""
    nearest = np.full(len(apart), np.inf)
    for other in known:
        nearest = np.minimum(nearest, distance_to(mine, other))
    found: list[tuple[int, np.ndarray]] = []
    left = np.ones(len(apart), bool)
    while len(found) < count:
        best = np.flatnonzero(left & (nearest == nearest[left].max()))
        place = int(rng.choice(best))
        found.append((int(apart[place]), np.where(left, nearest, np.nan)))
        left[place] = False
        nearest = np.minimum(nearest, distance_to(mine, mine[place]))
    return found
