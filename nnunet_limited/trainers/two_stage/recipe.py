"""The recommended recipe (Lee, ICML workshop 2013; CutMix: French et al., BMVC 2020, arXiv 1906.01916)."""

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.data.mixing import cutmix
from nnunet_limited.losses.pseudo_label import segmentation_loss
from nnunet_limited.trainers.two_stage.self_training import LimitedSelfTrainingTrainer


class LimitedRecipeTrainer(LimitedSelfTrainingTrainer):
    """The recommendation: self-training on strong views mixed by CutMix, after bidirectional copy-paste.

    The teacher is a finished run of copy-paste, which labels all unlabelled cases before the student trains.
    ``nnunet-limited self-train`` does both; the cost of the teacher's run is extra. With 4 labelled cases of
    Hippocampus and 3 labelled patients of ACDC it was better than every single method compared.
    """

    teacher = "LimitedBidirectionalCopyPasteTrainer"
    mixes_crops = True

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the loss on crops with a box of the next crop in them, where the pseudo-label is confident."""
        target, confident = self.stored_label(crops)
        image, mixed, mixed_confident, valid = cutmix(crops.strong, target, confident, crops.valid)
        logits = self.full_resolution(self.network(image))
        loss = segmentation_loss(logits, mixed, mixed_confident, valid, self.labels)
        return Unsupervised(loss, target, valid=confident)
