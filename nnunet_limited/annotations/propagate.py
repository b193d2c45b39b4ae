"""Propagate the labels of annotated slices to the others (after Cai et al., DeSCO, CVPR 2023, arXiv 2303.13090)."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

WHOLE = 0.9  # smallest annotated fraction of a slice that counts as annotated
ITERATIONS, SMOOTHING = 30, 1.0  # of the registration of neighbours; the smoothing of its field in voxels


def annotated_slices(label: np.ndarray, ignore: int, axis: int) -> list[int]:
    """Return which slices across ``axis`` of ``label`` (3D, below 0 outside the image) are annotated throughout.

    Some holes do not matter: resampling makes them where two classes and the ignore label meet.
    """
    view = np.moveaxis(label, axis, 0).reshape(label.shape[axis], -1)
    inside, annotated = (view >= 0).sum(1), ((view >= 0) & (view != ignore)).sum(1)
    return [int(index) for index in np.flatnonzero((inside > 0) & (annotated >= WHOLE * inside))]


def propagate(image: np.ndarray, label: np.ndarray, annotated: Sequence[int], axis: int) -> np.ndarray:
    """Return ``label`` (3D) with that of every slice across ``axis`` taken from the nearest of the ``annotated`` ones.

    Each slice is registered to its neighbour on the way there by symmetric demons in the ``image`` (3D), and the
    fields are composed, so that the label is sampled once, however many slices it is propagated.
    """
    images, labels = np.moveaxis(image, axis, 0), np.moveaxis(label, axis, 0)
    made = np.empty_like(labels)
    for index, start, stop in spans(annotated, len(images)):
        made[index] = labels[index]
        for way in (range(index + 1, stop), range(index - 1, start - 1, -1)):
            place = grid = np.indices(labels[index].shape).astype(np.float64)
            for here, before in zip(way, (index, *way), strict=False):
                field = displacement(images[here], images[before])
                place = np.stack([ndimage.map_coordinates(a, grid + field, order=1, mode="nearest") for a in place])
                made[here] = ndimage.map_coordinates(labels[index], place, order=0, mode="nearest")
    return np.moveaxis(made, 0, axis)


def spans(annotated: Sequence[int], length: int) -> list[tuple[int, int, int]]:
    """Return each annotated slice with the range of slices it is the nearest to."""
    borders = [0, *((a + b) // 2 + 1 for a, b in pairwise(annotated)), length]
    return list(zip(annotated, borders[:-1], borders[1:], strict=True))


def distances(annotated: Sequence[int], length: int) -> np.ndarray:
    """Return how many slices each of ``length`` slices is away from the nearest annotated one; empty without one."""
    return np.abs(np.arange(length)[:, None] - np.asarray(annotated)).min(1) if annotated else np.empty(0)


def displacement(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Return the field (2, *spatial), in voxels, that leads from each voxel of ``fixed`` to its like in ``moving``.

    Demons with symmetric forces (Vercauteren et al., IPMI 2007, doi 10.1007/978-3-540-73273-0_41).
    """
    if min(fixed.shape) < 2:  # ITK would read gradients from beyond the image
        return np.zeros((fixed.ndim, *fixed.shape))
    demons = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    demons.SetNumberOfIterations(ITERATIONS)
    demons.SetStandardDeviations(SMOOTHING)
    demons.SetNumberOfThreads(1)  # slices are small, and cases are done in parallel
    field = demons.Execute(*(sitk.GetImageFromArray(a.astype(np.float32)) for a in (fixed, moving)))
    return np.moveaxis(sitk.GetArrayFromImage(field), -1, 0)[::-1]
