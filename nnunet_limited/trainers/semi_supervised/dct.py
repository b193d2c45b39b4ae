"""Deep co-training (Qiao et al., ECCV 2018, arXiv 1803.05984; for segmentation Peng et al., PR 2020)."""

import torch
from pydantic import Field

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.engine.settings import SemiSupervisedConfig
from nnunet_limited.losses.consistency import masked_mean
from nnunet_limited.losses.pseudo_label import cross_entropy
from nnunet_limited.networks.ema import unwrap
from nnunet_limited.trainers.semi_supervised.cps import LimitedCrossPseudoSupervisionTrainer


class DeepCoTrainingConfig(SemiSupervisedConfig):
    """Settings of deep co-training."""

    consistency_weight: float = Field(10.0, ge=0, description="weight of the unsupervised loss after the ramp-up")
    difference_weight: float = Field(
        0.05, ge=0, description="weight of the loss on the other network's adversarial examples"
    )
    adversarial_step: float = Field(
        0.02, gt=0, description="distance of an adversarial example from its image, in normalised intensity"
    )


class LimitedDeepCoTrainingTrainer(LimitedCrossPseudoSupervisionTrainer):
    """Two networks must agree on unlabelled crops, and each must resist the adversarial examples of the other.

    The agreement is the Jensen-Shannon divergence of their predictions. The adversarial examples (one step along
    the sign of the gradient) keep the two networks different. The published ``consistency_weight`` is 10 too; the
    published ``difference_weight``, for classification, is 0.5.
    """

    Config = DeepCoTrainingConfig
    runs_on_several_gpus = False  # gradients with respect to the image pass by DistributedDataParallel

    def adversarial(self, image: torch.Tensor, logits: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Return ``image`` moved so that the network that gave ``logits`` is less sure of its hard label."""
        label = self.labels.harden(self.labels.probabilities(logits.detach()))
        # Their sum: the gradient of a mean over many voxels is 0 in half precision, and its sign is all that counts.
        loss = cross_entropy(logits, label, valid, valid, self.labels) * valid.sum()
        (gradient,) = torch.autograd.grad(loss, image, retain_graph=True)
        return (image + self.config.adversarial_step * gradient.sign()).detach()

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return divergence and resistance over the voxels inside the image."""
        networks = (self.network, self.partners["second"])
        image, valid = crops.strong.clone().requires_grad_(), crops.valid
        # Not compiled, because two passes back through one graph are refused of a compiled network.
        logits = [self.full_resolution(unwrap(network)(image)) for network in networks]
        first, second = (self.labels.probabilities(z) for z in logits)
        mean = (first + second) / 2
        between = (self.labels.divergence(first, mean) + self.labels.divergence(second, mean)) / 2
        examples = [self.adversarial(image, z, valid) for z in logits]
        resisted = [
            cross_entropy(self.full_resolution(network(example)), target.detach(), valid, valid, self.labels)
            for network, example, target in zip(networks, reversed(examples), (second, first), strict=True)
        ]
        loss = masked_mean(between, valid) + self.config.difference_weight * torch.stack(resisted).sum()
        return Unsupervised(loss, mean.detach())


class LimitedDCTTrainer(LimitedDeepCoTrainingTrainer):
    """Short name of :class:`LimitedDeepCoTrainingTrainer`."""

    alias_of = "LimitedDeepCoTrainingTrainer"
