"""The trainers. nnU-Net finds them by name; each is a short module on :class:`LimitedTrainer`."""

from nnunet_limited.engine.split_trainer import trainer_classes
from nnunet_limited.engine.step import LimitedTrainer
from nnunet_limited.trainers.aliases import (
    ALIASES,
    LimitedBCPTrainer,
    LimitedCCTTrainer,
    LimitedCPSTrainer,
    LimitedDANTrainer,
    LimitedDCTTrainer,
    LimitedICTTrainer,
    LimitedUAMTTrainer,
    LimitedURPCTrainer,
)
from nnunet_limited.trainers.semi_supervised.bcp import LimitedBidirectionalCopyPasteTrainer
from nnunet_limited.trainers.semi_supervised.cct import LimitedCrossConsistencyTrainer
from nnunet_limited.trainers.semi_supervised.cps import LimitedCrossPseudoSupervisionTrainer
from nnunet_limited.trainers.semi_supervised.cross_teaching import LimitedCrossTeachingTrainer
from nnunet_limited.trainers.semi_supervised.dan import LimitedAdversarialTrainer
from nnunet_limited.trainers.semi_supervised.dct import LimitedDeepCoTrainingTrainer
from nnunet_limited.trainers.semi_supervised.entropy_minimization import LimitedEntropyMinimizationTrainer
from nnunet_limited.trainers.semi_supervised.fixmatch import LimitedFixMatchTrainer
from nnunet_limited.trainers.semi_supervised.ict import LimitedInterpolationConsistencyTrainer
from nnunet_limited.trainers.semi_supervised.mean_teacher import LimitedMeanTeacherTrainer
from nnunet_limited.trainers.semi_supervised.rdrop import LimitedRDropTrainer
from nnunet_limited.trainers.semi_supervised.semi_sam import LimitedSemiSAMTrainer
from nnunet_limited.trainers.semi_supervised.uamt import LimitedUncertaintyAwareMeanTeacherTrainer
from nnunet_limited.trainers.semi_supervised.unimatch import LimitedUniMatchTrainer
from nnunet_limited.trainers.semi_supervised.urpc import LimitedUncertaintyRectifiedPyramidTrainer
from nnunet_limited.trainers.sparse.boxes import LimitedBoxTrainer
from nnunet_limited.trainers.sparse.dual_branch import LimitedDualBranchTrainer
from nnunet_limited.trainers.sparse.scribbles import LimitedSparseMeanTeacherTrainer, LimitedSparseTrainer
from nnunet_limited.trainers.sparse.slices import LimitedSlicePropagationTrainer
from nnunet_limited.trainers.supervised import LimitedSupervisedTrainer
from nnunet_limited.trainers.two_stage.active import LimitedActiveTrainer
from nnunet_limited.trainers.two_stage.prompted import LimitedPromptedPseudoLabelTrainer
from nnunet_limited.trainers.two_stage.recipe import LimitedRecipeTrainer
from nnunet_limited.trainers.two_stage.self_training import LimitedSelfTrainingTrainer

__all__ = [
    "ALIASES",
    "LimitedActiveTrainer",
    "LimitedAdversarialTrainer",
    "LimitedBCPTrainer",
    "LimitedBidirectionalCopyPasteTrainer",
    "LimitedBoxTrainer",
    "LimitedCCTTrainer",
    "LimitedCPSTrainer",
    "LimitedCrossConsistencyTrainer",
    "LimitedCrossPseudoSupervisionTrainer",
    "LimitedCrossTeachingTrainer",
    "LimitedDANTrainer",
    "LimitedDCTTrainer",
    "LimitedDeepCoTrainingTrainer",
    "LimitedDualBranchTrainer",
    "LimitedEntropyMinimizationTrainer",
    "LimitedFixMatchTrainer",
    "LimitedICTTrainer",
    "LimitedInterpolationConsistencyTrainer",
    "LimitedMeanTeacherTrainer",
    "LimitedPromptedPseudoLabelTrainer",
    "LimitedRDropTrainer",
    "LimitedRecipeTrainer",
    "LimitedSelfTrainingTrainer",
    "LimitedSemiSAMTrainer",
    "LimitedSlicePropagationTrainer",
    "LimitedSparseMeanTeacherTrainer",
    "LimitedSparseTrainer",
    "LimitedSupervisedTrainer",
    "LimitedTrainer",
    "LimitedUAMTTrainer",
    "LimitedURPCTrainer",
    "LimitedUncertaintyAwareMeanTeacherTrainer",
    "LimitedUncertaintyRectifiedPyramidTrainer",
    "LimitedUniMatchTrainer",
    "trainer_classes",
]
