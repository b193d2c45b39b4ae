"""Cross teaching between CNN and Transformer (Luo et al., MIDL 2022, arXiv 2112.04894)."""

from importlib.util import find_spec
from typing import Any

import torch
from pydantic import Field
from torch import nn

from nnunet_limited.losses.pseudo_label import dice_loss
from nnunet_limited.networks.transformer import NO_MONAI, make_transformer
from nnunet_limited.trainers.semi_supervised.cps import (
    CrossPseudoSupervisionConfig,
    LimitedCrossPseudoSupervisionTrainer,
)


class CrossTeachingConfig(CrossPseudoSupervisionConfig):
    """Settings of cross teaching."""

    consistency_weight: float = Field(1.0, ge=0, description="weight of the unsupervised loss after the ramp-up")
    transformer_features: int = Field(24, ge=12, multiple_of=12, description="width of the Transformer in channels")
    transformer_depth: int = Field(12, ge=1, description="number of blocks of the Transformer in 3D")
    transformer_lr: float = Field(3e-4, gt=0, le=1, description="learning rate of the Transformer's AdamW")


class LimitedCrossTeachingTrainer(LimitedCrossPseudoSupervisionTrainer):
    """nnU-Net's network and a Transformer train on each other's hard labels on unlabelled crops, by Dice.

    The Transformer is MONAI's Swin UNETR in 2D and Primus in 3D. nnU-Net's network is used for prediction.
    The published ``consistency_weight`` is 0.1, with which the loss has a fifth of the supervised gradient; at 1 it
    has twice as much.
    """

    Config = CrossTeachingConfig

    @classmethod
    def unsuitable(cls, configuration: dict[str, Any], config: Any) -> str | None:
        """Refuse 2D without MONAI."""
        if len(configuration["patch_size"]) == 2 and find_spec("monai") is None:
            return NO_MONAI
        return super().unsuitable(configuration, config)

    def make_partners(self) -> dict[str, nn.Module]:
        """Return the Transformer."""
        patch_size = self.configuration_manager.patch_size
        heads = self.labels.channels
        width, depth = self.config.transformer_features, self.config.transformer_depth
        return {"second": make_transformer(self.num_input_channels, heads, patch_size, width, depth)}

    def make_partner_optimizer(self, name: str) -> tuple[torch.optim.Optimizer, Any]:
        """Return AdamW, which Transformers need."""
        rate = self.config.transformer_lr
        optimizer = torch.optim.AdamW(self.partners[name].parameters(), rate, weight_decay=0.05)
        return self.with_decay(optimizer, rate)

    def compare(self, logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Return the Dice loss of one network's logits against the other's hard labels."""
        return dice_loss(logits, target, valid, self.labels)
