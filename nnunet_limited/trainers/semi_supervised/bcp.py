"""Bidirectional copy-paste (Bai et al., CVPR 2023, arXiv 2305.00673)."""

import torch
from pydantic import Field

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.data.mixing import fixed_box
from nnunet_limited.engine.settings import StrongView
from nnunet_limited.losses.pseudo_label import segmentation_loss
from nnunet_limited.trainers.components import LargestComponent, WithoutIslands
from nnunet_limited.trainers.semi_supervised.mean_teacher import LimitedMeanTeacherTrainer, TeacherConfig


class BidirectionalCopyPasteConfig(TeacherConfig):
    """Settings of bidirectional copy-paste. The paper changes no intensities."""

    strong_view: StrongView = "default"
    box_side: float = Field(2 / 3, gt=0, lt=1, description="edge of the pasted box as a fraction of the crop's")
    pseudo_label_weight: float = Field(
        0.5, ge=0, description="weight of pseudo-labelled voxels; labelled ones have weight 1"
    )
    components: LargestComponent = "auto"


class LimitedBidirectionalCopyPasteTrainer(WithoutIslands, LimitedMeanTeacherTrainer):
    """Labelled crops are pasted into unlabelled ones and the reverse; labels and pseudo-labels are mixed likewise.

    The pseudo-label is the teacher's on the weak view. Before ``start_fraction`` the student trains on the labelled
    crops as they are, in place of the paper's pre-training on pastes between them. The paper keeps the largest
    component of each class and makes background of the others, which loses lesions and one of two paired organs. Here
    the labelled cases decide which classes are one component, and voxels of other components have weight 0.
    ``pseudo_label_weight`` is as published.
    """

    Config = BidirectionalCopyPasteConfig
    changed_since_format_1 = (
        "voxels outside of the largest component of a class became background, in place of weight 0 (unless "
        "components=all)"
    )

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the loss of both directions."""
        probability = self.teach(crops.weak)
        pseudo = self.labels.harden(torch.where(crops.inside, probability, 0.0))
        reliable = self.without_islands(crops, pseudo)
        unlabeled, pseudo, counted, shown = self.student_view(crops.strong, pseudo, reliable, crops.valid)
        pairs = [i % len(crops.image) for i in range(len(crops.weak))]
        label, valid = self.labels.encode_target(crops.full_label)
        image, label, valid = crops.image[pairs], label[pairs], valid[pairs]
        box = fixed_box(image.shape[2:], self.config.box_side, image.device)
        loss = torch.zeros((), device=image.device)
        for is_labeled in (box, ~box):
            mixed = torch.where(is_labeled, image, unlabeled)
            target = torch.where(is_labeled, label, pseudo)
            weight = torch.where(is_labeled, valid.float(), self.config.pseudo_label_weight * counted)
            logits = self.full_resolution(self.network(mixed))
            loss = loss + segmentation_loss(logits, target, weight, is_labeled | shown, self.labels)
        return Unsupervised(loss / 2, probability, valid=reliable)


class LimitedBCPTrainer(LimitedBidirectionalCopyPasteTrainer):
    """Short name of :class:`LimitedBidirectionalCopyPasteTrainer`."""

    alias_of = "LimitedBidirectionalCopyPasteTrainer"
