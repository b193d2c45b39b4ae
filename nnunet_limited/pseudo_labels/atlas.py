"""Labels carried over by registration: each labelled case is an atlas of the others.

Affine, then B-splines with mutual information (Mattes et al., IEEE TMI 2003, doi 10.1109/TMI.2003.809072; Rueckert et
al., IEEE TMI 1999, doi 10.1109/42.796284), fused by local similarity (Artaechevarria et al., IEEE TMI 2009,
doi 10.1109/TMI.2009.2014372).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

VOXELS = 250_000  # of the images that are registered, about: more cost time and gain nothing
SAMPLES, BINS = 4000, 32
MESH, AFFINE_STEPS, SPLINE_STEPS, EVALUATIONS = 6, 100, 15, 25
SMOOTHING, WINDOW, SHARPNESS = 1.0, 5.0, 10.0  # of carried labels, of the similarity, in the finest voxels; its power


@dataclass(frozen=True)
class Atlas:
    """A labelled case: its image (*spatial), the probabilities (c, *spatial) its label amounts to, and its spacing."""

    image: np.ndarray
    classes: np.ndarray
    spacing: tuple[float, ...]


def carry(image: np.ndarray, spacing: Sequence[float], atlases: Sequence[Atlas], threads: int = 1) -> np.ndarray:
    """Return the probabilities (c, *spatial) that the ``atlases`` give the voxels of an ``image`` (*spatial).

    Where they differ, those count more that look alike in the neighbourhood, by their normalised cross-correlation. All
    images should show about the same part of the body.
    """
    total, weights = np.zeros((len(atlases[0].classes), *image.shape), np.float32), np.zeros(image.shape, np.float32)
    fixed, fine = _image(image, spacing), min(spacing) / np.asarray(spacing)
    for atlas in atlases:
        transform = register(fixed, _image(atlas.image, atlas.spacing), threads)
        moved = _resample(atlas.image, atlas.spacing, fixed, transform)
        weight = (
            np.exp(SHARPNESS * local_similarity(image, moved, WINDOW * fine))
            if len(atlases) > 1
            else np.ones_like(weights)
        )
        weights += weight
        for c, one in enumerate(atlas.classes):
            carried = _resample(one, atlas.spacing, fixed, transform, 1.0 if _is_background(atlas, c) else 0.0)
            total[c] += weight * ndimage.gaussian_filter(carried, SMOOTHING * fine)
    made: np.ndarray = total / weights
    return made


def register(fixed: Any, moving: Any, threads: int = 1) -> Any:
    """Return the transform from the points of the SimpleITK image ``fixed`` to their like in ``moving``.

    The same for the same images and number of ``threads``.
    """
    dimensions = fixed.GetDimension()
    fixed, moving = _smaller(fixed), _smaller(moving)
    affine = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.AffineTransform(dimensions), sitk.CenteredTransformInitializerFilter.GEOMETRY
    )
    method = _method(fixed, threads)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, AFFINE_STEPS, 0.7)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(affine, inPlace=True)
    method.Execute(fixed, moving)
    mesh = [min(MESH, max(1, size // 4)) for size in fixed.GetSize()]
    spline = sitk.BSplineTransformInitializer(fixed, mesh, order=3)
    method = _method(fixed, threads)
    method.SetMovingInitialTransform(affine)
    method.SetOptimizerAsLBFGSB(1e-4, SPLINE_STEPS, maximumNumberOfFunctionEvaluations=EVALUATIONS)
    method.SetInitialTransform(spline, inPlace=True)
    method.Execute(fixed, moving)
    return sitk.CompositeTransform([affine, spline])


def _method(fixed: Any, threads: int) -> Any:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(min(1.0, SAMPLES / fixed.GetNumberOfPixels()), 1)
    method.SetInterpolator(sitk.sitkLinear)
    factors = [4, 2] if min(fixed.GetSize()) >= 32 else [2, 1] if min(fixed.GetSize()) >= 16 else [1, 1]
    method.SetShrinkFactorsPerLevel(factors)
    method.SetSmoothingSigmasPerLevel([2, 1])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetNumberOfThreads(threads)
    return method


def _smaller(image: Any) -> Any:
    """Return an image with about as many voxels as are registered, as isotropic as whole factors allow."""
    factors = [1] * image.GetDimension()
    while image.GetNumberOfPixels() / np.prod(factors) > VOXELS:
        spacing = [s * f for s, f in zip(image.GetSpacing(), factors, strict=True)]
        factors[int(np.argmin(spacing))] += 1
    return sitk.BinShrink(image, factors) if max(factors) > 1 else image


def _image(array: np.ndarray, spacing: Sequence[float]) -> Any:
    """Return a SimpleITK image; one slice makes a 2D image."""
    flat = array.shape[0] == 1 and array.ndim == 3
    made = sitk.GetImageFromArray((array[0] if flat else array).astype(np.float32))
    made.SetSpacing([float(s) for s in spacing[1 if flat else 0 :]][::-1])
    return made


def _resample(
    array: np.ndarray, spacing: Sequence[float], fixed: Any, transform: Any, beyond: float = 0.0
) -> np.ndarray:
    made = sitk.Resample(_image(array, spacing), fixed, transform, sitk.sitkLinear, beyond)
    carried = sitk.GetArrayFromImage(made)
    return carried[None] if array.ndim == 3 and carried.ndim == 2 else carried


def _is_background(atlas: Atlas, number: int) -> bool:
    """Tell whether a class is the background: with regions there is none."""
    return number == 0 and bool(np.isclose(atlas.classes.sum(0), 1).all())


def local_similarity(image: np.ndarray, other: np.ndarray, window: Any) -> np.ndarray:
    """Return the normalised cross-correlation of two images in a ``window`` around each voxel, in [-1, 1]."""
    sizes = [max(1, round(size)) for size in window]

    def mean(values: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(values, sizes)

    a, b = (one.astype(np.float64) for one in (image, other))
    both = mean(a * b) - mean(a) * mean(b)
    spread = (mean(a * a) - mean(a) ** 2).clip(0) * (mean(b * b) - mean(b) ** 2).clip(0)
    return (both / np.sqrt(spread + 1e-12)).clip(-1, 1).astype(np.float32)
