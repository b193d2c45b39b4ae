"""Connected components of masks."""

import cc3d
import numpy as np


def components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the components of a ``mask`` (*spatial) with one to three axes, and their sizes (n,) in voxels.

    Voxels of a component touch by faces. Components are numbered from 1 in the order of their first voxels.
    """
    volume = np.ascontiguousarray(mask).reshape((1,) * (3 - mask.ndim) + mask.shape)
    numbers = cc3d.connected_components(volume, connectivity=6).reshape(mask.shape)
    return numbers, np.bincount(numbers.ravel())[1:]


def largest_component(mask: np.ndarray) -> np.ndarray:
    """Return the bool ``mask`` (*spatial) with only its largest component, the first of equally large ones."""
    numbers, sizes = components(mask)
    return np.asarray(numbers == 1 + sizes.argmax()) if sizes.size else mask
