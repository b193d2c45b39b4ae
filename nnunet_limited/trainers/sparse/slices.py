"""Slice propagation (after Cai et al., DeSCO, CVPR 2023, arXiv 2303.13090; SGTC, AAAI 2025, arXiv 2412.15526)."""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.data.loaders import UnlabeledDataset
from nnunet_limited.data.propagated import PropagatedDataset
from nnunet_limited.engine.settings import SemiSupervisedConfig, TrainerConfig
from nnunet_limited.engine.step import LimitedTrainer
from nnunet_limited.losses.pseudo_label import cross_entropy, segmentation_loss
from nnunet_limited.trainers.sparse.scribbles import LimitedSparseTrainer, SparseConfig


class SlicePropagationConfig(SparseConfig, SemiSupervisedConfig):
    """Settings of slice propagation."""

    start_fraction: float = Field(
        0.0, ge=0, lt=1, description="fraction of the run before the unsupervised loss starts"
    )
    networks: Literal[2, 3] = Field(
        2, description="number of networks: 2 as in DeSCO, or 3 as in SGTC, at 1.5 times the cost"
    )
    slice_decay: float = Field(
        0.95,
        ge=0,
        lt=1,
        description="factor of a propagated label's weight for each voxel (finest spacing) from its slice",
    )
    # At the 0.1 of DeSCO its gradient is 0.06 of the supervised one where no slice is propagated.
    cross_weight: float = Field(0.5, ge=0, description="weight of the loss between the networks")


class LimitedSlicePropagationTrainer(LimitedSparseTrainer, LimitedTrainer):
    """Annotated slices, whose labels are propagated by registration; networks train on them and on each other.

    With slices annotated in two or three orientations, each network ignores the propagated labels of another
    orientation: the first those of the last axis, the second those of the axis before it. A voxel with propagated
    labels of several orientations has that of the nearest annotated slice. Every network also trains on all
    annotated voxels, and on the hard labels of the others where these are confident (by the entropy of their
    prediction, in place of several passes with noise), on unlabelled images too. The weight of a propagated label
    falls with its distance from the annotated slice (in voxels of the finest spacing, not in slices); during the
    ramp-up it rises with the weight of the unsupervised loss. The first channel is registered. Without annotated
    slices the networks train on each other only.
    """

    Config: ClassVar[type[TrainerConfig]] = SlicePropagationConfig
    changed_since_format_1 = (
        "the limit of the entropy was relative to the largest possible and rose during the ramp-up only"
    )

    def make_partners(self) -> dict[str, nn.Module]:
        """Return the other networks."""
        self.supervised_partners = ("second", "third")[: self.config.networks - 1]
        return {name: self.new_network() for name in self.supervised_partners}

    def unlabeled_dataset(self) -> UnlabeledDataset:
        """Return the unlabelled cases and, with propagated labels, the sparsely labelled ones."""
        self.axes: list[int] = []
        if self.sparse_ignore is None:
            return super().unlabeled_dataset()
        run = self.run
        self.print_to_log_file("Registering the slices of new sparsely labelled cases")
        dataset = PropagatedDataset(
            str(run.unlabeled_folder),
            run.fold.unlabeled,
            str(run.labeled_folder),
            run.fold.train,
            self.sparse_ignore,
            plans=self.plans_manager.plans,
            configuration=self.configuration_name,
            decay=self.config.slice_decay,
        )
        self.axes = dataset.axes
        found = [sum(bool(apart[axis]) for apart in dataset.apart.values()) for axis in range(3)]
        self.print_to_log_file(f"Of {len(dataset.sparse)} sparse cases {found} have annotated slices across each axis")
        return dataset

    def propagated(self, crops: Crops, network: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the labels a network learns as probabilities (u, c, *spatial) and their weights (u, 1, *spatial)."""
        left_out = self.axes[-1 - network] if 1 < len(self.axes) > network else None
        seen = [axis for axis in self.axes if axis != left_out]
        weight, nearest = crops.further[:, seen].max(1, keepdim=True)
        label = crops.stored[:, seen].gather(1, nearest)
        target, valid = self.labels.encode(label, None)  # -1 where nothing is propagated; nothing else is ignored
        return target, weight * (valid & crops.valid)

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the sum over the networks of the loss on propagated labels and of that on the others' labels."""
        networks = [self.network, *(self.partners[name] for name in self.supervised_partners)]
        logits = [self.full_resolution(network(crops.strong)) for network in networks]
        theirs = [self.labels.probabilities(output.detach()) for output in logits]
        limit = self.entropy_limit
        labels = [self.labels.harden(p) for p in theirs]
        confident = [crops.valid & (self.labels.entropy(p) < limit) for p in theirs]
        loss = torch.zeros((), device=self.device)
        for k, output in enumerate(logits):
            for j in set(range(len(logits))) - {k}:
                cross = cross_entropy(output, labels[j], confident[j], crops.valid, self.labels)
                loss = loss + self.config.cross_weight * cross
            if self.axes:
                target, weight = self.propagated(crops, k)
                loss = loss + segmentation_loss(output, target, weight, crops.valid, self.labels)
        return Unsupervised(loss, theirs[0])
