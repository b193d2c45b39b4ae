"""Interpolation consistency training (Verma et al., IJCAI 2019, arXiv 1903.03825)."""

import numpy as np
import torch
from pydantic import Field

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.losses.consistency import mean_squared_difference
from nnunet_limited.trainers.semi_supervised.mean_teacher import LimitedMeanTeacherTrainer, MeanTeacherConfig


class InterpolationConsistencyConfig(MeanTeacherConfig):
    """Settings of interpolation consistency training."""

    consistency_weight: float = Field(20.0, ge=0, description="weight of the unsupervised loss after the ramp-up")
    mixup_alpha: float = Field(0.2, gt=0, description="both parameters of the Beta distribution of the mixing fraction")


class LimitedInterpolationConsistencyTrainer(LimitedMeanTeacherTrainer):
    """The student's prediction on a mix of two crops must be the same mix of the teacher's predictions.

    In medical imaging ``consistency_weight`` is often 0.1, with which this loss has next to no gradient beside
    nnU-Net's (see the mean teacher).
    """

    Config = InterpolationConsistencyConfig
    mixes_crops = True

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the mean squared difference over the voxels inside both images of a pair."""
        share = float(np.random.beta(self.config.mixup_alpha, self.config.mixup_alpha))

        def mix(value: torch.Tensor) -> torch.Tensor:
            return share * value + (1 - share) * value.roll(1, 0)

        target = self.teach(crops.weak)
        image, expected, valid = self.student_view(crops.strong, target, crops.valid)
        prediction = self.probabilities(self.network(mix(image)))
        both = valid & valid.roll(1, 0)
        return Unsupervised(mean_squared_difference(prediction, mix(expected), both), target)


class LimitedICTTrainer(LimitedInterpolationConsistencyTrainer):
    """Short name of :class:`LimitedInterpolationConsistencyTrainer`."""

    alias_of = "LimitedInterpolationConsistencyTrainer"
