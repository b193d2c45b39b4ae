"""R-Drop (Liang et al., NeurIPS 2021, arXiv 2106.14448)."""

from functools import partial

from pydantic import Field

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.engine.settings import SemiSupervisedConfig
from nnunet_limited.engine.step import LimitedTrainer
from nnunet_limited.losses.consistency import masked_mean
from nnunet_limited.networks.perturb import channel_dropout, perturbed


class RDropConfig(SemiSupervisedConfig):
    """Settings of R-Drop."""

    consistency_weight: float = Field(4.0, ge=0, description="weight of the unsupervised loss after the ramp-up")
    feature_dropout: float = Field(
        0.3, gt=0, lt=1, description="fraction of channels dropped in each of the two passes"
    )


class LimitedRDropTrainer(LimitedTrainer):
    """Two passes of the same crop with different dropout must agree.

    nnU-Net's networks have no dropout, so channels of the deep features are dropped, in these passes only.
    The divergence is that of the class probabilities of each voxel. ``consistency_weight`` is as published.
    """

    Config = RDropConfig
    perturbs_features = True
    changed_since_format_1 = "channels of features of every stride were dropped, not only those of stride 4 and above"
    runs_on_several_gpus = False  # the encoder is used apart from the decoder

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the mean of both Kullback-Leibler divergences over the voxels inside the image."""
        drop = partial(channel_dropout, rate=self.config.feature_dropout)
        first, second = (self.probabilities(perturbed(self.network, crops.strong, drop)) for _ in range(2))
        both = self.labels.divergence(first, second) + self.labels.divergence(second, first)
        return Unsupervised(masked_mean(both, crops.valid) / 2, first.detach())
