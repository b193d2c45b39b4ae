"""Agreement of several labels of one case on each class, of which none is the true one."""

from collections.abc import Sequence

import numpy as np
import torch


def class_counts(one: torch.Tensor, other: torch.Tensor, classes: int) -> torch.Tensor:
    """Return the voxels (3, classes) of each class in label maps ``one`` and ``other``, and in both at one place.

    The maps (n, *spatial) hold the numbers of classes from 1; regions have a map each, so that they may overlap.
    """
    found = (one, other, torch.where(one == other, one, 0))
    return torch.stack([torch.bincount(numbers.flatten(), minlength=1 + classes)[1:] for numbers in found])


def mean_agreement(pairs: Sequence[torch.Tensor]) -> np.ndarray:
    """Return the mean Dice (classes,) over ``pairs`` of labels, of their :func:`class_counts`.

    It is NaN for a class that none of the labels has. Where some pairs only have it, the others agree that it is not
    there, and count 1.
    """
    one, other, both = np.moveaxis(torch.stack(list(pairs)).cpu().numpy().astype(float), 1, 0)
    sizes = one + other
    dice = np.where(sizes > 0, 2 * both / np.maximum(sizes, 1), 1.0)
    return np.where((sizes > 0).any(0), dice.mean(0), np.nan)
