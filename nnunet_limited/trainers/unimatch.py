"""UniMatch (Yang et al., CVPR 2023, arXiv 2208.09910)."""

from __future__ import annotations

from nnunet_limited.data.mixing import cutmix
from nnunet_limited.losses.pseudo_label import segmentation_loss
from nnunet_limited.networks.perturb import channel_dropout, perturbed
from nnunet_limited.trainers.base import Crops, Unsupervised
from nnunet_limited.trainers.fixmatch import LimitedFixMatchTrainer


class LimitedUniMatchTrainer(LimitedFixMatchTrainer):
    """FixMatch with two strong views under CutMix and one of perturbed features, all towards the same weak view."""

    strong_views = 2
    perturbs_features = True
    mixes_crops = True
    relative_time = 4.4
    relative_memory = 2.7

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return a quarter of each strong view's loss and half of that of the perturbed features."""
        probability, label, sure = self.pseudo_label(crops)
        dropped = self.full_resolution(perturbed(self.network, crops.weak, channel_dropout))
        loss = 0.5 * segmentation_loss(dropped, label, sure, crops.mask, self.regions)
        for view in crops.views:
            image, mixed_label, counted, mask = cutmix(view, label, sure, crops.mask)
            logits = self.full_resolution(self.network(image))
            loss = loss + 0.25 * segmentation_loss(logits, mixed_label, counted, mask, self.regions)
        return Unsupervised(loss, probability, counted=sure)
