"""The recommended recipe (Tarvainen & Valpola, NeurIPS 2017, and French et al., BMVC 2020, arXiv 1906.01916)."""

from __future__ import annotations

import torch

from nnunet_limited.data.mixing import cutmix_boxes
from nnunet_limited.losses.pseudo_label import segmentation_loss
from nnunet_limited.trainers.base import Crops, Unsupervised
from nnunet_limited.trainers.mean_teacher import LimitedMeanTeacherTrainer


class LimitedRecipeTrainer(LimitedMeanTeacherTrainer):
    """The recommendation: the student learns the teacher's probabilities on strong views mixed by CutMix.

    The loss is cross-entropy and Dice against soft targets. As for every trainer it starts late, when the teacher has
    learnt what the labelled cases teach: started early, a poor teacher is copied.
    """

    relative_time = 2.3
    relative_memory = 1.0

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the loss on crops with a box of the next crop in them, over the voxels inside both images."""
        probability = self.teach(crops.weak)
        box = cutmix_boxes(len(crops.strong), crops.strong.shape[2:], crops.strong.device)
        image, target, mask = (
            torch.where(box, value.roll(1, 0), value) for value in (crops.strong, probability, crops.mask)
        )
        logits = self.full_resolution(self.network(image))
        return Unsupervised(segmentation_loss(logits, target, mask, mask, self.regions), probability)
