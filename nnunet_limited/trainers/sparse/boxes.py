"""Boxes (Tian et al., BoxInst, CVPR 2021, arXiv 2012.02310; Kervadec et al., MIDL 2020, arXiv 2004.06816)."""

from typing import Any, ClassVar

import torch
from pydantic import Field

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.data.loaders import UnlabeledDataset
from nnunet_limited.data.sparse import BoxDataset
from nnunet_limited.engine.run import Run
from nnunet_limited.engine.settings import SemiSupervisedConfig, TrainerConfig
from nnunet_limited.engine.step import LimitedTrainer
from nnunet_limited.errors import LimitedError
from nnunet_limited.losses.boxes import affinity, outside, projection, size_bounds, tightness, uncut
from nnunet_limited.planners.preprocessing import box_folder, require_preprocessed
from nnunet_limited.trainers.sparse.scribbles import LimitedSparseTrainer, SparseConfig


class BoxConfig(SparseConfig, SemiSupervisedConfig):
    """Settings for boxes."""

    start_fraction: float = Field(
        0.0, ge=0, lt=1, description="fraction of the run before the unsupervised loss starts"
    )
    projection_weight: float = Field(
        1.0,
        ge=0,
        description="weight of the projection loss (every slice of a box contains its class); unused in 2D",
    )
    affinity_weight: float = Field(
        1.0,
        ge=0,
        description="weight of the affinity loss (neighbours of similar intensity in boxes have the same class)",
    )
    tightness_weight: float = Field(
        0.0,
        ge=0,
        description="weight of the tightness loss, 0.01 in the paper; unused in 2D configurations of volumes",
    )
    size_weight: float = Field(
        1.0, ge=0, description="weight of the size loss (objects fill a plausible fraction of their boxes)"
    )
    min_filled_fraction: float | None = Field(
        None, gt=0, lt=1, description="smallest fraction of a box that its object fills; default: 0.3, in 2D images 0.5"
    )
    max_filled_fraction: float | None = Field(
        None, gt=0, lt=1, description="largest fraction of a box that its object fills; default: 0.6, in 2D images 0.9"
    )


class LimitedBoxTrainer(LimitedSparseTrainer, LimitedTrainer):
    """Boxes around all objects: the outside is background; weak losses train the inside.

    The unsupervised loss is computed on crops of the cases with boxes, without rotation, so that boxes stay tight.
    Tight 3D boxes are not tight in a single slice of a volume, so slices are trained by the size of objects, not by
    projections.
    """

    Config: ClassVar[type[TrainerConfig]] = BoxConfig

    @classmethod
    def resolve_config(cls, plans: dict[str, Any], begun: dict[str, Any] | None = None) -> Any:
        """Return the settings, with defaults of the fractions of boxes that objects fill.

        An ellipsoid along the axes fills 0.52 of its box, thin and oblique objects less; an ellipse fills 0.79.
        """
        config = super().resolve_config(plans, begun)
        shape = plans.get("original_median_shape_after_transp")
        if shape is None:  # settings are checked before there are plans
            return config
        flat = shape[0] == 1
        low, high = (0.5, 0.9) if flat else (0.3, 0.6)
        low, high = config.min_filled_fraction or low, config.max_filled_fraction or high
        if low > high:
            raise LimitedError(
                f"plans {plans.get('plans_name')}: min_filled_fraction={low} is above max_filled_fraction={high}; set "
                "both, with the minimum below the maximum"
            )
        return config.model_copy(update={"min_filled_fraction": low, "max_filled_fraction": high})

    @classmethod
    def check_unlabeled(cls, run: Run, config: Any) -> None:
        """Refuse cases without boxes."""
        remedy = "make them with 'nnunet-limited sparsify --kind boxes' or 'import-labels --boxes', then plan"
        folder = box_folder(run.labeled_folder)
        for case in run.fold.train:
            if not (folder / f"{case}.b2nd").is_file():
                raise LimitedError(f"{cls.__name__}: {folder} has no boxes of case {case!r}; {remedy}")
        require_preprocessed(run.labeled_folder, run.fold.train, "labelled", "run 'nnunet-limited plan'")

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:
        """Let crops with boxes be scaled and mirrored only."""
        made = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        self.augmentation = ((0.0, 0.0), *made[1:])
        return made

    def unlabeled_dataset(self) -> UnlabeledDataset:
        """Return the labelled cases with their boxes."""
        folder = self.run.labeled_folder
        return BoxDataset(str(folder), list(self.run.fold.train), str(box_folder(folder)))

    @property
    def slices_of_volumes(self) -> bool:
        """Whether crops are single slices of scans that have several."""
        shape = self.plans_manager.plans["original_median_shape_after_transp"]
        return len(self.configuration_manager.patch_size) == 2 and shape[0] > 1

    def boxes(self, codes: torch.Tensor) -> list[torch.Tensor]:
        """Return where the boxes (u, *spatial) of each foreground class, or of the classes of each region, are."""
        bits = [sum(1 << (value - 1) for value in values) for values in self.labels.foreground_values]
        return [(codes > 0) & (codes.int() & bit > 0) for bit in bits]

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the sum of the weighted terms, the mean over classes."""
        probability = self.probabilities(self.network(crops.strong))
        valid, codes, weights = crops.valid[:, 0], crops.stored[:, 0], self.config
        sharpness = 5 * 1.1 ** min(self.current_epoch, 100)
        losses = []
        for p, boxes in zip(self.labels.foreground(probability).unbind(1), self.boxes(codes), strict=True):
            boxes = boxes & valid
            loss = outside(p, boxes, valid)
            whole = boxes if self.slices_of_volumes else uncut(boxes)
            size = size_bounds(p, whole, weights.min_filled_fraction, weights.max_filled_fraction)
            loss = loss + weights.size_weight * size
            if not self.slices_of_volumes:
                loss = loss + weights.projection_weight * projection(p, boxes)
                if weights.tightness_weight:
                    loss = loss + weights.tightness_weight * tightness(p, boxes, sharpness)
            losses.append(loss)
        total = torch.stack(losses).mean()
        if weights.affinity_weight:
            alike = affinity(probability, crops.weak, codes > 0, valid, self.labels)
            total = total + weights.affinity_weight * alike
        return Unsupervised(total, probability.detach())
