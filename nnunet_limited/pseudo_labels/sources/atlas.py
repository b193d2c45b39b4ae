"""Atlases: the labelled cases, registered to the scan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnunet_limited.errors import LimitedError
from nnunet_limited.host.cases import PreprocessedCases
from nnunet_limited.planners.preprocessing import require_preprocessed
from nnunet_limited.prompters.prompter import ModelCard
from nnunet_limited.pseudo_labels.registration import Atlas, propagate_atlases
from nnunet_limited.pseudo_labels.sources.base import Scan, SourceContext, SourcePrediction
from nnunet_limited.runs.request import TrainRequest


class AtlasSource:
    """The labelled cases, registered to the scan; a case is never its own atlas."""

    def __init__(self, context: SourceContext) -> None:
        """Take the labelled scans; raise LimitedError for a label that is not complete."""
        self.about = ModelCard("atlas", code_licence="Apache-2.0 (SimpleITK)")
        self.labeled, self.channel, self.registrations = (
            context.labeled,
            context.settings.channel,
            context.registrations,
        )
        self.channels = context.labels.channels
        for one in context.labeled:
            if np.isnan(one.classes).any():
                raise incomplete(one.scan.case)

    def __call__(self, scan: Scan, guess: np.ndarray | None) -> SourcePrediction:
        """Return the labels of the other labelled cases, moved to the scan and averaged."""
        others = [one for one in self.labeled if one.scan.case != scan.case]
        if not others:
            return SourcePrediction.nothing(self.channels, scan)
        atlases = [Atlas(one.scan.image[self.channel], one.classes, one.scan.spacing) for one in others]
        probability, seconds = propagate_atlases(scan.image[self.channel], scan.spacing, atlases, self.registrations)
        about = {"atlases": len(seconds), "registration_seconds": round(sum(seconds), 2)}
        return SourcePrediction(probability, about=about)


def check(argument: str, model: TrainRequest, folds: Sequence[int | str]) -> None:
    """Raise LimitedError for labelled cases of ``folds`` that are annotated in part."""
    planned = model.planned
    ignore = planned.description.ignore
    if ignore is None:
        return
    cases = sorted({case for fold in folds for case in planned.split.fold(fold).train})
    folder = planned.cases(model.configuration).labeled
    require_preprocessed(folder, cases, "labelled", "run 'nnunet-limited plan'")
    dataset = PreprocessedCases(str(folder), cases)
    for case in cases:
        if (np.asarray(dataset.load_case(case)[1][:]) == ignore).any():
            raise incomplete(case)


def incomplete(case: str) -> LimitedError:
    """Return the error for an atlas that is annotated in part."""
    return LimitedError(
        f"atlas: case {case!r} is annotated in part only and cannot be registered to others; remove atlas from "
        "--sources"
    )


def load(argument: str, context: SourceContext) -> AtlasSource:
    """Return the labelled cases as atlases."""
    return AtlasSource(context)
