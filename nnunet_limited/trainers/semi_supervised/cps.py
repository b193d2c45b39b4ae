"""Cross pseudo supervision (Chen et al., CVPR 2021, arXiv 2106.01226)."""

from typing import ClassVar

import torch
from torch import nn

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.engine.settings import StrongView, StudentViewConfig, TrainerConfig
from nnunet_limited.engine.step import LimitedTrainer
from nnunet_limited.losses.pseudo_label import segmentation_loss


class CrossPseudoSupervisionConfig(StudentViewConfig):
    """Settings of cross pseudo supervision. In the paper both networks see the image as it is."""

    strong_view: StrongView = "default"


class LimitedCrossPseudoSupervisionTrainer(LimitedTrainer):
    """Two networks of different initialisation train on each other's hard labels on unlabelled crops.

    Both train on the labelled crops too. The first is validated, saved as ``network_weights`` and used for
    prediction. With ``cutmix`` or ``geometric_view`` the labels are those of the weak view, which takes two more
    passes, as in the paper's variant with CutMix. In medical imaging ``consistency_weight`` is often 0.1;
    the loss is like the supervised one, and 1 gives it a gradient of the same size.
    """

    Config: ClassVar[type[TrainerConfig]] = CrossPseudoSupervisionConfig
    supervised_partners = ("second",)

    def make_partners(self) -> dict[str, nn.Module]:
        """Return the second network."""
        return {"second": self.new_network()}

    def compare(self, logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Return the loss of one network's logits against the other's hard labels."""
        return segmentation_loss(logits, target, valid, valid, self.labels)

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the sum of both networks' losses over the voxels inside the image."""
        networks = (self.network, self.partners["second"])
        if self.student_view.changes_crops:
            with torch.no_grad():
                mine, theirs = (self.labels.harden(self.probabilities(network(crops.weak))) for network in networks)
            image, my_label, their_label, valid = self.student_view(crops.strong, mine, theirs, crops.valid)
            first, second = (self.full_resolution(network(image)) for network in networks)
        else:
            first, second = (self.full_resolution(network(crops.strong)) for network in networks)
            mine, theirs = (self.labels.harden(self.labels.probabilities(z.detach())) for z in (first, second))
            my_label, their_label, valid = mine, theirs, crops.valid
        loss = self.compare(first, their_label, valid) + self.compare(second, my_label, valid)
        return Unsupervised(loss, theirs)


class LimitedCPSTrainer(LimitedCrossPseudoSupervisionTrainer):
    """Short name of :class:`LimitedCrossPseudoSupervisionTrainer`."""

    alias_of = "LimitedCrossPseudoSupervisionTrainer"
