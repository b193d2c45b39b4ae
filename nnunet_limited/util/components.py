"""Connected components of hard labels."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage


def largest_components(label: torch.Tensor, regions: bool) -> torch.Tensor:
    """Return ``label`` with only the largest component of each class or region.

    It holds probabilities 0 and 1 (b, c, *spatial). Voxels of other components become background. It runs on the CPU.
    """
    array = label.detach().cpu().numpy()
    kept = np.zeros_like(array)
    for b, c in np.ndindex(*array.shape[:2]):
        if not regions and c == 0:
            continue
        components, count = ndimage.label(array[b, c] > 0)
        if count:
            kept[b, c] = components == 1 + np.argmax(np.bincount(components.ravel())[1:])
    if not regions:
        kept[:, 0] = 1 - kept[:, 1:].sum(1)
    return torch.from_numpy(kept).to(label)
