"""The baseline of every comparison: the labelled cases alone, everything else the same."""

from nnunet_limited.engine.split_trainer import SplitTrainer


class LimitedSupervisedTrainer(SplitTrainer):
    """nnU-Net on the labelled cases of a split."""
