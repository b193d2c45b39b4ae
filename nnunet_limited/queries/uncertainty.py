"""Uncertainty of each voxel from what the members of an ensemble predict. Natural logarithms throughout.

``p`` (c, *spatial) are probabilities, of classes that exclude each other (softmax) or, with ``regions``, of regions
that may overlap (sigmoid), which are counted as independent; ``members`` (m, c, *spatial) those of each member.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch


def entropy(p: torch.Tensor, regions: bool = False) -> torch.Tensor:
    """Return the entropy (*spatial), 0 to log c; of regions the sum of theirs, 0 to c log 2 (Shannon, 1948)."""
    summed = torch.special.entr(p).sum(0)
    return summed + torch.special.entr(1 - p).sum(0) if regions else summed


def expected_entropy(members: torch.Tensor, regions: bool = False) -> torch.Tensor:
    """Return the mean of the members' entropies (*spatial)."""
    return torch.stack([entropy(p, regions) for p in members]).mean(0)


def bald(members: torch.Tensor, regions: bool = False) -> torch.Tensor:
    """Return the mutual information of prediction and member (*spatial): high where the members are sure, but differ.

    Houlsby et al., 2011, arXiv 1112.5745; Gal et al., ICML 2017, arXiv 1703.02910.
    """
    return (entropy(members.mean(0), regions) - expected_entropy(members, regions)).clamp(min=0)


def least_confidence(p: torch.Tensor, regions: bool = False) -> torch.Tensor:
    """Return how far the likeliest class is from 1 (*spatial); of regions, that of the least certain one."""
    return torch.minimum(p, 1 - p).amax(0) if regions else 1 - p.amax(0)


def margin(p: torch.Tensor, regions: bool = False) -> torch.Tensor:
    """Return how close the two likeliest classes are (*spatial): 1 where they are equal, 0 where one is certain.

    Scheffer et al., 2001. Of regions, the two are inside and outside, of the least certain one.
    """
    if regions:
        return 1 - (2 * p - 1).abs().amin(0)
    first, second = p.topk(2, dim=0).values
    return 1 - (first - second)


def class_entropy(p: torch.Tensor, regions: bool = False) -> torch.Tensor:
    """Return the entropy weighted by each class or region (c, *spatial).

    The class scores of ClaSP PE (Lüth et al., TMLR 2026, arXiv 2601.13677).
    """
    return p * entropy(p, regions)


def disagreement(
    labels: Sequence[np.ndarray], values: Sequence[int], count: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Return 1 - Dice between members, the mean over pairs and over the ``values`` that one of the two has.

    Query by committee (Seung et al., COLT 1992) on label images. ``count`` gives the voxels of a mask in each of n
    windows (n,), in which members are compared; the result has its shape and is 0 where no member has any value.
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


class MeanOfMembers:
    """An ensemble that is heard one member after the other; memory does not grow with their number."""

    def __init__(self, regions: bool) -> None:
        """Start with no member."""
        self.regions = regions
        self.count = 0
        self._sum: torch.Tensor | None = None
        self._entropy: torch.Tensor | None = None

    def add(self, p: torch.Tensor) -> None:
        """Hear a member's probabilities (c, *spatial)."""
        mine = entropy(p, self.regions)
        self._sum = p.clone() if self._sum is None else self._sum.add_(p)
        self._entropy = mine if self._entropy is None else self._entropy.add_(mine)
        self.count += 1

    @property
    def mean(self) -> torch.Tensor:
        """The mean prediction (c, *spatial)."""
        assert self._sum is not None
        return self._sum / self.count

    @property
    def expected_entropy(self) -> torch.Tensor:
        """The mean of the members' entropies (*spatial)."""
        assert self._entropy is not None
        return self._entropy / self.count
