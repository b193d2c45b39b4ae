"""The student: trained models of some folds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnunet_limited.errors import LimitedError
from nnunet_limited.losses.label_space import LabelSpace
from nnunet_limited.prompters.prompter import ModelCard
from nnunet_limited.pseudo_labels.fusion import label_dice
from nnunet_limited.pseudo_labels.sources.base import (
    Scan,
    SourceContext,
    SourcePrediction,
    SourceSettings,
    without_small_components,
)
from nnunet_limited.runs.predict import Predictor, trained
from nnunet_limited.runs.request import TrainRequest
from nnunet_limited.splits import Split


class StudentSource:
    """The models of some folds. A labelled case is predicted by a fold that was not trained on its label.

    Neither was that fold trained on a label that the other folds of the job must not use.
    """

    def __init__(
        self,
        model: TrainRequest,
        folds: Sequence[int | str],
        split: Split,
        labels: LabelSpace,
        settings: SourceSettings,
        device: str,
    ) -> None:
        """Load the models of ``folds``; those of other folds are loaded when they are needed."""
        self.about, self.model, self.results = ModelCard(f"student {model.results.name}"), model, model.results
        self.split, self.labels, self.settings, self.device = split, labels, settings, device
        self.train_cases = {case for fold in folds for case in split.fold(fold).train}
        self.predictors: dict[int | None, Predictor] = {None: Predictor(self.results, list(folds), device)}

    def fold_without(self, case: str) -> int | None:
        """Return a fold trained on labels of this job only, but not on that of ``case``; None if there is none."""
        for number, fold in enumerate(self.split.folds):
            if case not in fold.train and self.train_cases.issuperset(fold.train):
                try:
                    trained(self.model, self.split, [number])
                except LimitedError:  # not there, or of another split or other plans
                    continue
                return number
        return None

    def __call__(self, scan: Scan, guess: np.ndarray | None) -> SourcePrediction:
        """Return the models' prediction without small components; its reliability is the agreement of the models."""
        fold = None
        if scan.case in self.train_cases:
            fold = self.fold_without(scan.case)
            if fold is None:
                return SourcePrediction.nothing(self.labels.channels, scan)
        if fold is not None and fold not in self.predictors:
            self.predictors[fold] = Predictor(self.results, [fold], self.device)
        probability, members = self.predictors[fold].mean(scan.image)
        label, *others = (self.labels.hard_label(p) for p in (probability, *members))
        reliability = float(np.mean([label_dice(label, other) for other in others])) if others else None
        return SourcePrediction(without_small_components(probability, self.labels, self.settings.clean), reliability)


def load(argument: str, context: SourceContext) -> StudentSource:
    """Return the models of the job."""
    assert context.model is not None
    split = context.model.planned.split
    return StudentSource(context.model, context.folds, split, context.labels, context.settings, context.device)
