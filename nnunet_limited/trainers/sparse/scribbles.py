"""Sparse labels, the loss on annotated voxels (Gotkowski et al., ScribbleBench, MICCAI 2025).

Further terms: entropy and contours (Luo et al., WSL4MIS, 2022), gated CRF (Obukhov et al., 2019, arXiv 1906.04651),
Mumford-Shah (Kim & Ye, IEEE TIP 2020, arXiv 1904.02872).
"""

from functools import partial
from typing import Any, ClassVar

from pydantic import Field, create_model

from nnunet_limited.engine.settings import TrainerConfig
from nnunet_limited.engine.split_trainer import SplitTrainer
from nnunet_limited.losses.sparse import TERMS, Term, WithTerms
from nnunet_limited.trainers.semi_supervised.mean_teacher import LimitedMeanTeacherTrainer, MeanTeacherConfig


def with_term_weights(config: type[TrainerConfig]) -> type[TrainerConfig]:
    """Return ``config`` with a setting for the weight of each registered term."""
    fields: dict[str, Any] = {
        f"{name}_weight": (float, Field(0.0, ge=0, description=f"weight of the {term.description}"))
        for name, term in TERMS.items()
    }
    return create_model(
        config.__name__, __base__=config, __module__=config.__module__, __doc__=config.__doc__, **fields
    )


@with_term_weights
class SparseConfig(TrainerConfig):
    """Settings for sparse labels. A term without weight is off; 0.1 is common, 0.01 for contours."""

    sparse_labels: bool = Field(
        True, description="treat unannotated voxels as unlabelled, and those beyond the border of an image as ignored"
    )


class LimitedSparseTrainer(SplitTrainer):
    """nnU-Net on scribbles, slices, points or other sparse labels: the loss of the annotated voxels.

    Unlike in stock nnU-Net, voxels beyond the border of a partly annotated image are ignored, and a crop without
    annotation is left out instead of counting as perfectly segmented. With every voxel annotated it equals stock
    nnU-Net. Optional terms spread the annotation to the rest of the crop.
    """

    Config: ClassVar[type[TrainerConfig]] = SparseConfig
    loss: Any

    def _build_loss(self) -> Any:
        weights = {name: getattr(self.config, f"{name}_weight", 0.0) for name in TERMS}
        terms: list[tuple[float, Term]] = [
            (weight, partial(TERMS[name].loss, labels=self.labels)) for name, weight in weights.items() if weight
        ]
        return WithTerms(super()._build_loss(), terms, self.labels)

    def loss_of(self, image: Any) -> Any:
        """Return the loss with its terms on ``image``."""
        return self.loss.of(image)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do the step of the parent; that of nnU-Net with the loss of its image."""
        if self.uses_unlabeled:
            return super().train_step(batch)
        loss = self.loss
        self.loss = loss.of(batch["data"])
        try:
            return super().train_step(batch)
        finally:
            self.loss = loss


class SparseMeanTeacherConfig(SparseConfig, MeanTeacherConfig):
    """Settings of the mean teacher for sparse labels."""


class LimitedSparseMeanTeacherTrainer(LimitedSparseTrainer, LimitedMeanTeacherTrainer):
    """Sparse labels, and a mean teacher on all unannotated voxels, in annotated and in unlabelled images.

    Unlabelled cases are optional.
    """

    Config = SparseMeanTeacherConfig
