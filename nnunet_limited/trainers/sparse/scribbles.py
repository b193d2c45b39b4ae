"""Sparse labels, the loss on annotated voxels (Gotkowski et al., ScribbleBench, MICCAI 2025).

Further terms: entropy and contours (Luo et al., WSL4MIS, 2022), gated CRF (Obukhov et al., 2019, arXiv 1906.04651),
Mumford-Shah (Kim & Ye, IEEE TIP 2020, arXiv 1904.02872).
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from nnunet_limited.engine.settings import TrainerConfig
from nnunet_limited.engine.split_trainer import SplitTrainer
from nnunet_limited.losses.sparse import Term, WithTerms, gated_crf, mumford_shah, total_variation
from nnunet_limited.trainers.semi_supervised.mean_teacher import LimitedMeanTeacherTrainer, MeanTeacherConfig


class SparseConfig(TrainerConfig):
    """Settings for sparse labels. Every term is off unless it has a weight; 0.1 is common, 0.01 for contours."""

    sparse_labels: bool = Field(True, description="ignore what lies beyond the borders of sparsely labelled images")
    entropy_weight: float = Field(0.0, ge=0, description="weight of the entropy of the prediction")
    crf_weight: float = Field(0.0, ge=0, description="weight of the gated CRF: alike neighbours are of one class")
    contour_weight: float = Field(0.0, ge=0, description="weight of the length of the contours")
    mumford_shah_weight: float = Field(0.0, ge=0, description="weight of the image's variance within classes")


class LimitedSparseTrainer(SplitTrainer):
    """nnU-Net on scribbles, slices, points or whatever else leaves voxels ignored: the loss of the annotated voxels.

    Unlike in stock nnU-Net, nothing is learnt from beyond the borders of an image that is annotated in part, and a crop
    without annotation does not count as well segmented. With every voxel annotated it is stock nnU-Net. The weights
    add terms that spread the annotation to the rest of the crop.
    """

    Config: ClassVar[type[TrainerConfig]] = SparseConfig
    loss: Any

    def _build_loss(self) -> Any:
        labels = self.labels
        terms: list[tuple[float, Term]] = [
            (self.config.entropy_weight, lambda p, image: labels.entropy(p).mean()),
            (self.config.crf_weight, lambda p, image: gated_crf(p, image, labels)),
            (self.config.contour_weight, lambda p, image: total_variation(p, labels)),
            (self.config.mumford_shah_weight, lambda p, image: mumford_shah(p, image, labels)),
        ]
        return WithTerms(super()._build_loss(), [(weight, term) for weight, term in terms if weight], labels)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do the step of the parent with the loss of its image."""
        loss = self.loss
        self.loss = loss.of(batch["data"])
        try:
            return super().train_step(batch)
        finally:
            self.loss = loss


class SparseMeanTeacherConfig(SparseConfig, MeanTeacherConfig):
    """Settings of the mean teacher for sparse labels."""


class LimitedSparseMeanTeacherTrainer(LimitedSparseTrainer, LimitedMeanTeacherTrainer):
    """Sparse labels, and a mean teacher for every voxel without annotation, in annotated and in unlabelled images.

    Needs no unlabelled case.
    """

    Config = SparseMeanTeacherConfig
