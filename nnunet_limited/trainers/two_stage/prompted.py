"""Pseudo-labels of several sources and a mean teacher (SSL-MedSAM2, MICCAI CARE 2025; Keuth et al., 2024).

The second is arXiv 2411.12602: a promptable model refines, a network learns.
"""

from typing import ClassVar

from pydantic import Field

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.engine.settings import TrainerConfig
from nnunet_limited.losses.consistency import mean_squared_difference
from nnunet_limited.trainers.semi_supervised.mean_teacher import LimitedMeanTeacherTrainer, TeacherConfig
from nnunet_limited.trainers.two_stage.self_training import LimitedSelfTrainingTrainer, SelfTrainingConfig


class PromptedPseudoLabelConfig(SelfTrainingConfig, TeacherConfig):
    """Settings of learning what several sources agree on."""

    start_fraction: float = Field(
        0.0, ge=0, lt=1, description="fraction of the run before the unsupervised loss starts"
    )
    pseudo_labels: str = Field(
        "consensus", description="name of the pseudo-labels, from 'nnunet-limited pseudo-label --sources … --name'"
    )
    pseudo_label_confidence: float = Field(
        0.01, ge=0, le=1, description="smallest confidence of a voxel that is used; voxels left open have 0"
    )
    stable_fraction: float = Field(
        1.0, gt=0, le=1, description="fraction of the cases used, those whose sources agree most"
    )
    teacher_weight: float = Field(5.0, ge=0, description="weight of the consistency with the mean teacher")


class LimitedPromptedPseudoLabelTrainer(LimitedSelfTrainingTrainer, LimitedMeanTeacherTrainer):
    """Pseudo-labels where several sources agree, and the consistency of a mean teacher on all voxels.

    Sources are atlases, a promptable model or a trained model; their labels are those of
    ``nnunet-limited pseudo-label --sources``. The teacher is validated, saved as
    ``network_weights`` and used for prediction.
    """

    Config: ClassVar[type[TrainerConfig]] = PromptedPseudoLabelConfig
    learns_pseudo_labels = "sources"

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the loss over the voxels that are not left open, and the consistency over all of them."""
        target, confident = self.stored_label(crops)
        image, label, counted, valid, taught = self.student_view(
            crops.strong, target, confident, crops.valid, self.teach(crops.weak)
        )
        output = self.network(image)
        loss = self.pseudo_label_loss(output, label, counted, valid, self.config.unsupervised_heads == "all")
        consistency = mean_squared_difference(self.probabilities(output), taught, valid)
        loss = loss + self.config.teacher_weight * consistency
        return Unsupervised(loss, target, valid=confident)
