"""Cross-consistency training (Ouali et al., CVPR 2020, arXiv 2003.09005)."""

import torch
from pydantic import Field
from torch import nn

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.engine.settings import SemiSupervisedConfig
from nnunet_limited.engine.step import LimitedTrainer
from nnunet_limited.losses.consistency import mean_squared_difference
from nnunet_limited.networks.auxiliary import AuxiliaryDecoders
from nnunet_limited.networks.perturb import channel_dropout, decode, encode, feature_drop, feature_noise, perturb_deep

PERTURBATIONS = (channel_dropout, feature_noise, feature_drop)


class CrossConsistencyConfig(SemiSupervisedConfig):
    """Settings of cross-consistency training."""

    consistency_weight: float = Field(20.0, ge=0, description="weight of the unsupervised loss after the ramp-up")


class LimitedCrossConsistencyTrainer(LimitedTrainer):
    """Auxiliary decoders on perturbed deep features must agree with the main decoder.

    The unsupervised loss trains the encoder and the auxiliary decoders; the main decoder trains on labelled crops
    only. The auxiliary decoders are not used for prediction. The published ``consistency_weight`` is 30;
    ours gives the loss about the gradient of the supervised one.
    """

    Config = CrossConsistencyConfig
    perturbs_features = True
    changed_since_format_1 = "features of every stride were perturbed, not only those of stride 4 and above"
    runs_on_several_gpus = False  # the encoder is used apart from the decoder

    def make_partners(self) -> dict[str, nn.Module]:
        """Return one auxiliary decoder for each perturbation."""
        return {"auxiliary": AuxiliaryDecoders([self.new_network() for _ in PERTURBATIONS])}

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the mean squared difference of auxiliary and main predictions over the voxels inside the image."""
        features = encode(self.network, crops.strong)
        with torch.no_grad():
            target = self.probabilities(decode(self.network, features))
        outputs = self.partners["auxiliary"]([perturb_deep(features, perturb) for perturb in PERTURBATIONS])
        losses = [mean_squared_difference(self.labels.probabilities(o), target, crops.valid) for o in outputs]
        return Unsupervised(torch.stack(losses).mean(), target)


class LimitedCCTTrainer(LimitedCrossConsistencyTrainer):
    """Short name of :class:`LimitedCrossConsistencyTrainer`."""

    alias_of = "LimitedCrossConsistencyTrainer"
