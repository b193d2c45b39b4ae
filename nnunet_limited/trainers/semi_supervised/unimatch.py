"""UniMatch (Yang et al., CVPR 2023, arXiv 2208.09910)."""

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.networks.perturb import channel_dropout, perturbed
from nnunet_limited.trainers.semi_supervised.fixmatch import LimitedFixMatchTrainer


class LimitedUniMatchTrainer(LimitedFixMatchTrainer):
    """FixMatch with two strong views and one of perturbed deep features, all towards the same weak view.

    The weights of the views are those of the paper: 1/4 for each strong one, 1/2 for that of perturbed features.
    """

    strong_views = 2
    perturbs_features = True
    changed_since_format_1 = "channels of features of every stride were dropped, not only those of stride 4 and above"

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return half of the strong views' loss and half of that of the perturbed features."""
        probability, label, confident = self.pseudo_label(crops)
        dropped = perturbed(self.network, crops.weak, channel_dropout)
        loss = self.label_loss(dropped, label, confident, crops.valid)
        return Unsupervised((loss + self.strong_loss(crops, label, confident)) / 2, probability, valid=confident)
