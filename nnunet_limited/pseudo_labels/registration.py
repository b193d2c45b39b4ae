"""Labels moved to other scans by registration: each labelled case is an atlas of the others.

Affine, then B-splines with mutual information (Mattes et al., IEEE TMI 2003, doi 10.1109/TMI.2003.809072; Rueckert et
al., IEEE TMI 1999, doi 10.1109/42.796284), fused by local similarity (Artaechevarria et al., IEEE TMI 2009,
doi 10.1109/TMI.2009.2014372).
"""

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from nnunet_limited.util.files import replacing

VERSION = 1  # of the registration; increase it with changes that are not among the constants below
MIN_SIZE = 8  # voxels along an axis below which it is not shrunk
MAX_VOXELS = 250_000  # images are shrunk to about so many: more take longer and gain nothing
SAMPLES, BINS = 4000, 32
MESH, AFFINE_STEPS, SPLINE_STEPS, EVALUATIONS = 6, 100, 15, 25
SMOOTHING = 1.0  # standard deviation for moved labels, in voxels of the finest axis
WINDOW, SHARPNESS = 5.0, 10.0  # of the local similarity: width in voxels of the finest axis, and exponent
SECONDS = "#Seconds: "


@dataclass(frozen=True)
class Atlas:
    """A labelled case: its image (*spatial), its label as probabilities (c, *spatial), and its spacing."""

    image: np.ndarray
    classes: np.ndarray
    spacing: tuple[float, ...]


@contextmanager
def one_thread() -> Iterator[None]:
    """Let ITK work on one thread: on several, the order of sums differs from run to run."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


@one_thread()
def propagate_atlases(
    image: np.ndarray, spacing: Sequence[float], atlases: Sequence[Atlas], folder: Path | None = None
) -> tuple[np.ndarray, list[float]]:
    """Return the labels of ``atlases`` moved to an ``image`` (*spatial) and averaged, as probabilities (c, *spatial).

    And the seconds that each registration took when it was made; ``folder`` keeps the registrations. Atlases that
    cannot be registered are left out, e.g. volumes of fewer than four slices; the probabilities are NaN if none can.
    Atlases are weighted by their similarity to the image around each voxel, the local normalised cross-correlation.
    All images should show about the same part of the body. The result is the same to the bit for the same images.
    """
    total, weights = np.zeros((len(atlases[0].classes), *image.shape), np.float32), np.zeros(image.shape, np.float32)
    fixed, fine = _image(image, spacing), min(spacing) / np.asarray(spacing)
    seconds = []
    for atlas in atlases:
        try:
            transform, took = register(fixed, _image(atlas.image, atlas.spacing), folder)
        except RuntimeError:  # ITK raises it for images that are too small or too different
            continue
        seconds.append(took)
        weight = np.ones_like(weights)
        if len(atlases) > 1:
            moved = _resample(atlas.image, atlas.spacing, fixed, transform)
            weight = np.exp(SHARPNESS * local_similarity(image, moved, WINDOW * fine))
        weights += weight
        has_background = bool(np.isclose(atlas.classes.sum(0), 1).all())  # regions have no channel for it
        for c, one in enumerate(atlas.classes):
            label = _resample(one, atlas.spacing, fixed, transform, float(has_background and c == 0))
            total[c] += weight * ndimage.gaussian_filter(label, SMOOTHING * fine)
    made: np.ndarray = total / weights if seconds else np.full_like(total, np.nan)
    return made, seconds


def register(fixed: Any, moving: Any, folder: Path | None = None) -> tuple[Any, float]:
    """Return the transform from points of the SimpleITK image ``fixed`` to points of ``moving``, and its seconds.

    It is read from ``folder`` if the same two images have been registered before, and else written there.
    """
    begin = time.perf_counter()
    fixed, moving = _shrunk(fixed), _shrunk(moving)
    file = folder / f"{_fingerprint(fixed, moving)}.tfm" if folder else None
    if file and (found := _read_transform(file)):
        return found
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
    made, seconds = sitk.CompositeTransform([affine, spline]), time.perf_counter() - begin
    if file:
        _write_transform(file, made, seconds)
    return made, seconds


def _write_transform(file: Path, transform: Any, seconds: float) -> None:
    """Write a transform with the seconds that it took, in a comment at the end that shows that nothing is cut off."""
    with replacing(file, ".tfm") as temporary:
        sitk.WriteTransform(transform, str(temporary))
        with temporary.open("a", encoding="utf-8") as stream:
            stream.write(f"{SECONDS}{seconds}\n")


def _read_transform(file: Path) -> tuple[Any, float] | None:
    """Return what :func:`_write_transform` wrote; None without the file, and for a damaged one."""
    try:
        last = file.read_text(encoding="utf-8").splitlines()[-1]
        return sitk.ReadTransform(str(file)), float(last.split(SECONDS)[1])
    except (OSError, ValueError, IndexError, RuntimeError):
        return None


def _fingerprint(fixed: Any, moving: Any) -> str:
    """Return a hash of two images and of how they are registered."""
    how = (VERSION, sitk.Version.VersionString(), SAMPLES, BINS, MESH, AFFINE_STEPS, SPLINE_STEPS, EVALUATIONS)
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


def _shrunk(image: Any) -> Any:
    """Return an image shrunk to about the largest number of voxels, as isotropic as whole factors allow."""
    factors = [1] * image.GetDimension()
    while image.GetNumberOfPixels() / np.prod(factors) > MAX_VOXELS:
        spacing = [s * f if size // (f + 1) >= MIN_SIZE else np.inf
                   for s, f, size in zip(image.GetSpacing(), factors, image.GetSize(), strict=True)]  # fmt: skip
        if not np.isfinite(min(spacing)):
            break
        factors[int(np.argmin(spacing))] += 1
    return sitk.BinShrink(image, factors) if max(factors) > 1 else image


def _image(array: np.ndarray, spacing: Sequence[float]) -> Any:
    """Return a SimpleITK image; one slice makes a 2D image."""
    flat = array.shape[0] == 1
    made = sitk.GetImageFromArray((array[0] if flat else array).astype(np.float32))
    made.SetSpacing([float(s) for s in spacing[int(flat) :]][::-1])
    return made


def _resample(array: np.ndarray, spacing: Sequence[float], fixed: Any, transform: Any, beyond: float = 0.0) -> Any:
    made = sitk.Resample(_image(array, spacing), fixed, transform, sitk.sitkLinear, beyond)
    moved = sitk.GetArrayFromImage(made)
    return moved[None] if moved.ndim == 2 else moved


def local_similarity(image: np.ndarray, other: np.ndarray, window: Any) -> np.ndarray:
    """Return the normalised cross-correlation of two images in a ``window`` around each voxel, in [-1, 1]."""
    sizes = [max(1, round(size)) for size in window]

    def mean(values: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(values, sizes)

    a, b = (one.astype(np.float64) for one in (image, other))
    both = mean(a * b) - mean(a) * mean(b)
    spread = (mean(a * a) - mean(a) ** 2).clip(0) * (mean(b * b) - mean(b) ** 2).clip(0)
    return (both / np.sqrt(spread + 1e-12)).clip(-1, 1).astype(np.float32)
