"""Uncertainty-rectified pyramid consistency (Luo et al., MICCAI 2021 and MedIA 2022, arXiv 2012.07042)."""

from typing import Any

import torch
from pydantic import Field
from torch.nn import functional

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.engine.settings import SemiSupervisedConfig
from nnunet_limited.engine.step import LimitedTrainer
from nnunet_limited.losses.consistency import masked_mean
from nnunet_limited.losses.label_space import LabelSpace


class UncertaintyRectifiedPyramidConfig(SemiSupervisedConfig):
    """Settings of the uncertainty-rectified pyramid."""

    consistency_weight: float = Field(10.0, ge=0, description="weight of the unsupervised loss after the ramp-up")
    pyramid_scales: int = Field(
        4, ge=2, description="number of deep-supervision heads that must agree, the finest ones"
    )


def pyramid_consistency(scales: list[torch.Tensor], valid: torch.Tensor, labels: LabelSpace) -> torch.Tensor:
    """Return the disagreement of ``scales``, probabilities (b, c, *spatial), with their mean.

    A voxel at which a scale diverges from the mean counts less for it, and the divergence itself is a loss.
    """
    mean = torch.stack(scales).mean(0)
    total = mean.new_zeros(())
    for scale in scales:
        distance = labels.divergence(scale, mean)
        certainty = torch.exp(-distance)
        squared = ((scale - mean) ** 2).sum(1, keepdim=True)
        total = total + masked_mean(squared * certainty, valid) / masked_mean(certainty, valid).clamp(min=1e-7)
        total = total + masked_mean(distance, valid)
    return total / len(scales)


class LimitedUncertaintyRectifiedPyramidTrainer(LimitedTrainer):
    """nnU-Net's deep-supervision heads must agree with one another on unlabelled crops.

    The coarsest head, which nnU-Net does not train, is left out. The published ``consistency_weight`` is 0.1,
    with which the loss has less than 1 % of the supervised gradient.
    """

    Config = UncertaintyRectifiedPyramidConfig

    @classmethod
    def unsuitable(cls, configuration: dict[str, Any], config: Any) -> str | None:
        """Refuse networks with a single head."""
        stages = configuration["architecture"]["arch_kwargs"].get("n_stages", 1)
        if stages <= 3:
            return "it needs two scales of deep supervision that learn from labels; plan a deeper U-Net"
        return super().unsuitable(configuration, config)

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the pyramid's disagreement over the voxels inside the image."""
        output = self.network(crops.strong)
        heads = self.heads(output, min(self.config.pyramid_scales, len(output) - 1))  # labels never reach the coarsest
        size, mode = heads[0].shape[2:], "bilinear" if heads[0].ndim == 4 else "trilinear"
        resized = [heads[0], *(functional.interpolate(head.float(), size=size, mode=mode) for head in heads[1:])]
        scales = [self.labels.probabilities(head) for head in resized]
        return Unsupervised(pyramid_consistency(scales, crops.valid, self.labels), scales[0].detach())


class LimitedURPCTrainer(LimitedUncertaintyRectifiedPyramidTrainer):
    """Short name of :class:`LimitedUncertaintyRectifiedPyramidTrainer`."""

    alias_of = "LimitedUncertaintyRectifiedPyramidTrainer"
