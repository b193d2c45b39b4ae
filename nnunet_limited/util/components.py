"""Connected components of masks and of label maps."""

import cc3d
import numpy as np


def components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the components of a ``mask`` (*spatial) with one to three axes, and their sizes (n,) in voxels.

    Voxels of a component touch by faces. Components are numbered from 1 in the order of their first voxels.
    In an integer label map the voxels of a component have one value; 0 is the background.
    """
    volume = np.ascontiguousarray(mask).reshape((1,) * (3 - mask.ndim) + mask.shape)
    numbers = cc3d.connected_components(volume, connectivity=6).reshape(mask.shape)
    return numbers, np.bincount(numbers.ravel())[1:]


def largest_fractions(label: np.ndarray) -> dict[int, float]:
    """Return the fraction in (0, 1] of its voxels that the largest component of each value of a label map has."""
    numbers, sizes = components(label)
    values = _values(label, numbers, sizes)
    present = np.unique(values)
    return {int(value): float(sizes[values == value].max() / sizes[values == value].sum()) for value in present}


def islands(label: np.ndarray, edge: np.ndarray | None = None) -> np.ndarray:
    """Return where a label map (*spatial) has a component that is not the largest of its value, as a bool mask.

    Of equally large components the first counts as the largest. Components with a voxel in the bool mask ``edge``
    (*spatial) are no islands: they may be connected beyond it.
    """
    numbers, sizes = components(label)
    values = _values(label, numbers, sizes)
    is_island = np.ones(1 + len(sizes), bool)
    is_island[0] = False
    for value in np.unique(values):
        members = np.flatnonzero(values == value)
        is_island[1 + members[sizes[members].argmax()]] = False
    if edge is not None:
        is_island[numbers[edge]] = False
    return np.asarray(is_island[numbers])


def _values(label: np.ndarray, numbers: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the value (n,) of each component."""
    values = np.zeros(1 + len(sizes), label.dtype)
    values[numbers.ravel()] = label.ravel()
    return values[1:]
