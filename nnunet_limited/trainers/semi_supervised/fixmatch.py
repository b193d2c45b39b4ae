"""FixMatch (Sohn et al., NeurIPS 2020, arXiv 2001.07685; with CutMix: Yang et al., CVPR 2023, arXiv 2208.09910)."""

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.engine.settings import CutMix, Heads, TrainerConfig
from nnunet_limited.trainers.components import LargestComponent, WithoutIslands
from nnunet_limited.trainers.semi_supervised.mean_teacher import LimitedMeanTeacherTrainer, TeacherConfig

Labeler = Annotated[
    Literal["self", "ema"],
    Field(description="network that labels the weak view: the student, or its moving average, which then predicts"),
]
Threshold = Annotated[
    float, Field(ge=0, lt=1, description="smallest probability of a pseudo-label that is used; 0 uses all")
]


class FixMatchConfig(TeacherConfig):
    """Settings of FixMatch."""

    teacher: Labeler = "self"
    confidence_threshold: Threshold = 0.95
    unsupervised_heads: Heads = "finest"
    cutmix: CutMix = True
    components: LargestComponent = "all"


class LimitedFixMatchTrainer(WithoutIslands, LimitedMeanTeacherTrainer):
    """The hard label of the weak view, where the network is confident, is the label of the strong view.

    Voxels below the threshold are ignored; they do not become background. As in UniMatch, the strong view contains
    a box of another crop. The published ``consistency_weight`` is 1 too: the loss is like the supervised one.
    """

    Config: ClassVar[type[TrainerConfig]] = FixMatchConfig
    predictor_name = "student"

    def make_partners(self) -> dict[str, nn.Module]:
        """Return the averaged teacher, if it labels."""
        return super().make_partners() if self.config.teacher == "ema" else {}

    @classmethod
    def predictor(cls, config: Any) -> str:
        """Return the averaged teacher, if it labels."""
        return "teacher" if config.teacher == "ema" else "student"

    def after_step(self) -> None:
        """Move the averaged teacher, if there is one, towards the student."""
        if "teacher" in self.partners:
            super().after_step()

    def pseudo_label(self, crops: Crops) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return probabilities and hard labels (u, c, *spatial) of the weak view, and where they count."""
        with torch.no_grad():
            probability = self.probabilities(self.partners.get("teacher", self.network)(crops.weak))
        confident = self.labels.confidence(probability) >= self.config.confidence_threshold
        label = self.labels.harden(probability)
        return probability, label, confident & self.without_islands(crops, label)

    def label_loss(self, output: Any, label: torch.Tensor, weight: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Return the loss of a network output against hard labels, on the heads of the settings."""
        every_head = self.config.unsupervised_heads == "all"
        return self.pseudo_label_loss(output, label, weight, valid, every_head)

    def strong_loss(self, crops: Crops, label: torch.Tensor, confident: torch.Tensor) -> torch.Tensor:
        """Return the loss over the confident voxels inside the image, the mean of the strong views."""
        losses = []
        for view in crops.views:
            image, expected, counted, valid = self.student_view(view, label, confident, crops.valid)
            losses.append(self.label_loss(self.network(image), expected, counted, valid))
        return torch.stack(losses).mean()

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the loss of the strong view."""
        probability, label, confident = self.pseudo_label(crops)
        return Unsupervised(self.strong_loss(crops, label, confident), probability, valid=confident)
