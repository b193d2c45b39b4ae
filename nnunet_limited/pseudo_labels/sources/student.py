"""The student: trained models of some folds."""

import numpy as np
import torch

from nnunet_limited.errors import LimitedError
from nnunet_limited.metrics.agreement import class_counts, mean_agreement
from nnunet_limited.prompters.prompter import ModelCard
from nnunet_limited.pseudo_labels.sources.base import Scan, SourceContext, SourcePrediction, without_small_components
from nnunet_limited.runs.predict import Predictor, trained


class StudentSource:
    """The models of some folds. A labelled case is predicted by a fold that was not trained on its label.

    Neither was that fold trained on a label that the other folds of the job must not use.
    """

    def __init__(self, context: SourceContext) -> None:
        """Load the models of the job's folds; those of other folds are loaded when they are needed."""
        assert context.model is not None
        self.context, self.model, self.split = context, context.model, context.model.planned.split
        self.about = ModelCard(f"student {self.model.results.name}")
        self.train_cases = {case for fold in context.folds for case in self.split.fold(fold).train}
        every_fold = Predictor(self.model.results, context.folds, context.device)
        self.predictors: dict[int | None, Predictor] = {None: every_fold}

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
        """Return the models' prediction without small components; its reliability is the agreement of the models.

        There is none for a single model, or if no model sees any foreground.
        """
        labels, fold = self.context.labels, None
        if scan.case in self.train_cases:
            fold = self.fold_without(scan.case)
            if fold is None:
                return SourcePrediction.nothing(labels.channels, scan)
            if fold not in self.predictors:
                self.predictors[fold] = Predictor(self.model.results, [fold], self.context.device)
        probability, members = self.predictors[fold].mean(scan.image)
        mine, *others = (labels.foreground_numbers(torch.from_numpy(p)[None]) for p in (probability, *members))
        counts = [class_counts(one, mine, len(labels.foreground_values)) for one in others]
        agreement = mean_agreement(counts) if counts else np.array([])
        reliability = float(np.nanmean(agreement)) if np.isfinite(agreement).any() else None
        return SourcePrediction(without_small_components(probability, labels, self.context.settings.clean), reliability)
