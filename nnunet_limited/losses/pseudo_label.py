"""Segmentation losses against pseudo-labels.

Shapes: logits and target probabilities (b, c, *spatial); weights (b, 1 or c, *spatial), 0 where a voxel is not valid.
A voxel of weight 0 has no influence: it is in neither sum of the Dice, and no class is put in its place.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

from nnunet_limited.losses.label_space import LabelSpace


def cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, valid: torch.Tensor, labels: LabelSpace
) -> torch.Tensor:
    """Return the cross-entropy, summed over voxels by ``weight`` and divided by the number of ``valid`` voxels.

    The divisor does not depend on the weights, so that few confident voxels have less influence than many
    (Sohn et al., FixMatch, NeurIPS 2020, arXiv 2001.07685). ``valid`` is (b, 1, *spatial).
    """
    each = labels.cross_entropy(logits, target)
    weight = weight.to(each.dtype).expand_as(each)
    weighted = torch.where(weight > 0, each * weight, 0.0)
    return weighted.sum() / (valid.sum().clamp(min=1) * each.shape[1])


def dice_loss(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, labels: LabelSpace) -> torch.Tensor:
    """Return 1 minus the soft Dice over the batch, the mean over foreground classes or regions, in [0, 1]."""
    probability, target = labels.foreground(labels.probabilities(logits)), labels.foreground(target)
    weight = weight if weight.shape[1] == 1 else labels.foreground(weight)
    weight = weight.to(probability.dtype).expand_as(probability)
    axes = [0, *range(2, probability.ndim)]
    both, mine, theirs = (
        torch.where(weight > 0, value * weight, 0.0).sum(axes) for value in (probability * target, probability, target)
    )
    return 1 - ((2 * both + 1e-5) / (mine + theirs + 1e-5)).mean()


def segmentation_loss(
    logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, valid: torch.Tensor, labels: LabelSpace
) -> torch.Tensor:
    """Return cross-entropy plus soft Dice loss against ``target``, which gets no gradient."""
    target = target.detach()
    return cross_entropy(logits, target, weight, valid, labels) + dice_loss(logits, target, weight, labels)


def deep_supervised_loss(
    heads: Sequence[torch.Tensor],
    target: torch.Tensor,
    weight: torch.Tensor,
    valid: torch.Tensor,
    labels: LabelSpace,
    head_weights: Sequence[float],
) -> torch.Tensor:
    """Return the mean by ``head_weights`` of the segmentation loss of each head, the finest first.

    ``target``, ``weight`` and ``valid`` are those of the finest head. Each other head is compared with the voxel next
    to the middle of each of its own, as in nnU-Net, so a voxel of weight 0 has no influence there either.
    """
    total = torch.zeros((), device=target.device)
    for logits, head_weight in zip(heads, head_weights, strict=True):
        its_target, its_weight, its_valid = (resize_nearest(v, logits.shape[2:]) for v in (target, weight, valid))
        total = total + head_weight * segmentation_loss(logits, its_target, its_weight, its_valid, labels)
    return total / sum(head_weights)


def resize_nearest(value: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Return ``value`` (b, c, *spatial) of any type resized to ``size`` by the nearest voxel."""
    if tuple(value.shape[2:]) == tuple(size):
        return value
    return functional.interpolate(value.float(), size=tuple(size), mode="nearest-exact").to(value.dtype)
