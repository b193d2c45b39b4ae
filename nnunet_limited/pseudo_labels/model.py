"""Pseudo-labels from a trained model: its own prediction for a fold, or that of the ensemble of all folds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from nnunet_limited.data.loaders import UnlabeledDataset
from nnunet_limited.data.pseudo_label_store import PseudoLabels, load_for_fold, open_set, set_folder
from nnunet_limited.engine.run import describe_run, preprocess_unlabeled
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.plans import plans_manager
from nnunet_limited.planners.preprocessing import require_preprocessed
from nnunet_limited.runs.predict import Predictor, trained
from nnunet_limited.runs.request import TrainRequest
from nnunet_limited.splits import Split
from nnunet_limited.util.files import one_at_a_time


@dataclass(frozen=True)
class Said:
    """A label on the grid of a scan, its confidence and its stability in [0, 1], and what else is known of it."""

    label: np.ndarray
    confidence: np.ndarray
    stability: float | None = None
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSource:
    """The folds of one trainer on one split, and what to call the pseudo-labels they make.

    With ``ensemble`` all folds predict together. Otherwise each predicts for itself, because the other folds have
    learnt from the labels that it is validated on.
    """

    model: TrainRequest
    name: str
    previous: str | None = None
    ensemble: bool = False
    asks_sources: ClassVar[bool] = False

    def check_sources(self, folds: Sequence[int | str]) -> None:
        """Raise LimitedError for what is wrong whatever the models of ``folds`` are."""

    def told(self, labels: PseudoLabels) -> list[str]:
        """Return what there is to say of a set that has been made."""
        return []

    def check(self, folds: Sequence[int | str]) -> list[PseudoLabels]:
        """Return the sets to make, which may be begun; raise LimitedError for what cannot be made."""
        self.model.planned.configuration(self.model.configuration)
        self.check_sources(folds)
        split = self.model.planned.split
        if self.previous == self.name:
            raise LimitedError(f"--previous {self.previous} is the --name to make; give them different names")
        for fold in folds:
            split.fold(fold)
        if self.ensemble:
            _refuse_hidden_labels(split, folds)
            return [self._begin(split, "ensemble", folds)]
        return [self._begin(split, f"fold_{fold}", [fold]) for fold in folds]

    def _begin(self, split: Split, folder: str, members: Sequence[int | str]) -> PseudoLabels:
        preprocessed = self.model.folder
        checkpoints = self.checkpoints(split, members)
        if self.previous is not None:
            for fold in members:
                load_for_fold(preprocessed, split, self.previous, "all" if self.ensemble else fold)
        origin = {
            "source": "model",
            "split": split.name,
            "split_hash": split.hash,
            "trainer": self.model.trainer,
            "plans": self.model.plans,
            "configuration": self.model.configuration,
            "folds": list(members),
            "checkpoints": checkpoints,
            "previous": self.previous,
            **self.further_origin(sorted({case for fold in members for case in split.fold(fold).train})),
        }
        file_ending = self.model.planned.description.file_ending
        return open_set(set_folder(preprocessed, split, self.name) / folder, file_ending, origin)

    def checkpoints(self, split: Split, members: Sequence[int | str]) -> dict[str, str]:
        """Return the hash of each member's checkpoint, which must be there."""
        return trained(self.model, split, members)

    def further_origin(self, cases: Sequence[str]) -> dict[str, Any]:
        """Return what else says where the pseudo-labels come from, which may depend on the labelled ``cases``."""
        return {}

    def make(self, labels: PseudoLabels, device: str, track: Callable[[list[str]], Iterable[str]]) -> PseudoLabels:
        """Predict the cases of one set that are missing; ``track`` shows how far it is.

        A second process waits for the first and goes on with what that has made.
        """
        if self._missing(labels):
            with one_at_a_time(labels.folder):
                labels = self._make(open_set(labels.folder, labels.file_ending, labels.origin), device, track)
        labels.refuse_empty()
        return labels

    def _missing(self, labels: PseudoLabels) -> list[str]:
        split = self.model.planned.split
        return sorted({c for fold in labels.origin["folds"] for c in split.fold(fold).unlabeled} - set(labels.cases))

    def _make(self, labels: PseudoLabels, device: str, track: Callable[[list[str]], Iterable[str]]) -> PseudoLabels:
        planned = self.model.planned
        plans, split, folds, cases = planned.plans, planned.split, labels.origin["folds"], self._missing(labels)
        folder = planned.cases(self.model.configuration).unlabeled
        for fold in folds:  # plans of the host leave it to the first run to preprocess them
            run = describe_run(self.model.trainer, planned, self.model.configuration, fold, {})
            preprocess_unlabeled(run)
        require_preprocessed(folder, cases, "unlabelled", "run 'nnunet-limited plan'")
        label_case = self.labeller(labels, split, plans, device)
        reader = plans_manager(plans).image_reader_writer_class()
        previous = None
        if self.previous is not None:
            previous = load_for_fold(self.model.folder, split, self.previous, "all" if self.ensemble else folds[0])
        dataset = UnlabeledDataset(str(folder), cases)
        for case in track(cases):
            data, _, _, properties = dataset.load_case(case)
            said = label_case(case, np.asarray(data[:]), properties)
            about = {"confidence": _mean_confidence(said.label, said.confidence), "stability": said.stability}
            if previous is not None:
                about["stability"] = dice(said.label, previous.read(case, reader)[0])
            labels = labels.add(case, said.label, said.confidence, properties, about | said.about, reader)
        return labels

    def labeller(
        self, labels: PseudoLabels, split: Split, plans: dict[str, Any], device: str
    ) -> Callable[[str, np.ndarray, dict[str, Any]], Said]:
        """Return the function of a case, its preprocessed image and properties that labels it."""
        predictor = Predictor(self.model.results, labels.origin["folds"], device)

        def label_case(case: str, image: np.ndarray, properties: dict[str, Any]) -> Said:
            label, confidence, members = predictor.predict(image, properties)
            return Said(label, confidence, float(np.mean([dice(label, m) for m in members])) if members else None)

        return label_case


def _refuse_hidden_labels(split: Split, folds: Sequence[int | str]) -> None:
    """Refuse an ensemble in which one fold has learnt from a label that is hidden in another."""
    hidden = {case for fold in folds for case in split.fold(fold).unlabeled}
    seen = sorted({case for fold in folds for case in split.fold(fold).train} & hidden)
    if seen:
        raise LimitedError(
            f"--ensemble: case {seen[0]!r} of split {split.name!r} is labelled in one fold and unlabelled in another, "
            "so the ensemble has seen hidden labels; leave out --ensemble, and each fold uses its own model"
        )


def _mean_confidence(label: np.ndarray, confidence: np.ndarray) -> float | None:
    """Return the mean confidence in percent over the foreground; None if there is none."""
    return round(100 * float(confidence[label > 0].mean()), 2) if (label > 0).any() else None


def dice(label: np.ndarray, other: np.ndarray) -> float:
    """Return the mean Dice of two label images over the classes that one of them has; 1 if both are empty."""
    classes = sorted({*np.unique(label), *np.unique(other)} - {0})
    if not classes:
        return 1.0
    return float(
        np.mean([2 * ((label == c) & (other == c)).sum() / ((label == c).sum() + (other == c).sum()) for c in classes])
    )
