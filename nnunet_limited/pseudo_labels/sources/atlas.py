"""Atlases: the labelled cases, registered to the scan."""

from collections.abc import Sequence

import numpy as np

from nnunet_limited.errors import LimitedError
from nnunet_limited.prompters.prompter import ModelCard
from nnunet_limited.pseudo_labels.registration import Atlas, propagate_atlases
from nnunet_limited.pseudo_labels.sources.base import Scan, SourceContext, SourcePrediction, labeled_dataset
from nnunet_limited.runs.request import TrainRequest
from nnunet_limited.splits.groups import compiled, group_of


class AtlasSource:
    """The labelled cases, registered to the scan; a labelled case is no atlas of itself, nor of its patient's others.

    Sources are calibrated on labelled cases: there an atlas of the same patient would be better than it is elsewhere.
    """

    def __init__(self, context: SourceContext) -> None:
        """Take the labelled scans; raise LimitedError for a label that is not complete."""
        self.about, self.context = ModelCard("atlas", code_licence="Apache-2.0 (SimpleITK)"), context
        for one in context.labeled:
            if np.isnan(one.classes).any():
                raise _incomplete(one.scan.case)

    def __call__(self, scan: Scan, guess: np.ndarray | None) -> SourcePrediction:
        """Return the labels of the other labelled cases, moved to the scan and averaged."""
        context, channel = self.context, self.context.settings.channel
        is_labeled = any(one.scan.case == scan.case for one in context.labeled)
        mine = self._patient(scan.case) if is_labeled else None
        others = [one for one in context.labeled if self._patient(one.scan.case) != mine]
        if not others:
            return SourcePrediction.nothing(context.labels.channels, scan)
        atlases = [Atlas(one.scan.image[channel], one.classes, one.scan.spacing) for one in others]
        probability, seconds = propagate_atlases(scan.image[channel], scan.spacing, atlases, context.registrations)
        about = {"atlases": len(seconds), "registration_seconds": round(sum(seconds), 2)}
        return SourcePrediction(probability, about=about)

    def _patient(self, case: str) -> str | None:
        """Return the patient of a labelled case, as the split groups cases; without groups each case is one."""
        model = self.context.model
        group_by = model.planned.split.info.get("group_by") if model is not None else None
        return case if group_by is None else group_of(case, compiled(group_by, "--group-by"))

    @staticmethod
    def check(argument: str, model: TrainRequest, folds: Sequence[int | str]) -> None:
        """Raise LimitedError for labelled cases of ``folds`` that are annotated in part."""
        ignore = model.planned.description.ignore
        if ignore is None:
            return
        dataset = labeled_dataset(model, folds)
        for case in dataset.identifiers:
            if (np.asarray(dataset.load_case(case)[1][:]) == ignore).any():
                raise _incomplete(case)


def _incomplete(case: str) -> LimitedError:
    return LimitedError(
        f"atlas: case {case!r} is annotated in part only and cannot be registered to others; remove atlas from "
        "--sources"
    )
