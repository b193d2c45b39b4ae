"""Connected components of masks and hard labels."""

from __future__ import annotations

import cc3d
import numpy as np
import torch


def components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the components of a ``mask`` (*spatial) with one to three axes, and their sizes (n,) in voxels.

    Voxels of a component touch by faces. Components are numbered from 1 in the order of their first voxels.
    """
    volume = np.ascontiguousarray(mask).reshape((1,) * (3 - mask.ndim) + mask.shape)
    numbers = cc3d.connected_components(volume, connectivity=6).reshape(mask.shape)
    return numbers, np.bincount(numbers.ravel())[1:]


def largest_components(label: torch.Tensor, regions: bool) -> torch.Tensor:
    """Return ``label`` with only the largest component of each class or region, the first one of equals.

    It holds probabilities 0 and 1 (b, c, *spatial). Voxels of other components become background. It runs on the CPU.
    """
    array = label.detach().cpu().numpy()
    kept = np.zeros_like(array)
    for b, c in np.ndindex(*array.shape[:2]):
        if not regions and c == 0:
            continue
        numbers, sizes = components(array[b, c] > 0)
        if sizes.size:
            kept[b, c] = numbers == 1 + sizes.argmax()
    if not regions:
        kept[:, 0] = 1 - kept[:, 1:].sum(1)
    return torch.from_numpy(kept).to(label)
