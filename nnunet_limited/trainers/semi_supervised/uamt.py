"""Uncertainty-aware mean teacher (Yu et al., MICCAI 2019, arXiv 1907.07034)."""

from functools import partial

import torch
from pydantic import Field

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.losses.consistency import mean_squared_difference
from nnunet_limited.networks.perturb import channel_dropout, perturbed
from nnunet_limited.trainers.semi_supervised.mean_teacher import LimitedMeanTeacherTrainer, MeanTeacherConfig


class UncertaintyAwareMeanTeacherConfig(MeanTeacherConfig):
    """Settings of the uncertainty-aware mean teacher."""

    stochastic_passes: int = Field(8, ge=2, description="number of teacher passes for the uncertainty")
    feature_dropout: float = Field(0.5, gt=0, lt=1, description="fraction of channels dropped in each teacher pass")


class LimitedUncertaintyAwareMeanTeacherTrainer(LimitedMeanTeacherTrainer):
    """Mean teacher on the voxels where the teacher is confident.

    The uncertainty is the entropy of the mean of several teacher passes with noise on the input and dropout of
    channels of the deep features, added because nnU-Net's networks have no dropout. The largest entropy that counts
    rises over the whole run from 3/4 to all of that of two equally likely classes, the maximum in the paper, which has
    two. The published ``consistency_weight`` is 0.1; as for the mean teacher, that is next to nothing beside
    nnU-Net's loss.
    """

    Config = UncertaintyAwareMeanTeacherConfig
    perturbs_features = True
    changed_since_format_1 = (
        "the limit of the uncertainty was relative to the largest entropy possible and rose during the ramp-up only, "
        "and channels of features of every stride were dropped"
    )

    def uncertainty(self, image: torch.Tensor) -> torch.Tensor:
        """Return the normalised entropy (u, 1, *spatial) of the mean of the stochastic teacher passes."""
        drop = partial(channel_dropout, rate=self.config.feature_dropout)
        total = torch.zeros((), device=image.device)
        with torch.no_grad():
            for _ in range(self.config.stochastic_passes):
                noisy = image + (0.1 * torch.randn_like(image)).clamp(-0.2, 0.2)
                total = total + self.probabilities(perturbed(self.partners["teacher"], noisy, drop))
        return self.labels.entropy(total / self.config.stochastic_passes)

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the mean squared difference over the confident voxels inside the image."""
        target = self.teach(crops.weak)
        confident = crops.valid & (self.uncertainty(crops.weak) < self.entropy_limit)
        image, expected, counted = self.student_view(crops.strong, target, confident)
        prediction = self.probabilities(self.network(image))
        return Unsupervised(mean_squared_difference(prediction, expected, counted), target, valid=confident)


class LimitedUAMTTrainer(LimitedUncertaintyAwareMeanTeacherTrainer):
    """Short name of :class:`LimitedUncertaintyAwareMeanTeacherTrainer`."""

    alias_of = "LimitedUncertaintyAwareMeanTeacherTrainer"
