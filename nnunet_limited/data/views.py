"""Views of one unlabelled crop: same geometry, different intensities."""

from typing import Any

import numpy as np
import torch

from nnunet_limited.data.crops import pack
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.geometry import apply_with_map, compose
from nnunet_limited.host.loaders import GEOMETRIC, INTENSITY, LABEL_ONLY, MASKING, BasicTransform


class Views(BasicTransform):
    """Turn a crop into a weak view (geometry only) and strong views (nnU-Net's intensity augmentation on top).

    It takes ``image`` (c + further, *spatial) and ``segmentation`` (1 + n, *spatial): -1 outside of the image and 0
    inside, then stored labels. It returns both as :func:`~nnunet_limited.data.crops.pack` does, the weak view first.
    """

    def __init__(self, host_pipeline: Any, strong: int = 1, further: int = 0) -> None:
        """Sort the transforms of nnU-Net's ``get_training_transforms``.

        Raises LimitedError for an unknown one: if it moved voxels, the views would show different places.
        """
        super().__init__()
        self.strong, self.further = strong, further
        self.maps: list[np.ndarray | None] = []  # of the crops of a batch; the loader takes them
        named = [(type(getattr(t, "transform", t)).__name__, t) for t in host_pipeline.transforms]
        for name, _ in named:
            if name not in GEOMETRIC | INTENSITY | LABEL_ONLY | MASKING:
                raise LimitedError(
                    f"augmentation {name} is neither a known spatial nor a known intensity augmentation, as the "
                    "views of unlabelled crops need; train with nnU-Net's default augmentation"
                )
        self.geometric = [t for name, t in named if name in GEOMETRIC]
        self.intensity = [t for name, t in named if name in INTENSITY]
        self.masking = [t for name, t in named if name in MASKING]

    def apply(self, data_dict: dict[str, Any], **params: Any) -> dict[str, Any]:
        """Return the views of ``data_dict`` stacked along the channels."""
        maps: list[np.ndarray | None] = []
        for transform in self.geometric:
            data_dict, moved = apply_with_map(transform, data_dict)
            maps.append(moved)
        self.maps.append(compose(maps))
        image, mask = data_dict["image"], data_dict["segmentation"]
        image, further = image.split([len(image) - self.further, self.further])
        views = [image, *(self._strong_view(image, mask) for _ in range(self.strong))]
        for transform in self.masking:
            views = [transform(image=view, segmentation=mask)["image"] for view in views]
        return pack(views, further, mask)

    def _strong_view(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        view = {"image": image.clone(), "segmentation": mask}
        for transform in self.intensity:
            view = transform(**view)
        return view["image"]
