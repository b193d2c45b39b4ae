"""Views of one unlabelled crop: same geometry, different intensities."""

from __future__ import annotations

from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform

from nnunet_limited.errors import LimitedError

# Transforms of the host's training pipeline that move voxels, change intensities, need a label, and blank the outside.
_GEOMETRIC = {"SpatialTransform", "MirrorTransform", "Convert3DTo2DTransform", "Convert2DTo3DTransform"}
_INTENSITY = {
    "GaussianNoiseTransform",
    "GaussianBlurTransform",
    "MultiplicativeBrightnessTransform",
    "ContrastTransform",
    "SimulateLowResolutionTransform",
    "GammaTransform",
}
_LABEL_ONLY = {"RemoveLabelTransform", "ConvertSegmentationToRegionsTransform", "DownsampleSegForDSTransform"}
_MASKING = {"MaskImageTransform"}


class Views(BasicTransform):
    """Turn a crop into a weak view (geometry only) and strong views (the host's intensity augmentation on top).

    In: ``image`` (c + further, *spatial) and ``segmentation`` (1 or more, *spatial), whose first channel is -1 outside
    the image and 0 inside; others are stored labels. Out: ``image`` ((1 + strong) * c + further, *spatial), weak first,
    and ``segmentation`` moved alike.
    """

    def __init__(self, host_pipeline: Any, strong: int = 1, further: int = 0) -> None:
        """Sort the transforms of the host's ``get_training_transforms``; one that is not known is refused.

        Taken for an intensity transform, one that moves voxels would make the views of different places.
        """
        super().__init__()
        self.strong, self.further = strong, further
        named = [(type(getattr(t, "transform", t)).__name__, t) for t in host_pipeline.transforms]
        for name, _ in named:
            if name not in _GEOMETRIC | _INTENSITY | _LABEL_ONLY | _MASKING:
                raise LimitedError(
                    f"augmentation {name} is not known to move voxels or to change intensities only, which the views "
                    "of unlabelled crops depend on; train with nnU-Net's default augmentation"
                )
        self.geometric = [t for name, t in named if name in _GEOMETRIC]
        self.intensity = [t for name, t in named if name in _INTENSITY]
        self.masking = [t for name, t in named if name in _MASKING]

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Return the views of ``data_dict`` stacked along the channels."""
        for transform in self.geometric:
            data_dict = transform(**data_dict)
        image, mask = data_dict["image"], data_dict["segmentation"]
        image, further = image.split([len(image) - self.further, self.further])
        views = [image, *(self._strong_view(image, mask) for _ in range(self.strong))]
        for transform in self.masking:
            views = [transform(image=view, segmentation=mask)["image"] for view in views]
        return {"image": torch.cat([*views, further]), "segmentation": mask}

    def _strong_view(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        view = {"image": image.clone(), "segmentation": mask}
        for transform in self.intensity:
            view = transform(**view)
        return view["image"]


def without_benchmark(pipeline: Any) -> None:
    """Switch off the timing of blur implementations in a host pipeline.

    It picks the faster of two that differ in the last bit, so a run with it is not repeatable.
    """
    for transform in getattr(pipeline, "transforms", []):
        inner = getattr(transform, "transform", transform)
        if hasattr(inner, "benchmark"):
            inner.benchmark = False
