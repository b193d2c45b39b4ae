"""nnU-Net's augmentation: the base classes of transforms, and what those of its training pipeline do."""

from __future__ import annotations

from typing import Any

from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, SegOnlyTransform

__all__ = [
    "GEOMETRIC",
    "INTENSITY",
    "LABEL_ONLY",
    "MASKING",
    "BasicTransform",
    "SegOnlyTransform",
    "without_benchmark",
]

# Transforms of the host's training pipeline that move voxels, change intensities, need a label, and blank the outside.
GEOMETRIC = {"SpatialTransform", "MirrorTransform", "Convert3DTo2DTransform", "Convert2DTo3DTransform"}
INTENSITY = {
    "GaussianNoiseTransform",
    "GaussianBlurTransform",
    "MultiplicativeBrightnessTransform",
    "ContrastTransform",
    "SimulateLowResolutionTransform",
    "GammaTransform",
}
LABEL_ONLY = {"RemoveLabelTransform", "ConvertSegmentationToRegionsTransform", "DownsampleSegForDSTransform"}
MASKING = {"MaskImageTransform"}


def without_benchmark(pipeline: Any) -> None:
    """Switch off the timing of blur implementations in a host pipeline.

    It picks the faster of two that differ in the last bit, so a run with it is not repeatable.
    """
    for transform in getattr(pipeline, "transforms", []):
        inner = getattr(transform, "transform", transform)
        if hasattr(inner, "benchmark"):
            inner.benchmark = False
