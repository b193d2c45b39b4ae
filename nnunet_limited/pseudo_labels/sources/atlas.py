"""Atlases: the labelled cases, registered to the scan."""

from collections.abc import Sequence

import numpy as np

from nnunet_limited.errors import LimitedError
from nnunet_limited.prompters.prompter import ModelCard
from nnunet_limited.pseudo_labels.registration import Atlas, propagate_atlases
from nnunet_limited.pseudo_labels.sources.base import Scan, SourceContext, SourcePrediction, labeled_dataset
from nnunet_limited.runs.request import TrainRequest


class AtlasSource:
    """The labelled cases, registered to the scan; a case is never its own atlas."""

    def __init__(self, context: SourceContext) -> None:
        """Take the labelled scans; raise LimitedError for a label that is not complete."""
        self.about, self.context = ModelCard("atlas", code_licence="Apache-2.0 (SimpleITK)"), context
        for one in context.labeled:
            if np.isnan(one.classes).any():
                raise _incomplete(one.scan.case)

    def __call__(self, scan: Scan, guess: np.ndarray | None) -> SourcePrediction:
        """Return the labels of the other labelled cases, moved to the scan and averaged."""
        context, channel = self.context, self.context.settings.channel
        others = [one for one in context.labeled if one.scan.case != scan.case]
        if not others:
            return SourcePrediction.nothing(context.labels.channels, scan)
        atlases = [Atlas(one.scan.image[channel], one.classes, one.scan.spacing) for one in others]
        probability, seconds = propagate_atlases(scan.image[channel], scan.spacing, atlases, context.registrations)
        about = {"atlases": len(seconds), "registration_seconds": round(sum(seconds), 2)}
        return SourcePrediction(probability, about=about)

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
