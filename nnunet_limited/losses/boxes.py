"""Losses for objects that are annotated by boxes.

Shapes: the probability of one class and its ``boxes`` (True inside) are (b, *spatial). A class does not occur outside
its boxes, and every slice through a box, across any axis, has a voxel of it, because boxes are tight.
"""

import math
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import torch

from nnunet_limited.losses.label_space import LabelSpace
from nnunet_limited.losses.sparse import unit_range


class Slices(NamedTuple):
    """The slices across one axis: largest probability (b, n) and sum of probabilities (b, n) inside boxes.

    ``crossed`` (b, n) are those through a box, in crops that do not cut boxes off along another axis.
    """

    largest: torch.Tensor
    total: torch.Tensor
    crossed: torch.Tensor


def slices(probability: torch.Tensor, boxes: torch.Tensor) -> Iterator[Slices]:
    """Yield the slices across each axis; slices through a box that the crop cuts off are not ``crossed``."""
    spatial = list(range(1, boxes.ndim))
    inside = torch.where(boxes, probability, 0.0)
    cut = {axis: _cut(boxes, axis) for axis in spatial}
    for axis in spatial:
        others = [other for other in spatial if other != axis]
        whole = ~torch.stack([cut[other] for other in others]).any(0)
        crossed = boxes.float().amax(others).bool() & whole[:, None]
        yield Slices(inside.amax(others), inside.sum(others), crossed)


def _cut(boxes: torch.Tensor, axis: int) -> torch.Tensor:
    """Return for each sample whether a box reaches the border of the crop along ``axis``, and perhaps beyond (b,)."""
    return (boxes.select(axis, 0) | boxes.select(axis, -1)).flatten(1).any(1)


def uncut(boxes: torch.Tensor) -> torch.Tensor:
    """Return the boxes (b, *spatial) without those of samples in which the crop cuts off a box."""
    cut = torch.stack([_cut(boxes, axis) for axis in range(1, boxes.ndim)]).any(0)
    return boxes & ~cut.reshape(-1, *[1] * (boxes.ndim - 1))


def outside(probability: torch.Tensor, boxes: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``-log(1 - p)`` over the ``valid`` voxels (b, *spatial) outside of all boxes."""
    background = valid & ~boxes
    loss = -torch.log1p(-probability.clamp(max=1 - 1e-6))
    return torch.where(background, loss, 0.0).sum() / background.sum().clamp(min=1)


def projection(probability: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Return 1 minus the Dice of the slices' largest probabilities and the boxes, the mean over axes.

    Tian et al., BoxInst, CVPR 2021, arXiv 2012.02310.
    """
    losses = []
    for one in slices(probability, boxes):
        predicted, crossed = torch.where(one.crossed, one.largest, 0.0), one.crossed.float()
        overlap, size = (predicted * crossed).sum(1), (predicted**2).sum(1) + crossed.sum(1)
        boxed = one.crossed.any(1)
        losses.append(torch.where(boxed, 1 - 2 * overlap / size.clamp(min=1), 0.0).sum() / boxed.sum().clamp(min=1))
    return torch.stack(losses).mean()


def affinity(
    probability: torch.Tensor,
    image: torch.Tensor,
    inside: torch.Tensor,
    valid: torch.Tensor,
    labels: LabelSpace,
    dilation: int = 2,
    threshold: float = 0.3,
) -> torch.Tensor:
    """Return the mean of ``-log`` of the probability that two voxels of similar intensity have one class.

    ``probability`` (b, c, *spatial) is that of all classes or of regions, of which the mean is taken; ``image`` is
    (b, channels, *spatial). A pair are a voxel ``inside`` (b, *spatial) and one ``dilation`` away along some of the
    axes, both ``valid`` (b, *spatial). They are similar if ``exp(-|Δ| / 2)`` is at least ``threshold``, Δ being the
    difference of the image scaled to [0, 100] (Tian et al., BoxInst, CVPR 2021, arXiv 2012.02310).
    """
    scaled = 100 * unit_range(image)
    total = alike_pairs = torch.zeros((), device=image.device)
    for mine, theirs in _neighbours(dilation, inside.ndim - 1):
        apart = torch.linalg.vector_norm(scaled[mine] - scaled[theirs], dim=1)
        here, there = mine[:1] + mine[2:], theirs[:1] + theirs[2:]
        alike = (torch.exp(-apart / 2) >= threshold) & (inside[here] | inside[there]) & valid[here] & valid[there]
        same = labels.agreement(probability[mine], probability[theirs])
        total = total + torch.where(alike, -same.clamp(min=1e-6).log().mean(1), 0.0).sum()
        alike_pairs = alike_pairs + alike.sum()
    return total / alike_pairs.clamp(min=1)


def _neighbours(step: int, dimensions: int) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Yield each offset once, as the index (b, c, *spatial) of both ends."""
    ends = {0: (slice(None), slice(None)), 1: (slice(None, -step), slice(step, None))}
    ends[-1] = (ends[1][1], ends[1][0])
    for offset in product((-1, 0, 1), repeat=dimensions):
        if offset > (0,) * dimensions:
            mine, theirs = zip(*(ends[o] for o in offset), strict=True)
            yield (slice(None), slice(None), *mine), (slice(None), slice(None), *theirs)


def log_barrier(excess: torch.Tensor, sharpness: float) -> torch.Tensor:
    """Return the penalty of a constraint ``excess <= 0``, which nears 0 below and infinity above as it gets sharper.

    Kervadec et al., Constrained deep networks: Lagrangian optimization via log-barrier extensions, EUSIPCO 2022,
    arXiv 1904.04205.
    """
    border = -1 / sharpness**2
    below = -torch.log(-excess.clamp(max=border)) / sharpness
    above = sharpness * excess - math.log(1 / sharpness**2) / sharpness + 1 / sharpness
    return torch.where(excess <= border, below, above)


def tightness(probability: torch.Tensor, boxes: torch.Tensor, sharpness: float, width: int = 5) -> torch.Tensor:
    """Return the penalty of ``width`` slices through a box that have less than ``width`` voxels of its class.

    The excess is relative to the width. Kervadec et al., Bounding boxes for weakly supervised segmentation, MIDL 2020,
    arXiv 2004.06816.
    """
    losses = []
    for one in slices(probability, boxes):
        wide = min(width, one.total.shape[1])
        total = one.total.unfold(1, wide, 1).sum(-1)
        within = one.crossed.unfold(1, wide, 1).all(-1)
        penalty = log_barrier(1 - total / wide, sharpness)
        losses.append(torch.where(within, penalty, 0.0).sum() / within.sum().clamp(min=1))
    return torch.stack(losses).mean()


def size_bounds(probability: torch.Tensor, boxes: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Return the penalty of objects that fill a fraction of all boxes below ``low`` or above ``high``, 0 in between.

    It is ``-log(fraction / low)`` or ``-log((1 - fraction) / (1 - high))``. The fraction is that of the whole batch of
    a process, because a single slice may fill any fraction of a 3D box. After Kervadec et al., MIDL 2020,
    arXiv 2004.06816, who penalise each image by a log-barrier.
    """
    voxels = boxes.sum()
    fraction = torch.where(boxes, probability, 0.0).sum() / voxels.clamp(min=1)
    within = torch.stack([fraction / low, (1 - fraction) / (1 - high)]) + 1e-6
    return torch.where(voxels > 0, -within.clamp(max=1).log().sum(), 0.0)
