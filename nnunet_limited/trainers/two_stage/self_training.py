"""Self-training with offline pseudo-labels (Lee, ICML workshop 2013).

Cases are chosen by stability as in Huang et al., FLARE22 challenge, 2022.
"""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.data.loaders import PseudoLabeledDataset, UnlabeledDataset
from nnunet_limited.data.pseudo_label_store import PseudoLabels, load_for_fold, resample_to_network
from nnunet_limited.engine.run import Run
from nnunet_limited.engine.settings import Heads, StudentViewConfig, TrainerConfig
from nnunet_limited.engine.step import LimitedTrainer
from nnunet_limited.errors import LimitedError

CASES = "pseudo_label_cases"  # key of the run record


class SelfTrainingConfig(StudentViewConfig):
    """Settings of self-training."""

    start_fraction: float = Field(
        0.0, ge=0, lt=1, description="fraction of the run before the unsupervised loss starts"
    )
    pseudo_labels: str = Field(
        "model", description="name of the pseudo-labels, from 'nnunet-limited pseudo-label --name'"
    )
    pseudo_label_confidence: float = Field(0.8, ge=0, le=1, description="smallest confidence of a voxel that is used")
    stable_fraction: float = Field(0.8, gt=0, le=1, description="fraction of the cases used, the most stable ones")
    unsupervised_heads: Heads = "all"


class LimitedSelfTrainingTrainer(LimitedTrainer):
    """The pseudo-labels that ``nnunet-limited pseudo-label`` stored are the labels of the strong view.

    Voxels below the confidence are ignored. Cases are chosen by stability times confidence. The stability is the
    agreement with the previous round, among the members of the ensemble or, of a single model, among its predictions
    of mirrored images; classes that are missing or of a volume unlike the labelled ones lower it.
    """

    Config: ClassVar[type[TrainerConfig]] = SelfTrainingConfig
    teacher: ClassVar[str] = "LimitedSupervisedTrainer"  # of the first round of 'self-train' without --teacher
    learns_pseudo_labels: ClassVar[Literal["none", "model", "sources"]] = "model"

    @classmethod
    def check_unlabeled(cls, run: Run, config: Any) -> None:
        """Refuse a fold whose pseudo-labels are incomplete, or not those that it was begun with; record its cases."""
        super().check_unlabeled(run, config)
        labels = cls._stored(run, config)
        if other := labels.of_other_images(run.unlabeled_folder):
            raise LimitedError(
                f"{labels.folder}: the pseudo-label of {other[0]!r} was made from another image than there is now; run "
                "'nnunet-limited pseudo-label' again, which makes it again"
            )
        run.record_input("pseudo_labels", labels.hash_of(run.fold.unlabeled))
        if not chosen_by_stability(run):
            run.record[CASES] = chosen_cases(run, labels, config.stable_fraction)

    @staticmethod
    def _stored(run: Run, config: Any) -> PseudoLabels:
        number = run.results.name.removeprefix("fold_")
        fold = int(number) if number.isdecimal() else number
        return load_for_fold(run.planned.folder, run.split, config.pseudo_labels, fold)

    def unlabeled_dataset(self) -> UnlabeledDataset:
        """Return the stable cases with their pseudo-labels."""
        plans = self.plans_manager.plans
        labels = self._stored(self.run, self.config)
        cases, count = chosen_cases(self.run, labels, self.config.stable_fraction), len(self.run.fold.unlabeled)
        self.print_to_log_file(f"Pseudo-labels of {len(cases)} of {count} cases, {labels.folder}: {labels.origin}")
        if chosen_by_stability(self.run):
            self.print_to_log_file("This run began when cases were chosen by stability alone, and keeps them.")
        folder = resample_to_network(
            labels,
            cases,
            self.run.unlabeled_folder,
            plans,
            self.configuration_name,
            self.config.pseudo_label_confidence,
            self.labels,
        )
        return PseudoLabeledDataset(str(self.run.unlabeled_folder), cases, folder)

    def stored_label(self, crops: Crops) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the pseudo-labels as probabilities (u, c, *spatial), and where they are confident (u, 1, *spatial)."""
        target, valid = self.labels.encode(crops.stored, self.labels.unused_value)
        return target, valid & crops.valid

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the loss over the voxels with a confident pseudo-label."""
        target, confident = self.stored_label(crops)
        image, label, counted, valid = self.student_view(crops.strong, target, confident, crops.valid)
        every_head = self.config.unsupervised_heads == "all"
        loss = self.pseudo_label_loss(self.network(image), label, counted, valid, every_head)
        return Unsupervised(loss, target, valid=confident)


def chosen_by_stability(run: Run) -> bool:
    """Return whether a run was begun before its cases were recorded and chosen by confidence too."""
    begun = run.begun
    return bool(begun) and CASES not in begun


def chosen_cases(run: Run, labels: PseudoLabels, fraction: float) -> list[str]:
    """Return the cases that a run was begun with; at its start the ``fraction`` that is the most stable."""
    recorded: list[str] | None = run.begun.get(CASES)
    if recorded is not None:
        return recorded
    chosen = labels.most_stable(fraction, by_confidence=not chosen_by_stability(run))
    return [case for case in chosen if case in run.fold.unlabeled]
