"""FixMatch (Sohn et al., NeurIPS 2020, arXiv 2001.07685; with CutMix: Yang et al., CVPR 2023, arXiv 2208.09910)."""

import torch
from pydantic import Field

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.engine.settings import StudentViewConfig
from nnunet_limited.engine.step import LimitedTrainer
from nnunet_limited.losses.pseudo_label import segmentation_loss


class FixMatchConfig(StudentViewConfig):
    """Settings of FixMatch."""

    cutmix: bool = Field(
        True, description="paste a box of the next crop into the student's view, and of its target into the target"
    )

    confidence_threshold: float = Field(
        0.95, ge=0, lt=1, description="smallest probability of a pseudo-label that is used"
    )


class LimitedFixMatchTrainer(LimitedTrainer):
    """The hard label of the weak view, where the network is confident, is the label of the strong view.

    Voxels below the threshold are ignored; they do not become background. As in UniMatch, the strong view contains
    a box of another crop. With 3 labelled patients of ACDC it was much better than supervised training, with 4
    labelled cases of Hippocampus not better.
    """

    Config = FixMatchConfig

    def pseudo_label(self, crops: Crops) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return probabilities and hard labels (u, c, *spatial) of the weak view, and where they count."""
        with torch.no_grad():
            probability = self.probabilities(self.network(crops.weak))
        confident = self.labels.confidence(probability) >= self.config.confidence_threshold
        return probability, self.labels.harden(probability), confident & crops.valid

    def strong_loss(self, crops: Crops, label: torch.Tensor, confident: torch.Tensor) -> torch.Tensor:
        """Return the loss over the confident voxels inside the image, the mean of the strong views."""
        losses = []
        for view in crops.views:
            image, mixed, mixed_confident, valid = self.student_view(view, label, confident, crops.valid)
            logits = self.full_resolution(self.network(image))
            losses.append(segmentation_loss(logits, mixed, mixed_confident, valid, self.labels))
        return torch.stack(losses).mean()

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the loss of the strong view."""
        probability, label, confident = self.pseudo_label(crops)
        return Unsupervised(self.strong_loss(crops, label, confident), probability, valid=confident)
