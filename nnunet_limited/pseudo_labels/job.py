"""Pseudo-labels of the unlabelled cases of some folds: the job that makes them with a labeller, case by case."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, ClassVar

import numpy as np

from nnunet_limited.data.components import Components
from nnunet_limited.data.loaders import UnlabeledDataset
from nnunet_limited.data.pseudo_label_store import REPLACED, PseudoLabels, load_for_fold, open_set, set_folder
from nnunet_limited.engine.run import describe_run, preprocess_unlabeled
from nnunet_limited.errors import LimitedError, StaleError
from nnunet_limited.host.plans import plans_manager
from nnunet_limited.planners.case_record import CaseRecord
from nnunet_limited.planners.preprocessing import require_preprocessed
from nnunet_limited.pseudo_labels.plausibility import Expectation
from nnunet_limited.runs.predict import Predictor, trained
from nnunet_limited.runs.request import TrainRequest
from nnunet_limited.util.locks import one_at_a_time

Track = Callable[[list[str]], Iterable[str]]


@dataclass(frozen=True)
class PseudoLabel:
    """A label on the grid of a scan, its confidence (*spatial) in [0, 1], its agreement, and more for the record.

    ``agreement`` (foreground classes or regions,) in [0, 1] is that of several labels of the case on each class, NaN
    for a class that none of them has.
    """

    label: np.ndarray
    confidence: np.ndarray
    agreement: np.ndarray
    about: dict[str, Any] = field(default_factory=dict)


LabelCase = Callable[[str, np.ndarray, dict[str, Any]], PseudoLabel]


@dataclass(frozen=True)
class ModelLabeller:
    """What a job labels with: the folds of a trained ``model`` by their prediction; subclasses label differently."""

    model: TrainRequest
    components: Components = field(default="auto", kw_only=True)  # as in ComponentRule.of; islands have no confidence
    uses_sources: ClassVar[bool] = False  # whether several sources label together

    def check(self, folds: Sequence[int | str]) -> None:
        """Raise LimitedError for what is wrong whatever the models of ``folds`` are."""

    def checkpoints(self, folds: Sequence[int | str]) -> dict[str, str]:
        """Return the hash of the checkpoint of each fold; raise LimitedError if one is missing."""
        return trained(self.model, self.model.planned.split, folds)

    def origin(self, folds: Sequence[int | str]) -> dict[str, Any]:
        """Return what else the pseudo-labels of ``folds`` depend on, as JSON."""
        return {"source": "model"}

    def load(self, labels: PseudoLabels, device: str) -> LabelCase:
        """Return the function of a case, its preprocessed image and its properties that labels it."""
        predictor = Predictor(self.model.results, labels.origin["folds"], device)

        def label_case(case: str, image: np.ndarray, properties: dict[str, Any]) -> PseudoLabel:
            return PseudoLabel(*predictor.predict(image, properties))

        return label_case

    def summary_lines(self, labels: PseudoLabels) -> list[str]:
        """Return lines about a set that is complete."""
        return []


@dataclass(frozen=True)
class PseudoLabelJob:
    """The sets of pseudo-labels to make, called ``name``: one for each fold, or with ``ensemble`` one for all folds.

    Each fold labels with its own model, because the other folds were trained on labels that it is validated on.
    ``previous`` is the name of the round before, which stability compares with.
    """

    labeller: ModelLabeller
    name: str
    previous: str | None = None
    ensemble: bool = False

    @property
    def uses_sources(self) -> bool:
        """Whether several sources label together."""
        return self.labeller.uses_sources

    def check_sources(self, folds: Sequence[int | str]) -> None:
        """Raise LimitedError for what is wrong whatever the models of ``folds`` are."""
        self.labeller.check(folds)

    def check(self, folds: Sequence[int | str]) -> list[PseudoLabels]:
        """Return the sets to make, with the cases that are done; raise LimitedError for what cannot be made."""
        model, planned = self.labeller.model, self.labeller.model.planned
        planned.configuration(model.configuration)
        self.labeller.check(folds)
        if self.previous == self.name:
            raise LimitedError(f"--previous {self.previous} is the --name to make; give them different names")
        for fold in folds:
            planned.split.fold(fold)
        if self.ensemble:
            hidden = {case for fold in folds for case in planned.split.fold(fold).unlabeled}
            seen = sorted({case for fold in folds for case in planned.split.fold(fold).train} & hidden)
            if seen:
                raise LimitedError(
                    f"--ensemble: case {seen[0]!r} of split {planned.split.name!r} is labelled in one fold and "
                    "unlabelled in another, so the ensemble was trained on hidden labels; remove --ensemble, so that "
                    "each fold uses its own model"
                )
        return [self._open(name, some) for name, some in self._sets(folds)]

    def _sets(self, folds: Sequence[int | str]) -> list[tuple[str, Sequence[int | str]]]:
        """Return the folder of each set to make, and the folds that label together in it."""
        return [("ensemble", folds)] if self.ensemble else [(f"fold_{fold}", [fold]) for fold in folds]

    def move_stale_aside(self, folds: Sequence[int | str]) -> None:
        """Move sets aside that a model made before it was trained again."""
        model = self.labeller.model
        base = set_folder(model.folder, model.planned.split, self.name)
        for name, some in self._sets(folds):
            try:
                self._open(name, some)
            except StaleError:
                target = base / REPLACED / f"{name}_{datetime.now():%Y-%m-%d_%H-%M-%S}"
                target.parent.mkdir(exist_ok=True)
                (base / name).rename(target)

    def _open(self, folder: str, folds: Sequence[int | str]) -> PseudoLabels:
        model, split = self.labeller.model, self.labeller.model.planned.split
        checkpoints = self.labeller.checkpoints(folds)
        for fold in folds if self.previous is not None else ():
            self._previous(fold)
        origin = {
            "split": split.name,
            "split_hash": split.hash,
            "trainer": model.trainer,
            "plans": model.plans,
            "configuration": model.configuration,
            "folds": list(folds),
            "checkpoints": checkpoints,
            "previous": self.previous,
            "components": self.labeller.components,
            **self.labeller.origin(folds),
        }
        base = set_folder(model.folder, split, self.name)
        return open_set(base / folder, model.planned.description.file_ending, origin)

    def _previous(self, fold: int | str) -> PseudoLabels:
        assert self.previous is not None
        model = self.labeller.model
        return load_for_fold(model.folder, model.planned.split, self.previous, "all" if self.ensemble else fold)

    def make(self, labels: PseudoLabels, device: str, track: Track) -> PseudoLabels:
        """Label the missing cases of one set; ``track`` yields them and shows the progress.

        A second process waits for the first and continues with what that has made.
        """
        if self._missing(labels):
            with one_at_a_time(labels.folder):
                labels = self._make(open_set(labels.folder, labels.file_ending, labels.origin), device, track)
        labels.refuse_empty()
        return labels

    def _missing(self, labels: PseudoLabels) -> list[str]:
        model = self.labeller.model
        split, folder = model.planned.split, model.planned.cases(model.configuration).unlabeled
        done = {*labels.cases} - {*labels.of_other_images(folder)}
        return sorted({c for fold in labels.origin["folds"] for c in split.fold(fold).unlabeled} - done)

    def _make(self, labels: PseudoLabels, device: str, track: Track) -> PseudoLabels:
        model, folds, cases = self.labeller.model, labels.origin["folds"], self._missing(labels)
        planned, folder = model.planned, model.planned.cases(model.configuration).unlabeled
        for fold in folds:  # plans of nnU-Net leave it to the first run to preprocess them
            preprocess_unlabeled(describe_run(model.trainer, planned, model.configuration, fold, {}))
        require_preprocessed(folder, cases, "unlabelled", "run 'nnunet-limited plan'")
        label_case = self.labeller.load(labels, device)
        reader = plans_manager(planned.plans).image_reader_writer_class()
        previous = None if self.previous is None else self._previous(folds[0])
        expected = Expectation.of(model, folds, labels.origin.get("components", "all"))  # sets from before kept all
        dataset = UnlabeledDataset(str(folder), cases)
        for case in track(cases):
            data, _, _, properties = dataset.load_case(case)
            made = label_case(case, np.asarray(data[:]), properties)
            if previous is not None:
                made = replace(made, agreement=expected.agreement(made.label, previous.read(case, reader)[0]))
            confidence = np.where(expected.islands(made.label), 0.0, made.confidence)
            about = expected.about(made.label, confidence, made.agreement, properties["spacing"]) | made.about
            record = CaseRecord.read(folder, case)
            about |= {"image": record.digests["image"]} if record else {}
            labels = labels.add(case, made.label, confidence, properties, about, reader)
        return labels

    def summary_lines(self, labels: PseudoLabels) -> list[str]:
        """Return lines about a set that is complete."""
        return self.labeller.summary_lines(labels)
