"""Uncertainty of each voxel from the predictions of an ensemble. Natural logarithms throughout.

``p`` (c, *spatial) are probabilities of classes that exclude each other or of nnU-Net's regions, which may overlap and
are treated as independent; ``labels`` says which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import torch

from nnunet_limited.losses.label_space import LabelSpace


@dataclass(frozen=True)
class Ensemble:
    """The mean probabilities (c, *spatial) of the members of an ensemble and their mean entropy (*spatial)."""

    mean: torch.Tensor
    expected_entropy: torch.Tensor
    labels: LabelSpace

    @cached_property
    def entropy(self) -> torch.Tensor:
        """The entropy of the mean prediction (*spatial)."""
        return entropy(self.mean, self.labels)

    def permute(self, axes: Sequence[int]) -> Ensemble:
        """Return the ensemble with its spatial axes in the order ``axes``."""
        mean = self.mean.permute([0, *(axis + 1 for axis in axes)])
        return Ensemble(mean, self.expected_entropy.permute(list(axes)), self.labels)


def average(members: Iterable[torch.Tensor], labels: LabelSpace) -> Ensemble:
    """Average the probabilities (c, *spatial) of at least one member; memory does not grow with their number."""
    total, entropies, count = torch.zeros(()), torch.zeros(()), 0
    for p in members:
        total = p.clone() if count == 0 else total.add_(p)
        entropies = entropy(p, labels) if count == 0 else entropies.add_(entropy(p, labels))
        count += 1
    return Ensemble(total / count, entropies / count, labels)


def entropy(p: torch.Tensor, labels: LabelSpace) -> torch.Tensor:
    """Return the entropy (*spatial), 0 to log c; of regions the sum of theirs, 0 to c log 2 (Shannon, 1948)."""
    summed = torch.special.entr(p).sum(0)
    return summed + torch.special.entr(1 - p).sum(0) if labels.overlapping else summed


def bald(ensemble: Ensemble) -> torch.Tensor:
    """Return the mutual information of prediction and member (*spatial): high where confident members disagree.

    Houlsby et al., 2011, arXiv 1112.5745; Gal et al., ICML 2017, arXiv 1703.02910.
    """
    return (ensemble.entropy - ensemble.expected_entropy).clamp(min=0)


def least_confidence(p: torch.Tensor, labels: LabelSpace) -> torch.Tensor:
    """Return 1 - the largest probability (*spatial); of regions, that of the least certain one, 0 to 0.5."""
    return torch.minimum(p, 1 - p).amax(0) if labels.overlapping else 1 - p.amax(0)


def margin(p: torch.Tensor, labels: LabelSpace) -> torch.Tensor:
    """Return 1 - the difference of the two largest probabilities (*spatial): 1 where they are equal.

    Scheffer et al., 2001. Of regions, the two are inside and outside, of the least certain one.
    """
    if labels.overlapping:
        return 1 - (2 * p - 1).abs().amin(0)
    first, second = p.topk(2, dim=0).values
    return 1 - (first - second)


# The uncertainties (*spatial) that are averaged over windows. A strategy names one of them as its score.
VOXEL_SCORES: dict[str, Callable[[Ensemble], torch.Tensor]] = {
    "entropy": lambda ensemble: ensemble.entropy,
    "expected_entropy": lambda ensemble: ensemble.expected_entropy,
    "bald": bald,
    "margin": lambda ensemble: margin(ensemble.mean, ensemble.labels),
    "least_confidence": lambda ensemble: least_confidence(ensemble.mean, ensemble.labels),
}


def disagreement(
    labels: Sequence[np.ndarray], values: Sequence[int], count: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return 1 - Dice between members (n,): the mean over pairs and over the ``values`` that one of the two has.

    Query by committee (Seung et al., COLT 1992) on the label images of the members. ``count`` returns the voxels of a
    mask in each of n windows (n,); the result is 0 where no member has any of the values.
    """
    lost: Any = 0.0
    compared: Any = 0
    for value in values:
        masks = [label == value for label in labels]
        sizes = [count(mask) for mask in masks]
        for first, second in combinations(range(len(masks)), 2):
            both, size = count(masks[first] & masks[second]), sizes[first] + sizes[second]
            lost = lost + np.where(size > 0, 1 - 2 * both / np.maximum(size, 1e-12), 0)
            compared = compared + (size > 0)
    return np.asarray(lost / np.maximum(compared, 1))
