"""The recommended recipe (Lee, ICML workshop 2013; CutMix: French et al., BMVC 2020, arXiv 1906.01916)."""

from typing import ClassVar

from nnunet_limited.engine.settings import CutMix, TrainerConfig
from nnunet_limited.trainers.two_stage.self_training import LimitedSelfTrainingTrainer, SelfTrainingConfig


class RecipeConfig(SelfTrainingConfig):
    """Settings of the recipe."""

    cutmix: CutMix = True


class LimitedRecipeTrainer(LimitedSelfTrainingTrainer):
    """The recommendation: self-training on strong views mixed by CutMix, after bidirectional copy-paste.

    The teacher is a finished run of copy-paste, which labels all unlabelled cases before the student trains.
    ``nnunet-limited self-train`` does both; the cost of the teacher's run is extra.
    """

    Config: ClassVar[type[TrainerConfig]] = RecipeConfig
    teacher = "LimitedBidirectionalCopyPasteTrainer"
