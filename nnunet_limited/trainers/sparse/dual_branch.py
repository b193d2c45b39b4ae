"""Dual-branch network with dynamically mixed pseudo-labels (Luo et al., MICCAI 2022, arXiv 2203.02106)."""

from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.engine.settings import SemiSupervisedConfig, TrainerConfig
from nnunet_limited.engine.step import LimitedTrainer
from nnunet_limited.losses.pseudo_label import dice_loss
from nnunet_limited.networks.auxiliary import AuxiliaryDecoders
from nnunet_limited.networks.perturb import decode, encode
from nnunet_limited.trainers.sparse.scribbles import LimitedSparseTrainer, SparseConfig


class DualBranchConfig(SparseConfig, SemiSupervisedConfig):
    """Settings of the dual-branch network. The weight is against twice the paper's loss, whose own is 0.5."""

    start_fraction: float = Field(
        0.0, ge=0, lt=1, description="fraction of the run before the unsupervised loss starts"
    )


class LimitedDualBranchTrainer(LimitedSparseTrainer, LimitedTrainer):
    """Sparse labels, and two decoders that train on the hard label of a random mixture of both.

    The mixture is drawn in every step. The second decoder gets the features through dropout and trains on the
    annotated voxels too; it is not used for prediction. The paper uses images with scribbles only; here unlabelled
    images are used too.
    """

    Config: ClassVar[type[TrainerConfig]] = DualBranchConfig
    perturbs_features = True
    runs_on_several_gpus = False  # the encoder is used apart from the decoder

    def make_partners(self) -> dict[str, nn.Module]:
        """Return the second decoder."""
        return {"auxiliary": AuxiliaryDecoders([self.new_network()])}

    def branches(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits (b, c, *spatial) of both decoders."""
        features = encode(self.network, image)
        (second,) = self.partners["auxiliary"]([[functional.dropout(maps, 0.5) for maps in features]])
        return self.full_resolution(decode(self.network, features)), second

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the mean Dice loss of both branches, and the second's supervised loss."""
        first, second = self.branches(crops.strong)
        share = np.random.uniform()
        mine, theirs = (self.labels.probabilities(logits.detach()) for logits in (first, second))
        mixed = share * mine + (1 - share) * theirs
        target = self.labels.harden(mixed)
        losses = [dice_loss(logits, target, crops.valid, self.labels) for logits in (first, second)]
        return Unsupervised(
            torch.stack(losses).mean(), mixed, self.loss.loss(self.branches(crops.image)[1], crops.full_label)
        )
