"""Losses between two predictions of the same voxels, and the ramp-up of their weight.

Shapes: probabilities (b, c, *spatial), bool masks (b, 1, *spatial) with True where a voxel is valid.
"""

import math

import torch


def masked_mean(value: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``value`` over the ``valid`` voxels; 0 with zero gradient if there is none.

    Other voxels have no influence on the value or the gradient, whatever finite numbers they hold.
    """
    valid = valid.to(torch.bool).expand_as(value)
    return torch.where(valid, value, value.new_zeros(())).sum() / valid.sum().clamp(min=1)


def mean_squared_difference(probability: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference of two probabilities (Tarvainen & Valpola, NeurIPS 2017, arXiv 1703.01780).

    ``target`` gets no gradient.
    """
    return masked_mean((probability - target.detach()) ** 2, valid)


def rampup(progress: float) -> float:
    """Return the sigmoid-shaped weight ``exp(-5 (1 - progress)²)``, with ``progress`` clamped to [0, 1].

    Laine & Aila, Temporal ensembling for semi-supervised learning, ICLR 2017, arXiv 1610.02242.
    """
    return math.exp(-5.0 * (1.0 - min(max(progress, 0.0), 1.0)) ** 2)


def entropy_limit(done: float) -> float:
    """Return the largest entropy of a confident voxel, as a fraction of that of two equally likely classes.

    ``done`` in [0, 1] is the part of the whole run that is over: the limit rises from 3/4 to 1 at the end of the run,
    with the shape of :func:`rampup` (Yu et al., MICCAI 2019, arXiv 1907.07034).
    """
    return 0.75 + 0.25 * rampup(done)
