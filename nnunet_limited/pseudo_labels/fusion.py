"""One label from the predictions of several sources, and where it is valid.

A voxel is valid where all sources agree or their mean is confident, in slices where the sources agree enough.
Predictions are arrays (c, *spatial) of probabilities, NaN where a source predicts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from nnunet_limited.losses.label_space import LabelSpace
from nnunet_limited.prompters.outlining import known_mean
from nnunet_limited.pseudo_labels.sources.base import SourcePrediction

CONFIDENT_FOREGROUND, CONFIDENT_BACKGROUND = 0.9, 0.95
MIN_AGREEMENT = 0.5  # of a slice, without calibration
Predictions = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Calibration:
    """What labelled cases show about the sources.

    ``min_agreement`` in [0, 1] is the agreement that a valid slice needs, ``left_out[source]`` are the channels that a
    source does not predict. ``dice`` are the Dice of the sources and of their mean by name and foreground class, None
    for a class that no case has; ``cases`` is the number of cases.
    """

    min_agreement: float = MIN_AGREEMENT
    left_out: Mapping[str, Sequence[int]] = field(default_factory=dict)
    dice: dict[str, list[float | None]] = field(default_factory=dict)
    cases: int = 0

    def record(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"agreement": self.min_agreement, "left_out": self.left_out, "dice": self.dice, "cases": self.cases}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> Calibration:
        """Return what :meth:`record` returned."""
        return cls(record["agreement"], record["left_out"], record["dice"], record["cases"])


@dataclass(frozen=True)
class FusedLabel:
    """The mean of the sources (c, *spatial), where it is valid (*spatial), and the agreement of each slice (n,)."""

    probability: np.ndarray
    valid: np.ndarray
    agreement: np.ndarray


def fuse(predictions: Predictions, labels: LabelSpace, axis: int, calibration: Calibration | None = None) -> FusedLabel:
    """Return the mean of ``predictions`` and where it is valid; slices lie across ``axis`` of the volume."""
    calibration = calibration or Calibration()
    used = list(_without_left_out(predictions, calibration.left_out, labels).values())
    mean = mean_prediction(used, labels)
    label = labels.hard_label(mean)
    unanimous = np.ones(label.shape, bool)  # one row, or one for each region
    vote_count = np.zeros(label.shape, int)
    for p in used:
        valid = np.isfinite(p)
        unanimous &= labels.hard_label(labels.normalized(np.where(valid, p, mean))) == label
        vote_count += valid if labels.overlapping else valid.any(0)
    confident = labels.is_confident(mean, CONFIDENT_FOREGROUND, CONFIDENT_BACKGROUND)
    fused_valid = ((unanimous & (vote_count > 1)) | confident).all(0) & (vote_count > 0).any(0)
    agreement = slice_agreement(used, labels, axis)
    enough = agreement >= calibration.min_agreement
    fused_valid &= enough.reshape([-1 if a == axis else 1 for a in range(fused_valid.ndim)])
    return FusedLabel(mean, fused_valid, agreement)


def slice_agreement(predictions: Sequence[np.ndarray], labels: LabelSpace, axis: int) -> np.ndarray:
    """Return the agreement on the foreground of each slice (n,): the mean IoU of all pairs of sources and classes.

    Voxels count where both sources predict; 1 where no source sees foreground, or only one source predicts.
    """
    total, count = np.zeros((2, predictions[0].shape[axis + 1]))
    masks, across = [(p > 0.5, np.isfinite(p)) for p in predictions], tuple(a for a in range(3) if a != axis)
    for (mask, valid), (other, other_valid) in combinations(masks, 2):
        for c in range(labels.first_foreground, len(mask)):
            intersection = (mask[c] & other[c]).sum(across)
            union = ((mask[c] | other[c]) & valid[c] & other_valid[c]).sum(across)
            total += intersection / np.maximum(union, 1)
            count += union > 0
    return np.where(count > 0, total / np.maximum(count, 1), 1.0)


def mean_prediction(predictions: Sequence[np.ndarray], labels: LabelSpace) -> np.ndarray:
    """Return the mean over the sources that predict a voxel; background where none does."""
    return labels.normalized(np.nan_to_num(known_mean(predictions)))


def votes(predictions: Mapping[str, SourcePrediction], labels: LabelSpace) -> dict[str, np.ndarray]:
    """Return the probabilities of sources, NaN where another source sees a class that one was not asked about."""
    made = {name: prediction.probability for name, prediction in predictions.items()}
    if all(prediction.unasked is None for prediction in predictions.values()):
        return made
    masks = {name: labels.foreground_masks(np.nan_to_num(p)) for name, p in made.items()}
    for name, prediction in predictions.items():
        others = [mask for other, mask in masks.items() if other != name]
        if prediction.unasked is not None and others:
            without_vote = (np.any(others, axis=0) & prediction.unasked).any(0)
            made[name] = np.where(without_vote, np.float32(np.nan), prediction.probability)
    return made


def _without_left_out(
    predictions: Predictions, left_out: Mapping[str, Sequence[int]], labels: LabelSpace
) -> dict[str, np.ndarray]:
    """Return the predictions with NaN where a source is left out.

    A source is left out for single regions. For classes it is left out of all classes wherever it or the mean of the
    other sources sees a class that it is left out for, because its background would be a vote against that class.
    """
    used = dict(predictions)
    for name, channels in left_out.items():
        if name not in used or len(used) < 2:
            continue
        p = predictions[name].astype(np.float32)
        if labels.overlapping:
            p[list(channels)] = np.nan
        elif len(channels) == len(p) - 1:
            del used[name]
            continue
        else:
            others = mean_prediction([other for key, other in predictions.items() if key != name], labels)
            seen = np.isin(others.argmax(0), channels) | np.isin(np.nan_to_num(p).argmax(0), channels)
            p[:, seen] = np.nan
        used[name] = p
    return used
