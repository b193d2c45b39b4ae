"""FixMatch (Sohn et al., NeurIPS 2020, arXiv 2001.07685)."""

from __future__ import annotations

import torch
from pydantic import Field

from nnunet_limited.losses.pseudo_label import confidence, harden, segmentation_loss
from nnunet_limited.trainers.base import Crops, LimitedTrainer, Unsupervised
from nnunet_limited.trainers.config import SemiSupervisedConfig


class FixMatchConfig(SemiSupervisedConfig):
    """Settings of FixMatch."""

    confidence_threshold: float = Field(0.95, ge=0, lt=1, description="least probability of a pseudo-label that counts")


class LimitedFixMatchTrainer(LimitedTrainer):
    """The hard label of the weak view, where the network is sure of it, is the label of the strong view.

    Voxels below the threshold count for nothing; they do not become background.
    """

    Config = FixMatchConfig
    relative_time = 2.4
    relative_memory = 1.0

    def pseudo_label(self, crops: Crops) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return probabilities and hard labels (u, c, *spatial) of the weak view, and where they count."""
        with torch.no_grad():
            probability = self.probabilities(self.network(crops.weak))
        sure = confidence(probability, self.regions) >= self.config.confidence_threshold
        return probability, harden(probability, self.regions), sure & crops.mask

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the loss over the sure voxels inside the image."""
        probability, label, sure = self.pseudo_label(crops)
        logits = self.full_resolution(self.network(crops.strong))
        loss = segmentation_loss(logits, label, sure, crops.mask, self.regions)
        return Unsupervised(loss, probability, counted=sure)
