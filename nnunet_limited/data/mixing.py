"""Boxes to cut from one crop and paste into another; drawn from numpy's global generator."""

from collections.abc import Sequence

import numpy as np
import torch


def box_mask(shape: Sequence[int], sides: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return a bool mask of ``shape`` (*spatial), True in a box of ``sides`` voxels at a random place."""
    mask = torch.zeros(tuple(shape), dtype=torch.bool, device=device)
    starts = [np.random.randint(0, n - side + 1) for n, side in zip(shape, sides, strict=True)]
    mask[tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))] = True
    return mask


def fixed_box(shape: Sequence[int], side: float, device: torch.device) -> torch.Tensor:
    """Return a box whose edges are the fraction ``side`` in (0, 1] of those of ``shape``."""
    return box_mask(shape, [max(1, round(side * n)) for n in shape], device)


def cutmix_boxes(batch: int, shape: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return a box (batch, 1, *spatial) for each crop, with a random volume and random proportions.

    The volume is uniform in [0.02, 0.4] of the crop, the edges differ by up to a factor 3 either way (Yun et al.,
    CutMix, ICCV 2019, arXiv 1905.04899; ranges of Yang et al., UniMatch, CVPR 2023, arXiv 2208.09910).
    """
    boxes = []
    for _ in range(batch):
        fraction = np.random.uniform(0.02, 0.4)
        ratios = np.exp(np.random.uniform(-np.log(3), np.log(3), len(shape)) / 2)
        ratios /= np.prod(ratios) ** (1 / len(shape))
        sides = [
            int(np.clip(round(n * fraction ** (1 / len(shape)) * r), 1, n)) for n, r in zip(shape, ratios, strict=True)
        ]
        boxes.append(box_mask(shape, sides, device))
    return torch.stack(boxes)[:, None]


def cutmix(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return each of ``values`` (b, c, *spatial) with the same random boxes of the next crop of the batch in it."""
    boxes = cutmix_boxes(len(values[0]), values[0].shape[2:], values[0].device)
    return tuple(torch.where(boxes, value.roll(1, 0), value) for value in values)
