"""Labels carried over by registration: each labelled case is an atlas of the others.

Affine, then B-splines with mutual information (Mattes et al., IEEE TMI 2003, doi 10.1109/TMI.2003.809072; Rueckert et
al., IEEE TMI 1999, doi 10.1109/42.796284), fused by local similarity (Artaechevarria et al., IEEE TMI 2009,
doi 10.1109/TMI.2009.2014372).
"""

from __future__ import annotations

import hashlib
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from nnunet_limited.util.files import replacing

RECIPE = 1  # to be raised with whatever changes how images are registered and is not named here
LEAST = 8  # voxels along an axis that are not made fewer
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


@contextmanager
def one_thread() -> Iterator[None]:
    """Let ITK work on one thread: on several, sums come out in another order every time."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


@one_thread()
def carry(
    image: np.ndarray, spacing: Sequence[float], atlases: Sequence[Atlas], known: Path | None = None
) -> tuple[np.ndarray, list[float]]:
    """Return the probabilities (c, *spatial) that the ``atlases`` give the voxels of an ``image`` (*spatial).

    And the seconds that each registration took, when it was made, of those that could be registered; NaN where none
    could. Fewer than four slices are too few for a volume. The same for the same images, to the bit.

    Where they differ, those count more that look alike in the neighbourhood, by their normalised cross-correlation. All
    images should show about the same part of the body. The folder ``known`` keeps the registrations: a second round, or
    other sources beside the atlases, need them again.
    """
    total, weights = np.zeros((len(atlases[0].classes), *image.shape), np.float32), np.zeros(image.shape, np.float32)
    fixed, fine = _image(image, spacing), min(spacing) / np.asarray(spacing)
    seconds = []
    for atlas in atlases:
        try:
            transform, took = register(fixed, _image(atlas.image, atlas.spacing), known)
        except RuntimeError:  # ITK's word for images too small, or too different, to be registered
            continue
        seconds.append(took)
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
    made: np.ndarray = total / weights if seconds else np.full_like(total, np.nan)
    return made, seconds


def register(fixed: Any, moving: Any, known: Path | None = None) -> tuple[Any, float]:
    """Return the transform from the points of the SimpleITK image ``fixed`` to their like in ``moving``.

    And the seconds that it took to find.

    Found in the folder ``known`` if the same two images have been registered before, or else left there.
    """
    begin = time.perf_counter()
    fixed, moving = _smaller(fixed), _smaller(moving)
    affine, spline = sitk.AffineTransform(fixed.GetDimension()), sitk.BSplineTransform(fixed.GetDimension(), 3)
    file = known / f"{_fingerprint(fixed, moving)}.npz" if known else None
    if file and file.is_file():
        try:
            with np.load(file) as found:
                for name, transform in (("affine", affine), ("spline", spline)):
                    transform.SetFixedParameters(found[f"{name}_fixed"].tolist())
                    transform.SetParameters(found[name].tolist())
                return sitk.CompositeTransform([affine, spline]), float(found["seconds"])
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):  # damaged: as if it were not there
            affine = sitk.AffineTransform(fixed.GetDimension())
    affine = sitk.CenteredTransformInitializer(fixed, moving, affine, sitk.CenteredTransformInitializerFilter.GEOMETRY)
    method = _method(fixed)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, AFFINE_STEPS, 0.7)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(affine, inPlace=True)
    method.Execute(fixed, moving)
    mesh = [min(MESH, max(1, size // 4)) for size in fixed.GetSize()]
    spline = sitk.BSplineTransformInitializer(fixed, mesh, order=3)
    method = _method(fixed)
    method.SetMovingInitialTransform(affine)
    method.SetOptimizerAsLBFGSB(1e-4, SPLINE_STEPS, maximumNumberOfFunctionEvaluations=EVALUATIONS)
    method.SetInitialTransform(spline, inPlace=True)
    method.Execute(fixed, moving)
    if file:
        kept = [np.array(p) for t in (affine, spline) for p in (t.GetParameters(), t.GetFixedParameters())]
        with replacing(file) as temporary, temporary.open("wb") as stream:
            np.savez(
                stream, affine=kept[0], affine_fixed=kept[1], spline=kept[2], spline_fixed=kept[3],
                seconds=np.array(time.perf_counter() - begin),
            )  # fmt: skip
    return sitk.CompositeTransform([affine, spline]), time.perf_counter() - begin


def _fingerprint(fixed: Any, moving: Any) -> str:
    """Return a hash of two images and of how they are registered."""
    how = (RECIPE, sitk.Version.VersionString(), SAMPLES, BINS, MESH, AFFINE_STEPS, SPLINE_STEPS, EVALUATIONS)
    made = hashlib.sha256(repr(how).encode())
    for image in (fixed, moving):
        made.update(repr((image.GetSize(), image.GetSpacing())).encode())
        made.update(sitk.GetArrayFromImage(image).tobytes())
    return made.hexdigest()[:24]


def _method(fixed: Any) -> Any:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(min(1.0, SAMPLES / fixed.GetNumberOfPixels()), 1)
    method.SetInterpolator(sitk.sitkLinear)
    factors = [4, 2] if min(fixed.GetSize()) >= 32 else [2, 1] if min(fixed.GetSize()) >= 16 else [1, 1]
    method.SetShrinkFactorsPerLevel(factors)
    method.SetSmoothingSigmasPerLevel([2, 1])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    return method


def _smaller(image: Any) -> Any:
    """Return an image with about as many voxels as are registered, as isotropic as whole factors allow."""
    factors = [1] * image.GetDimension()
    while image.GetNumberOfPixels() / np.prod(factors) > VOXELS:
        spacing = [s * f if size // (f + 1) >= LEAST else np.inf
                   for s, f, size in zip(image.GetSpacing(), factors, image.GetSize(), strict=True)]  # fmt: skip
        if not np.isfinite(min(spacing)):
            break
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
