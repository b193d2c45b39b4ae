"""Losses between two predictions of the same voxels.

Shapes: logits and probabilities ``(b, c, *spatial)``, masks ``(b, 1, *spatial)`` with True where a voxel counts.
"""

from __future__ import annotations

import math

import torch


def probabilities(logits: torch.Tensor, regions: bool) -> torch.Tensor:
    """Return float32 probabilities: a sigmoid per channel where labels are overlapping ``regions``, else a softmax."""
    logits = logits.float()
    return torch.sigmoid(logits) if regions else torch.softmax(logits, dim=1)


def masked_mean(value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``value`` over the voxels in ``mask``; 0 with zero gradient if there is none.

    Voxels outside have no influence on the value or the gradient, whatever finite numbers they hold.
    """
    mask = mask.to(torch.bool).expand_as(value)
    return torch.where(mask, value, value.new_zeros(())).sum() / mask.sum().clamp(min=1)


def mean_squared_difference(probability: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference of two probabilities (Tarvainen & Valpola, NeurIPS 2017, arXiv 1703.01780).

    ``target`` gets no gradient.
    """
    return masked_mean((probability - target.detach()) ** 2, mask)


def entropy(probability: torch.Tensor, regions: bool) -> torch.Tensor:
    """Return the entropy (b, 1, *spatial) of each voxel as a share of the largest possible, in [0, 1].

    Where labels are overlapping ``regions`` it is the mean of the binary entropies.
    """
    each = -probability * _log(probability)
    if regions:
        return (each - (1 - probability) * _log(1 - probability)).mean(1, keepdim=True) / math.log(2)
    return each.sum(1, keepdim=True) / math.log(probability.shape[1])


def divergence(probability: torch.Tensor, other: torch.Tensor, regions: bool) -> torch.Tensor:
    """Return the Kullback-Leibler divergence (b, 1, *spatial), in nats, of each voxel's distribution from ``other``.

    It is a sum over the class axis; where labels are overlapping ``regions``, of the binary divergences.
    """
    total = probability * (_log(probability) - _log(other))
    if regions:
        total = total + (1 - probability) * (_log(1 - probability) - _log(1 - other))
    return total.sum(1, keepdim=True)


def _log(probability: torch.Tensor) -> torch.Tensor:
    # Clamped, because the derivative of p ln p is infinite at 0, which a softmax reaches.
    return probability.clamp(min=1e-7).log()


def rampup(progress: float) -> float:
    """Return the sigmoid-shaped weight ``exp(-5 (1 - progress)²)``, with ``progress`` cut to [0, 1].

    Laine & Aila, Temporal ensembling for semi-supervised learning, ICLR 2017, arXiv 1610.02242.
    """
    return math.exp(-5.0 * (1.0 - min(max(progress, 0.0), 1.0)) ** 2)


def class_shares(probability: torch.Tensor, mask: torch.Tensor, regions: bool) -> torch.Tensor:
    """Return the share (c,) of each class or region among the pseudo-labels of the voxels in ``mask``.

    ``mask`` may have a channel for each region.
    """
    if regions:
        axes = [0, *range(2, probability.ndim)]
        inside = mask.expand_as(probability)
        return ((probability > 0.5) & inside).sum(dim=axes) / inside.sum(dim=axes).clamp(min=1)
    counts = torch.zeros(probability.shape[1], device=probability.device, dtype=torch.long)
    counts.scatter_add_(0, probability.argmax(1).flatten(), mask.long().flatten())
    return counts / mask.sum().clamp(min=1)
