"""Entropy minimisation (Grandvalet & Bengio, NeurIPS 2004; Vu et al., ADVENT, CVPR 2019, arXiv 1811.12833)."""

from pydantic import Field

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.engine.settings import SemiSupervisedConfig
from nnunet_limited.engine.step import LimitedTrainer
from nnunet_limited.losses.consistency import masked_mean


class EntropyMinimizationConfig(SemiSupervisedConfig):
    """Settings of entropy minimisation."""

    consistency_weight: float = Field(0.1, ge=0, description="weight of the unsupervised loss after the ramp-up")


class LimitedEntropyMinimizationTrainer(LimitedTrainer):
    """The entropy of the predictions on unlabelled crops is minimised.

    Published values of ``consistency_weight`` are as small as 0.001. It must be small, because a network that is sure
    is not one that is right.
    """

    Config = EntropyMinimizationConfig

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the mean normalised entropy over the voxels inside the image."""
        probability = self.probabilities(self.network(crops.strong))
        return Unsupervised(masked_mean(self.labels.entropy(probability), crops.valid), probability.detach())
