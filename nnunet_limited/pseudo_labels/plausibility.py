"""What labelled cases show about the classes of a case, and which pseudo-labels are unlike them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from nnunet_limited.data.components import ComponentRule, Components, labeled_counts
from nnunet_limited.host.cases import network_spacing
from nnunet_limited.host.plans import label_space
from nnunet_limited.losses.label_space import LabelSpace
from nnunet_limited.metrics.agreement import class_counts, mean_agreement
from nnunet_limited.pseudo_labels.sources.base import labeled_dataset

if TYPE_CHECKING:
    from nnunet_limited.runs.request import TrainRequest

# An organ of adults has up to three times the volume of another's; a few labelled cases do not show the whole range.
MAX_RATIO = 3.0


@dataclass(frozen=True)
class LabeledVolumes:
    """The smallest and the largest volume in mm³ of each foreground class or region (c,) in labelled cases.

    Ignored voxels may be of any class: they count for the largest and not for the smallest volume.
    """

    labels: LabelSpace
    smallest: np.ndarray
    largest: np.ndarray

    @classmethod
    def of(cls, labels: LabelSpace, cases: Iterable[tuple[np.ndarray, Sequence[float]]]) -> LabeledVolumes:
        """Return those of ``cases``: their counts and the spacing of their voxels in mm.

        Counts are those of :func:`~nnunet_limited.data.components.label_counts`.
        """
        annotated, possible = [], []
        for counts, spacing in cases:
            ignored, *voxels = counts[0] * float(np.prod(spacing))
            annotated.append(np.array(voxels))
            possible.append(np.array(voxels) + ignored)
        none = np.zeros((1, len(labels.foreground_values)))
        return cls(labels, np.min(annotated or none, axis=0), np.max(possible or none, axis=0))

    def plausibility(self, label: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
        """Return how far the volume of each class (c,) of a ``label`` is in the range of labelled cases, in [0, 1].

        It is 1 up to a third of the smallest and three times the largest volume, and beyond the ratio to these limits:
        0 for a class that is missing although every labelled case has it. A class that no labelled case has is not
        judged.
        """
        volumes = class_volumes(self.labels, label, spacing)
        low, high = self.smallest / MAX_RATIO, self.largest * MAX_RATIO
        with np.errstate(divide="ignore", invalid="ignore"):
            too_small = np.where(volumes < low, volumes / low, 1.0)
            too_large = np.where((volumes > high) & (high > 0), high / volumes, 1.0)
        return np.minimum(too_small, too_large)

    def stability(self, agreement: np.ndarray, label: np.ndarray, spacing: Sequence[float]) -> float:
        """Return the stability in [0, 1] of a ``label``: the mean over its classes of agreement times plausibility.

        ``agreement`` (c,) is the Dice of several labels of the case, NaN for a class that none of them has. Such a
        class is left out, unless every labelled case has it: then it counts 0. So a case in which every model finds
        nothing is not the most stable one. Without any class that counts, nothing is known, and the stability is 0.
        """
        counted = np.isfinite(agreement) | (self.smallest > 0)
        if not counted.any():
            return 0.0
        values = np.nan_to_num(agreement) * self.plausibility(label, spacing)
        return float(values[counted].mean())


def class_volumes(labels: LabelSpace, label: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Return the volume of each foreground class or region (c,) of label values (*spatial), in mm³."""
    classes = len(labels.foreground_values)
    counts = np.bincount(labels.foreground_maps(label).ravel(), minlength=1 + classes)[1:]
    return counts * float(np.prod(spacing))


@dataclass(frozen=True)
class Expectation:
    """What the labelled cases of some folds show: the volumes of the classes, and which are one component."""

    names: tuple[str, ...]
    volumes: LabeledVolumes
    rule: ComponentRule

    @classmethod
    def of(cls, model: TrainRequest, folds: Sequence[int | str], components: Components) -> Expectation:
        """Return what the labelled cases of ``folds`` show; ``components`` is the setting of the rule."""
        dataset, planned = labeled_dataset(model, folds), model.planned
        labels, managers = label_space(planned.label_manager), planned.managers(model.configuration)

        counts = labeled_counts(labels, Path(dataset.source_folder), dataset.identifiers, flat=False)
        spacings = [network_spacing(dataset.load_case(case)[3], *managers) for case in dataset.identifiers]
        volumes = LabeledVolumes.of(labels, zip(counts, spacings, strict=True))
        return cls(tuple(planned.description.foreground), volumes, ComponentRule.of(components, labels, counts))

    def agreement(self, label: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Return the Dice (c,) of two labels (*spatial) of one case, NaN for a class that is in neither."""
        maps = [torch.from_numpy(self.rule.labels.foreground_maps(one)) for one in (label, other)]
        return mean_agreement([class_counts(maps[0], maps[1], len(self.names))])

    def islands(self, label: np.ndarray) -> np.ndarray:
        """Return where a ``label`` (*spatial) has islands of a class that is one component."""
        return np.asarray(self.rule.in_case(label).any(0))

    def about(
        self, label: np.ndarray, confidence: np.ndarray, agreement: np.ndarray, spacing: Sequence[float]
    ) -> dict[str, Any]:
        """Return the record of a pseudo-label: mean confidence of the foreground in percent, stability, odd classes.

        The latter are ``implausible``: classes that are missing although all labelled cases have them, or whose volume
        is far out of the range of the labelled ones.
        """
        seen = confidence[label > 0]
        plausible = self.volumes.plausibility(label, spacing)
        return {
            "confidence": round(100 * float(seen.mean()), 2) if seen.size else None,
            "stability": self.volumes.stability(agreement, label, spacing),
            "implausible": [name for name, value in zip(self.names, plausible, strict=True) if value < 1],
        }
