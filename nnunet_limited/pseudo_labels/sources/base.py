"""A source of pseudo-labels predicts where the classes of a scan are; sources of users keep to the same protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from pydantic import Field

from nnunet_limited.host.cases import PreprocessedCases
from nnunet_limited.losses.label_space import LabelSpace
from nnunet_limited.planners.preprocessing import require_preprocessed
from nnunet_limited.prompters.prompter import ModelCard
from nnunet_limited.prompters.prompts import PromptSettings, keep_components

if TYPE_CHECKING:
    from nnunet_limited.runs.request import TrainRequest


@dataclass(frozen=True)
class Scan:
    """A preprocessed case: its image (channels, *spatial) on the network's grid and the spacing of that grid.

    ``shape`` is the shape of the scan before preprocessing, ``properties`` is what nnU-Net stores with the case.
    """

    case: str
    image: np.ndarray
    spacing: tuple[float, ...]
    shape: tuple[int, ...] = ()
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LabeledScan:
    """A labelled scan with its label as probabilities (c, *spatial), NaN where it is not annotated."""

    scan: Scan
    classes: np.ndarray


@dataclass(frozen=True)
class SourcePrediction:
    """The probabilities (c, *spatial) that a source predicts, NaN where it predicts nothing.

    The first channel is the background, unless the labels are regions. ``reliability`` is the source's own estimate of
    its quality in [0, 1], None without one; ``about`` is written into the record of the pseudo-labels. ``unasked``
    (foreground classes, *spatial) marks voxels of classes that the source was not asked about, where its background
    has no meaning; None if there are none, and for regions, which are NaN there themselves.
    """

    probability: np.ndarray
    reliability: float | None = None
    about: dict[str, Any] = field(default_factory=dict)
    unasked: np.ndarray | None = None

    @classmethod
    def nothing(cls, channels: int, scan: Scan) -> SourcePrediction:
        """Return the prediction of a source that knows nothing about a scan."""
        return cls(np.full((channels, *scan.image.shape[1:]), np.nan, np.float32))


class LabelSource(Protocol):
    """A source of pseudo-labels, called with a scan and the mean prediction of the sources before it, its guess."""

    about: ModelCard

    def __call__(self, scan: Scan, guess: np.ndarray | None) -> SourcePrediction:
        """Return the prediction for a scan, without use of the scan's label; the guess is None for the first source."""
        ...


class SourceSettings(PromptSettings):
    """Settings of the sources: prompts of promptable models, and how the guess that they see is cleaned."""

    clean: float = Field(
        default=0.1, ge=0, le=1, description="components of a class below this fraction of its largest are dropped"
    )


@dataclass(frozen=True)
class SourceContext:
    """What a source may use: the labelled scans of the folds, the kind of labels, the device and the settings.

    ``registrations`` is a folder that keeps registrations between scans of the dataset. ``model`` and ``folds`` are the
    trained model of the job and its folds, None and empty without one.
    """

    labeled: Sequence[LabeledScan]
    labels: LabelSpace
    device: str
    settings: SourceSettings
    registrations: Path | None = None
    model: TrainRequest | None = None
    folds: tuple[int | str, ...] = ()


def labeled_dataset(model: TrainRequest, folds: Sequence[int | str]) -> PreprocessedCases:
    """Return the preprocessed labelled cases of ``folds``; raise LimitedError if one is missing."""
    cases = sorted({case for fold in folds for case in model.planned.split.fold(fold).train})
    folder = model.planned.cases(model.configuration).labeled
    require_preprocessed(folder, cases, "labelled", "run 'nnunet-limited plan'")
    return PreprocessedCases(str(folder), cases)


def without_small_components(probability: np.ndarray, labels: LabelSpace, fraction: float) -> np.ndarray:
    """Return probabilities (c, *spatial) with background in place of components of the hard label that are small.

    These are below a ``fraction`` of the largest component of their class.
    """
    if not fraction:
        return probability
    made = probability.copy()
    for c, mask in enumerate(labels.foreground_masks(probability), labels.first_foreground):
        dropped = mask & ~keep_components(mask, fraction)
        made[: labels.first_foreground, dropped] += made[c][dropped]
        made[c][dropped] = 0
    return made
