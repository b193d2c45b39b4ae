"""The trainers. nnU-Net finds them by name; each is a short module on :class:`LimitedTrainer`."""

from nnunet_limited.trainers.active import LimitedActiveTrainer
from nnunet_limited.trainers.adversarial import LimitedAdversarialTrainer
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
from nnunet_limited.trainers.base import LimitedTrainer
from nnunet_limited.trainers.bidirectional_copy_paste import LimitedBidirectionalCopyPasteTrainer
from nnunet_limited.trainers.box import LimitedBoxTrainer
from nnunet_limited.trainers.cross_consistency import LimitedCrossConsistencyTrainer
from nnunet_limited.trainers.cross_pseudo_supervision import LimitedCrossPseudoSupervisionTrainer
from nnunet_limited.trainers.cross_teaching import LimitedCrossTeachingTrainer
from nnunet_limited.trainers.deep_co_training import LimitedDeepCoTrainingTrainer
from nnunet_limited.trainers.dual_branch import LimitedDualBranchTrainer
from nnunet_limited.trainers.entropy_minimization import LimitedEntropyMinimizationTrainer
from nnunet_limited.trainers.fixmatch import LimitedFixMatchTrainer
from nnunet_limited.trainers.interpolation_consistency import LimitedInterpolationConsistencyTrainer
from nnunet_limited.trainers.mean_teacher import LimitedMeanTeacherTrainer
from nnunet_limited.trainers.prompted_pseudo_label import LimitedPromptedPseudoLabelTrainer
from nnunet_limited.trainers.rdrop import LimitedRDropTrainer
from nnunet_limited.trainers.recipe import LimitedRecipeTrainer
from nnunet_limited.trainers.self_training import LimitedSelfTrainingTrainer
from nnunet_limited.trainers.semi_sam import LimitedSemiSAMTrainer
from nnunet_limited.trainers.slice_propagation import LimitedSlicePropagationTrainer
from nnunet_limited.trainers.sparse import LimitedSparseMeanTeacherTrainer, LimitedSparseTrainer
from nnunet_limited.trainers.split_trainer import trainer_classes
from nnunet_limited.trainers.supervised import LimitedSupervisedTrainer
from nnunet_limited.trainers.uncertainty_aware_mean_teacher import LimitedUncertaintyAwareMeanTeacherTrainer
from nnunet_limited.trainers.uncertainty_rectified_pyramid import LimitedUncertaintyRectifiedPyramidTrainer
from nnunet_limited.trainers.unimatch import LimitedUniMatchTrainer

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
