"""Views of one unlabelled crop: same geometry, different intensities."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from nnunet_limited.data.crops import pack
from nnunet_limited.data.probe import coded_grid, effect, is_known
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.geometry import apply_with_map, compose, has_map, name_of
from nnunet_limited.host.loaders import BasicTransform


class Views(BasicTransform):
    """Turn a crop into a weak view (geometry only) and strong views (intensity augmentation on top).

    It takes ``image`` (c + further, *spatial) and ``segmentation`` (1 + n, *spatial): -1 outside of the image and 0
    inside, then stored labels. It returns both as :func:`~nnunet_limited.data.crops.pack` does, the weak view first.
    """

    def __init__(
        self,
        host_pipeline: Any,
        strong: int = 1,
        further: int = 0,
        channels: int = 1,
        patch_size: Sequence[int] = (32, 32),
        of_host: bool = True,
    ) -> None:
        """Sort the transforms of a trainer's ``get_training_transforms``, those that nnU-Net does not have by trial.

        Without ``of_host`` nnU-Net's own intensity augmentation is left out; if there is no other, so are the strong
        views. Raises LimitedError for a transform that fails.
        """
        super().__init__()
        self.geometric: list[Any] = []
        self.intensity: list[Any] = []
        self.masking: list[Any] = []
        sorted_by = {"geometric": self.geometric, "intensity": self.intensity, "masking": self.masking, "label": []}
        names = [type(transform).__name__ for transform in host_pipeline.transforms]
        flat = names.index("Convert2DTo3DTransform") if "Convert2DTo3DTransform" in names else 0
        for place, transform in enumerate(host_pipeline.transforms):
            if place < flat:  # where slices are channels, what is done is done to all views
                self.geometric.append(transform)
            else:
                sorted_by[effect(transform, channels, patch_size)].append(transform)
        if not of_host:
            self.intensity = [transform for transform in self.intensity if not is_known(transform)]
        self.unknown = [transform for transform in self.intensity if not is_known(transform)]
        self.strong, self.further = strong if of_host or self.intensity else 0, further
        self.maps: list[np.ndarray | None] = []  # of the crops of a batch; the loader takes them
        self.unmapped = [name_of(transform) for transform in self.geometric if not has_map(transform)]

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
        # A mask is the same everywhere inside of the image: only a grid shows a move there.
        shown = torch.cat([mask, coded_grid(mask.shape[1:]).to(mask.dtype)]) if self.unknown else mask
        view = {"image": image.clone(), "segmentation": shown.clone() if self.unknown else shown}
        for transform in self.intensity:
            view = transform(**view)
        if self.unknown and (view["image"].shape != image.shape or not torch.equal(view["segmentation"], shown)):
            names = ", ".join(type(transform).__name__ for transform in self.unknown)
            raise LimitedError(
                f"one of the augmentations {names} moved voxels, which it does so rarely that it was not noticed at "
                "the start; views of unlabelled crops would show different places, so leave it out"
            )
        return view["image"]
