"""Strategies that spread their choice over a space of features."""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np

from nnunet_limited.queries.pool import ENCODER, GRADIENT, SIGNATURE, Choice
from nnunet_limited.queries.strategies.base import Strategy
from nnunet_limited.util.extras import require_extra

COMPONENTS = 32
Spread = list[tuple[int, np.ndarray]]


class Diverse(Strategy):
    """Windows that differ in their features, among windows that do not overlap.

    If those do not fill the budget, the choice is repeated among the windows that are still free.
    """

    features = ENCODER
    needs_model = False

    def choose(self, choice: Choice, budget: int, rng: np.random.Generator) -> None:
        """Take windows from a random set without overlap, as long as there are any."""
        while len(choice.indices) < budget and choice.free.any():
            candidates = choice.without_overlap(self.order(choice, rng))
            count = min(budget - len(choice.indices), len(candidates))
            for index, utilities in self.spread(choice, candidates, count, rng):
                all_utilities = np.full(len(choice.pool), np.nan)
                all_utilities[candidates] = utilities
                choice.take(index, all_utilities)

    def order(self, choice: Choice, rng: np.random.Generator) -> np.ndarray:
        """Return the windows in the order of preference where they overlap (n,)."""
        return rng.permutation(len(choice.pool))

    @abstractmethod
    def spread(self, choice: Choice, candidates: np.ndarray, count: int, rng: np.random.Generator) -> Spread:
        """Return ``count`` of the ``candidates`` (indices of m windows), each with the utilities that decided (m,)."""

    def principal_components(self, choice: Choice, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return up to 32 principal components of the standardized features of the ``candidates`` and of the others.

        The others are the annotated and the chosen windows. Components are not whitened: of few windows all would be
        equally far apart.
        """
        from sklearn.decomposition import PCA
        from sklearn.preprocessing import StandardScaler

        assert self.features is not None
        features, annotated = choice.pool.require_features(self.features)
        scaler = StandardScaler().fit(features)
        points = scaler.transform(np.concatenate([features[candidates], annotated, features[choice.indices]]))
        if len(features) > 1:
            axes = PCA(min(COMPONENTS, *features.shape), random_state=0).fit(scaler.transform(features))
            points = axes.transform(points)
        return points[: len(candidates)], points[len(candidates) :]


class FromLibrary(Diverse):
    """A strategy of scikit-activeml on features: the class ``library`` with its ``options``."""

    library: ClassVar[str]
    options: ClassVar[dict[str, Any]] = {}

    def spread(self, choice: Choice, candidates: np.ndarray, count: int, rng: np.random.Generator) -> Spread:
        """Query the library's strategy; annotated and chosen windows are passed as labelled."""
        require_extra("al", f"strategy {self.name}", "skactiveml")
        from skactiveml import pool as library

        unlabeled, labeled = self.principal_components(choice, candidates)
        points = np.concatenate([unlabeled, labeled])
        points = points + rng.normal(0, 1e-6, points.shape)  # it cannot distinguish equal points
        labels = np.full(len(points), np.nan)
        labels[len(unlabeled) :] = 0
        strategy = getattr(library, self.library)(random_state=int(rng.integers(2**31)), **self.options)
        chosen, utilities = strategy.query(points, labels, batch_size=count, return_utilities=True)
        return [(int(candidates[i]), u[: len(unlabeled)]) for i, u in zip(chosen, utilities, strict=True)]


class CoreSet(FromLibrary):
    """The window farthest from all that is annotated, one after the other (Sener & Savarese, arXiv 1708.00489)."""

    name, library = "core_set", "CoreSet"


class TypiClust(FromLibrary):
    """The most typical window of each cluster without annotation (Hacohen et al., ICML 2022, arXiv 2202.02794).

    For a cold start, where there is no model yet.
    """

    name, library = "typiclust", "TypiClust"
    options: ClassVar[dict[str, Any]] = {"k": 20}  # neighbours, as in the paper


class KMeansBALD(Diverse):
    """The most uncertain window of each cluster of the most uncertain ones (Zhdanov, 2019, arXiv 1901.05954).

    Clusters are those of k-means on the features, weighted by mutual information.
    """

    name = "kmeans_bald"
    needs_model = True
    prefilter: ClassVar[int] = 10

    def order(self, choice: Choice, rng: np.random.Generator) -> np.ndarray:
        """Return the windows by falling uncertainty, equal ones in random order."""
        bald = choice.pool.require_score("bald")
        shuffled = rng.permutation(len(bald))
        return shuffled[np.argsort(-bald[shuffled], kind="stable")]

    def spread(self, choice: Choice, candidates: np.ndarray, count: int, rng: np.random.Generator) -> Spread:
        """Return the most uncertain window of each of ``count`` clusters of the best ten times ``count`` windows."""
        from sklearn.cluster import KMeans

        bald = choice.pool.require_score("bald")[candidates]
        few = min(len(candidates), self.prefilter * count)  # candidates are sorted by uncertainty
        points = self.principal_components(choice, candidates)[0][:few]
        points = points + rng.normal(0, 1e-6, points.shape)
        means = KMeans(count, n_init=1, random_state=int(rng.integers(2**31)))
        cluster = means.fit_predict(points, sample_weight=bald[:few] + 1e-12)
        spread: Spread = []
        for number in dict.fromkeys(cluster.tolist()):
            utilities = np.full(len(candidates), np.nan)
            utilities[:few][cluster == number] = bald[:few][cluster == number]
            spread.append((int(candidates[np.nanargmax(utilities)]), utilities))
        return spread


class BADGE(Diverse):
    """Windows whose gradients are large and differ (Ash et al., ICLR 2020, arXiv 1906.03671).

    The gradient is that of the last layer for the predicted class, averaged over the voxels of a window; k-means++
    chooses. ``sklearn.cluster.kmeans_plusplus`` cannot continue from chosen points and does not return the distances.
    """

    name = "badge"
    needs_model = True
    features = GRADIENT

    def spread(self, choice: Choice, candidates: np.ndarray, count: int, rng: np.random.Generator) -> Spread:
        """Return the longest gradient, then draw in proportion to the squared distance to the chosen ones."""
        features = choice.pool.require_features(GRADIENT)[0]
        gradients = features[candidates]
        spread: Spread = []
        left, distance = np.ones(len(candidates), bool), np.full(len(candidates), np.inf)
        for other in features[choice.indices]:
            distance = np.minimum(distance, ((gradients - other) ** 2).sum(1))
        while len(spread) < count:
            if np.isinf(distance).any():  # nothing is chosen yet
                utilities = (gradients**2).sum(1)
                place = int(np.argmax(utilities))
            else:
                utilities = np.where(left, distance, 0.0)
                weights = utilities if utilities.any() else left.astype(float)
                place = int(rng.choice(len(candidates), p=weights / weights.sum()))
            spread.append((int(candidates[place]), np.where(left, utilities, np.nan)))
            left[place] = False
            distance = np.minimum(distance, ((gradients - gradients[place]) ** 2).sum(1))
        return spread


class CDAL(Diverse):
    """Windows whose classes are confused in other ways (Agarwal et al., ECCV 2020, arXiv 2008.05723).

    The signature of a window is the mean prediction over the voxels predicted as each class. The window with the
    signature farthest from those of all annotated ones is next. The distance is the symmetric Kullback-Leibler
    divergence, averaged over the classes that both windows show.
    """

    name = "cdal"
    needs_model = True
    features = SIGNATURE

    def spread(self, choice: Choice, candidates: np.ndarray, count: int, rng: np.random.Generator) -> Spread:
        """Return the farthest window, one after the other (k-center greedy); the first is random without annotation."""
        features, annotated = choice.pool.require_features(SIGNATURE)
        signatures = features[candidates]
        nearest = np.full(len(candidates), np.inf)
        for other in np.concatenate([annotated, features[choice.indices]]):
            nearest = np.minimum(nearest, signature_distance(signatures, other))
        spread: Spread = []
        left = np.ones(len(candidates), bool)
        while len(spread) < count:
            place = int(rng.choice(np.flatnonzero(left & (nearest == nearest[left].max()))))
            spread.append((int(candidates[place]), np.where(left, nearest, np.nan)))
            left[place] = False
            nearest = np.minimum(nearest, signature_distance(signatures, signatures[place]))
        return spread


def signature_distance(signatures: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the distance (n,) of signatures (n, c * c) to another one (c * c,); rows of absent classes are 0."""
    size = round(signatures.shape[1] ** 0.5)
    p, q = signatures.reshape(-1, size, size), other.reshape(1, size, size)
    both = p.any(2) & q.any(2)
    divergence = ((p - q) * (np.log(p + 1e-6) - np.log(q + 1e-6))).sum(2)
    mean: np.ndarray = np.where(both, divergence, 0).sum(1) / np.maximum(both.sum(1), 1)
    shared = np.any(both, axis=1)
    return np.where(shared, mean, np.log(1e6))  # no class in common: as far as two certain classes
