"""Mean teacher (Tarvainen & Valpola, NeurIPS 2017, arXiv 1703.01780)."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from nnunet_limited.losses.consistency import mean_squared_difference, probabilities
from nnunet_limited.networks.ema import ema_decay, make_teacher, update_teacher
from nnunet_limited.trainers.base import LimitedTrainer, Unsupervised
from nnunet_limited.trainers.config import SemiSupervisedConfig


class MeanTeacherConfig(SemiSupervisedConfig):
    """Settings of the mean teacher."""

    ema_decay: float = Field(0.99, ge=0, lt=1, description="largest decay of the teacher's moving average")


class LimitedMeanTeacherTrainer(LimitedTrainer):
    """The student's strong view must agree with the prediction of its moving average on the weak view.

    The teacher sees the crop after nnU-Net's spatial augmentation, the student the same crop after its intensity
    augmentation too; the loss is the mean squared difference of their probabilities. The teacher is what is validated,
    saved as ``network_weights`` and predicted with.
    """

    Config = MeanTeacherConfig
    config: MeanTeacherConfig
    predictor_name = "teacher"

    def make_partners(self) -> dict[str, nn.Module]:
        """Return the teacher, a copy of the student."""
        return {"teacher": make_teacher(self.network)}

    def unsupervised_loss(self, weak: torch.Tensor, strong: torch.Tensor, mask: torch.Tensor) -> Unsupervised:
        """Return the mean squared difference between student and teacher over the voxels inside the image."""
        regions = self.label_manager.has_regions
        with torch.no_grad():
            target = probabilities(self.full_resolution(self.partners["teacher"](weak)), regions)
        prediction = self.full_resolution(self.network(strong))
        return Unsupervised(mean_squared_difference(prediction, target, mask, regions), target)

    def after_step(self) -> None:
        """Move the teacher towards the student."""
        update_teacher(self.partners["teacher"], self.network, ema_decay(self.iteration, self.config.ema_decay))
