"""Segmentation losses against pseudo-labels.

Shapes: logits and target probabilities (b, c, *spatial); weights (b, 1 or c, *spatial), 0 where a voxel is not valid.
A voxel of weight 0 has no influence: it is in neither sum of the Dice, and no class is put in its place.
"""

import torch

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
