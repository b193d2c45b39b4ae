"""Segmentation losses against pseudo-labels.

Shapes: logits, probabilities and targets ``(b, c, *spatial)``; weights ``(b, 1 or c, *spatial)``, 0 where a voxel does
not count. A voxel of weight 0 has no influence: it is in neither sum of the Dice, and no class is put in its place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from nnunet_limited.losses.consistency import probabilities


def harden(probability: torch.Tensor, regions: bool) -> torch.Tensor:
    """Return hard labels as probabilities 0 and 1: the likeliest class, or every region above 0.5."""
    if regions:
        return (probability > 0.5).to(probability.dtype)
    return torch.zeros_like(probability).scatter_(1, probability.argmax(1, keepdim=True), 1.0)


def background(probability: torch.Tensor, regions: bool) -> torch.Tensor:
    """Return probabilities of the same shape that say background everywhere: class 0, or none of the ``regions``."""
    empty = torch.zeros_like(probability)
    if not regions:
        empty[:, 0] = 1
    return empty


def confidence(probability: torch.Tensor, regions: bool) -> torch.Tensor:
    """Return the probability of the hard label: (b, 1, *spatial), or (b, c, *spatial) for each of the ``regions``."""
    return torch.maximum(probability, 1 - probability) if regions else probability.amax(1, keepdim=True)


def cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, mask: torch.Tensor, regions: bool
) -> torch.Tensor:
    """Return the cross-entropy, summed over voxels by ``weight`` and divided by the number of voxels in ``mask``.

    The divisor does not depend on the weights, so that few confident voxels do not count as much as many
    (Sohn et al., FixMatch, NeurIPS 2020, arXiv 2001.07685).
    """
    if regions:
        each = functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    else:
        each = -(target * torch.log_softmax(logits.float(), dim=1)).sum(1, keepdim=True)
    weight = weight.to(each.dtype).expand_as(each)
    counted = torch.where(weight > 0, each * weight, 0.0)
    return counted.sum() / (mask.sum().clamp(min=1) * each.shape[1])


def dice_loss(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, regions: bool) -> torch.Tensor:
    """Return 1 minus the soft Dice over the batch, averaged over the regions or the classes but the background."""
    probability = probabilities(logits, regions)
    if not regions:
        probability, target = probability[:, 1:], target[:, 1:]
        weight = weight if weight.shape[1] == 1 else weight[:, 1:]
    weight = weight.to(probability.dtype).expand_as(probability)
    axes = [0, *range(2, probability.ndim)]
    both, mine, theirs = (
        torch.where(weight > 0, value * weight, 0.0).sum(axes) for value in (probability * target, probability, target)
    )
    return 1 - ((2 * both + 1e-5) / (mine + theirs + 1e-5)).mean()


def segmentation_loss(
    logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, mask: torch.Tensor, regions: bool
) -> torch.Tensor:
    """Return cross-entropy plus soft Dice loss against ``target``, which gets no gradient."""
    target = target.detach()
    return cross_entropy(logits, target, weight, mask, regions) + dice_loss(logits, target, weight, regions)


def label_probabilities(
    label: torch.Tensor, classes: int, ignore_label: int | None, regions: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return nnU-Net's label as probabilities (b, c, *spatial), and where it is not to be ignored (b, 1, *spatial).

    ``label`` is (b, 1, *spatial) with class numbers or, for ``regions``, (b, c, *spatial) of 0 and 1 with a further
    channel for the ignored voxels where there is an ignore label.
    """
    if regions:
        ignored = label[:, -1:].bool() if ignore_label is not None else torch.zeros_like(label[:, :1], dtype=torch.bool)
        return label[:, :classes].float(), ~ignored
    label = label.long()
    kept = label != ignore_label if ignore_label is not None else torch.ones_like(label, dtype=torch.bool)
    kept = kept & (label >= 0)
    shape = (label.shape[0], classes, *label.shape[2:])
    encoded = torch.zeros(shape, device=label.device).scatter_(1, torch.where(kept, label, 0), 1.0)
    return encoded, kept


def region_channels(label: torch.Tensor, regions: Sequence[int | Sequence[int]], ignore_label: int) -> torch.Tensor:
    """Return class numbers (b, 1, *spatial) as overlapping regions: a channel of 0 and 1 for each, the ignored last.

    Numbers below 0 are ignored too.
    """
    channels = [
        torch.isin(label, torch.tensor(region if isinstance(region, Sequence) else [region], device=label.device))
        for region in regions
    ]
    return torch.cat([*channels, (label == ignore_label) | (label < 0)], dim=1)
