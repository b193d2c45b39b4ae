"""The baseline of every comparison: the labelled cases alone, everything else the same."""

from nnunet_limited.trainers.base import LimitedTrainer
from nnunet_limited.trainers.config import TrainerConfig


class LimitedSupervisedTrainer(LimitedTrainer):
    """nnU-Net on the labelled cases of a split."""

    Config = TrainerConfig
    uses_unlabeled = False
