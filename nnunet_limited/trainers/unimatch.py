"""UniMatch (Yang et al., CVPR 2023, arXiv 2208.09910)."""

from __future__ import annotations

from typing import Any

import torch

from nnunet_limited.data.mixing import cutmix_boxes
from nnunet_limited.losses.pseudo_label import segmentation_loss
from nnunet_limited.networks.perturb import NOT_PERTURBABLE, can_perturb, channel_dropout, perturbed
from nnunet_limited.trainers.base import Crops, Unsupervised
from nnunet_limited.trainers.fixmatch import LimitedFixMatchTrainer


class LimitedUniMatchTrainer(LimitedFixMatchTrainer):
    """FixMatch with two strong views under CutMix and one of perturbed features, all towards the same weak view."""

    strong_views = 2
    relative_time = 4.4
    relative_memory = 2.7

    @classmethod
    def unsuitable(cls, configuration: dict[str, Any], config: Any) -> str | None:
        """Refuse networks without encoder and decoder."""
        return None if can_perturb(configuration) else NOT_PERTURBABLE

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return a quarter of each strong view's loss and half of that of the perturbed features."""
        probability, label, sure = self.pseudo_label(crops)
        dropped = self.full_resolution(perturbed(self.network, crops.weak, channel_dropout))
        loss = 0.5 * segmentation_loss(dropped, label, sure, crops.mask, self.regions)
        for view in crops.views:
            box = cutmix_boxes(len(view), view.shape[2:], view.device)
            image, mixed_label, counted, mask = (
                torch.where(box, value.roll(1, 0), value) for value in (view, label, sure, crops.mask)
            )
            logits = self.full_resolution(self.network(image))
            loss = loss + 0.25 * segmentation_loss(logits, mixed_label, counted, mask, self.regions)
        return Unsupervised(loss, probability)
