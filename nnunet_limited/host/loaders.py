"""nnU-Net's data loader, the augmenters around it, and the transforms of its training pipeline."""

from collections.abc import Iterator
from typing import Any

from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, SegOnlyTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

__all__ = ["BasicTransform", "SegOnlyTransform", "nnUNetDataLoader"]

# Transforms of nnU-Net's training pipeline that move voxels, change intensities, need a label, and blank the outside.
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


def loader_attribute(augmenter: Any) -> str:
    """Return the attribute under which nnU-Net's augmenter keeps its loader."""
    return "data_loader" if isinstance(augmenter, SingleThreadedAugmenter) else "generator"


def parts(transform: Any) -> Iterator[Any]:
    """Yield what a transform of transforms consists of: those behind a probability, in a sequence or a choice."""
    several = getattr(transform, "transforms", None) or getattr(transform, "list_of_transforms", None)
    found = [part for part in several or [getattr(transform, "transform", None)] if isinstance(part, BasicTransform)]
    for part in found:
        yield from parts(part)
    if not found:
        yield transform


def without_benchmark(pipeline: Any) -> None:
    """Switch off the timing of blur implementations in a host pipeline.

    It picks the faster of two that differ in the last bit, so a run with it is not repeatable.
    """
    for inner in parts(pipeline):
        if hasattr(inner, "benchmark"):
            inner.benchmark = False
