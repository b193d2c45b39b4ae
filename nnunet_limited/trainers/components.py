"""Trainers that give islands of a pseudo-labelled class no weight, where labelled cases show that it is one object."""

from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field

from nnunet_limited.data.components import ComponentRule, Components, labeled_counts
from nnunet_limited.data.crops import Crops
from nnunet_limited.engine.step import LimitedTrainer

if TYPE_CHECKING:
    Trainer = LimitedTrainer
else:
    Trainer = object  # so that what is mixed in is no trainer itself

LargestComponent = Annotated[
    Components,
    Field(
        description="pseudo-labelled classes of which only the largest component is used: auto, those that are one "
        "component in nearly all labelled cases; largest, every class; all, none"
    ),
]


class WithoutIslands(Trainer):
    """What a trainer with the setting ``components`` inherits, before the trainer that it extends."""

    def prepare_data(self) -> None:
        """Decide from the labels of the fold which classes are one component; a continued run has decided."""
        super().prepare_data()
        decided = (self.resumed_state or {"buffers": {}})["buffers"].get("is_single")
        self.is_single = torch.tensor(self.decide().mask) if decided is None else decided.clone()
        self.print_to_log_file(f"Classes of which the largest component is used: {sorted(self.rule.single) or 'none'}")

    def decide(self) -> ComponentRule:
        """Return the rule of the setting ``components``; labelled cases are read if it asks for them."""
        flat, choice = len(self.configuration_manager.patch_size) == 2, self.config.components
        cases = self.run.fold.train if choice == "auto" else ()
        return ComponentRule.of(choice, self.labels, labeled_counts(self.labels, self.run.labeled_folder, cases, flat))

    @property
    def buffers(self) -> dict[str, torch.Tensor]:
        """Return which classes are one component too, so that a continued run keeps its rule."""
        return super().buffers | {"is_single": self.is_single}

    @property
    def rule(self) -> ComponentRule:
        """Return the classes of which the largest component is used."""
        return ComponentRule.of_mask(self.labels, self.is_single.tolist())

    def without_islands(self, crops: Crops, label: torch.Tensor) -> torch.Tensor:
        """Return the voxels of the crops that count (u, 1, *spatial), without the islands of hard labels in them."""
        return crops.valid & ~self.rule.in_crops(label * crops.inside, crops.inside)
