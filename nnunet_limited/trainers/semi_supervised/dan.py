"""Deep adversarial network (Zhang et al., MICCAI 2017, doi:10.1007/978-3-319-66179-7_47)."""

from typing import Any

import torch
from pydantic import Field
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.engine.settings import SemiSupervisedConfig
from nnunet_limited.engine.step import LimitedTrainer
from nnunet_limited.networks.discriminator import Discriminator
from nnunet_limited.networks.ema import unwrap


class AdversarialConfig(SemiSupervisedConfig):
    """Settings of the deep adversarial network."""

    consistency_weight: float = Field(0.1, ge=0, description="weight of the unsupervised loss after the ramp-up")
    discriminator_lr: float = Field(1e-4, gt=0, le=1, description="learning rate of the discriminator's Adam")


class LimitedAdversarialTrainer(LimitedTrainer):
    """A discriminator must not be able to distinguish predictions on unlabelled images from those on labelled ones.

    ``consistency_weight`` is small, as in other implementations: the gradient shows how to look labelled, not what is
    right.
    """

    Config = AdversarialConfig
    runs_on_several_gpus = False  # the discriminator is used frozen and learning in one step

    def make_partners(self) -> dict[str, nn.Module]:
        """Return the discriminator."""
        channels = self.num_input_channels + self.labels.channels
        return {"discriminator": Discriminator(channels, len(self.configuration_manager.patch_size))}

    def make_partner_optimizer(self, name: str) -> tuple[torch.optim.Optimizer, Any]:
        """Return Adam, as in the paper."""
        rate = self.config.discriminator_lr
        return self.with_decay(torch.optim.Adam(self.partners[name].parameters(), rate), rate)

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the student's loss for being recognised, and the discriminator's for not recognising."""
        discriminator = self.partners["discriminator"]
        frozen = {name: value.detach() for name, value in unwrap(discriminator).named_parameters()}
        unlabeled = self.probabilities(self.network(crops.strong))
        # Background, as the network predicts in the padding of labelled crops, or padding would give the crop away.
        unlabeled = torch.where(crops.inside, unlabeled, self.labels.background(unlabeled))
        # Crops that are drawn alike, or the crops forced onto foreground would give the labelled ones away.
        forced = self.oversample_foreground_percent if self.config.unlabeled_sampling == "uniform" else 0.0
        image = crops.image[: max(1, round(len(crops.image) * (1 - forced)))]
        with torch.no_grad():
            labeled = self.probabilities(self.network(image))
        judged = functional_call(unwrap(discriminator), frozen, (crops.strong, unlabeled))
        fake, real = discriminator(crops.strong, unlabeled.detach()), discriminator(image, labeled)
        bce = functional.binary_cross_entropy_with_logits
        learning = (bce(fake, torch.zeros_like(fake)) + bce(real, torch.ones_like(real))) / 2
        return Unsupervised(bce(judged, torch.ones_like(judged)), unlabeled.detach(), learning)


class LimitedDANTrainer(LimitedAdversarialTrainer):
    """Short name of :class:`LimitedAdversarialTrainer`."""

    alias_of = "LimitedAdversarialTrainer"
