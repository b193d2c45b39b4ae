"""The trainers. nnU-Net finds them by name; each is a short module on :class:`LimitedTrainer`."""

from nnunet_limited.trainers.base import LimitedTrainer
from nnunet_limited.trainers.mean_teacher import LimitedMeanTeacherTrainer
from nnunet_limited.trainers.supervised import LimitedSupervisedTrainer

__all__ = ["LimitedMeanTeacherTrainer", "LimitedSupervisedTrainer", "LimitedTrainer"]
