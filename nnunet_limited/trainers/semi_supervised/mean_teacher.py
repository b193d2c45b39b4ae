"""Mean teacher (Tarvainen & Valpola, NeurIPS 2017, arXiv 1703.01780)."""

from typing import ClassVar

import torch
from pydantic import Field
from torch import nn

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.engine.settings import StudentViewConfig, TrainerConfig
from nnunet_limited.engine.step import LimitedTrainer
from nnunet_limited.losses.consistency import mean_squared_difference
from nnunet_limited.networks.ema import ema_decay, make_teacher, update_teacher, window_decay


class TeacherConfig(StudentViewConfig):
    """Settings of trainers with an averaged teacher."""

    ema_window: float = Field(
        0.03, gt=0, le=1, description="length of the teacher's moving average as a fraction of the steps so far"
    )
    ema_decay: float | None = Field(
        None, ge=0, lt=1, description="largest decay per step of that average, instead of ema_window"
    )


class MeanTeacherConfig(TeacherConfig):
    """Settings of the mean teacher."""

    consistency_weight: float = Field(15.0, ge=0, description="weight of the unsupervised loss after the ramp-up")


class LimitedMeanTeacherTrainer(LimitedTrainer):
    """The student on the strong view must agree with its moving average, the teacher, on the weak view.

    The teacher gets the crop after nnU-Net's spatial augmentation, the student the same crop after intensity
    augmentation too. The loss is the mean squared difference of their probabilities. The teacher is validated,
    saved as ``network_weights`` and used for prediction. The published ``consistency_weight`` is 50 to 100; the 0.1
    of many implementations belongs to other losses: this one is a mean over voxels and channels, beside cross-entropy
    and Dice. At 1 it has 2 % of the supervised gradient with nnU-Net's intensity augmentation, 7 % with strong views.
    """

    Config: ClassVar[type[TrainerConfig]] = MeanTeacherConfig
    predictor_name = "teacher"

    def make_partners(self) -> dict[str, nn.Module]:
        """Return the teacher, a copy of the student."""
        return {"teacher": make_teacher(self.network)}

    def teach(self, image: torch.Tensor) -> torch.Tensor:
        """Return the teacher's probabilities for ``image``, without gradient."""
        with torch.no_grad():
            return self.probabilities(self.partners["teacher"](image))

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the mean squared difference between student and teacher over the voxels inside the image."""
        target = self.teach(crops.weak)
        image, expected, valid = self.student_view(crops.strong, target, crops.valid)
        prediction = self.probabilities(self.network(image))
        return Unsupervised(mean_squared_difference(prediction, expected, valid), target)

    def after_step(self) -> None:
        """Move the teacher towards the student."""
        fixed, window = self.config.ema_decay, self.config.ema_window
        decay = window_decay(self.iteration, window) if fixed is None else ema_decay(self.iteration, fixed)
        update_teacher(self.partners["teacher"], self.network, decay)
