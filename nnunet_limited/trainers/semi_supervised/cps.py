"""Cross pseudo supervision (Chen et al., CVPR 2021, arXiv 2106.01226)."""

import torch
from torch import nn

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.engine.step import LimitedTrainer
from nnunet_limited.losses.pseudo_label import segmentation_loss


class LimitedCrossPseudoSupervisionTrainer(LimitedTrainer):
    """Two networks of different initialisation train on each other's hard labels on unlabelled crops.

    Both train on the labelled crops too. The first is validated, saved as ``network_weights`` and used for
    prediction. In medical imaging ``consistency_weight`` is often 0.1. With 4 labelled cases of Hippocampus it did
    not beat supervised training; with 3 labelled patients of ACDC it was far better.
    """

    supervised_partners = ("second",)

    def make_partners(self) -> dict[str, nn.Module]:
        """Return the second network."""
        return {"second": self.new_network()}

    def compare(self, logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Return the loss of one network's logits against the other's hard labels."""
        return segmentation_loss(logits, target, valid, valid, self.labels)

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the sum of both networks' losses over the voxels inside the image."""
        first = self.full_resolution(self.network(crops.strong))
        second = self.full_resolution(self.partners["second"](crops.strong))
        theirs = self.labels.probabilities(second.detach())
        mine = self.labels.probabilities(first.detach())
        loss = self.compare(first, self.labels.harden(theirs), crops.valid)
        loss = loss + self.compare(second, self.labels.harden(mine), crops.valid)
        return Unsupervised(loss, theirs)


class LimitedCPSTrainer(LimitedCrossPseudoSupervisionTrainer):
    """Short name of :class:`LimitedCrossPseudoSupervisionTrainer`."""

    alias_of = "LimitedCrossPseudoSupervisionTrainer"
