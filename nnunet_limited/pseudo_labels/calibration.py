"""Sources calibrated on labelled cases: which to leave out for a class, and the agreement that a slice needs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from nnunet_limited.losses.label_space import LabelSpace
from nnunet_limited.pseudo_labels.fusion import (
    MIN_AGREEMENT,
    Calibration,
    Predictions,
    fuse,
    mean_prediction,
    sum_slices,
)

MIN_GAIN = 0.01  # Dice that leaving out a source must gain
KEPT_DICE = 0.9  # Dice of the valid slices, as a fraction of that of whole cases
Case = tuple[np.ndarray, Predictions]


def calibrate(
    cases: Sequence[Case],
    labels: LabelSpace,
    axes: Sequence[int],
    decide: bool = True,
    dependent: Collection[str] = (),
) -> Calibration:
    """Return the calibration by labelled cases: their labels as probabilities (c, *spatial), NaN where unknown.

    With each label come the predictions of the sources, and in ``axes`` the axis across which its slices lie. Sources
    are left out for a class where the mean without them has a Dice better by more than a hundredth; all combinations
    are tried but those of ``dependent`` sources alone, which outline what others predict. The agreement that slices
    need is the smallest at which they have 0.9 of the mean Dice of whole cases. Fewer than two cases change nothing;
    without ``decide`` only the Dice is computed.
    """
    if len(cases) < 2:
        return Calibration(cases=len(cases))
    names = tuple(cases[0][1])
    dice = {some: _mean_dice(cases, some, labels) for n in range(1, len(names) + 1) for some in combinations(names, n)}
    shown = {"mean": dice[names]} | {name: dice[name,] for name in names}
    first = labels.first_foreground
    calibration = Calibration(
        dice={name: [_rounded(d) for d in values[first:]] for name, values in shown.items()}, cases=len(cases)
    )
    if not decide or len(names) < 2:
        return calibration
    left_out: dict[str, list[int]] = {}
    for c in range(first, len(cases[0][0])):
        best, chosen = dice[names][c], names
        for some in sorted(dice, key=len, reverse=True):
            if dice[some][c] > best + MIN_GAIN and not set(some) <= set(dependent):
                best, chosen = dice[some][c], some
        for name in set(names) - set(chosen):
            left_out.setdefault(name, []).append(c)
    calibration = replace(calibration, left_out={name: tuple(c) for name, c in sorted(left_out.items())})
    return replace(calibration, min_agreement=_min_agreement(cases, labels, axes, calibration))


def _min_agreement(cases: Sequence[Case], labels: LabelSpace, axes: Sequence[int], calibration: Calibration) -> float:
    """Return the smallest agreement at which the mean Dice of slices with at least so much is high enough."""
    slices: list[tuple[float, float]] = []
    wholes = []
    for (truth, predictions), axis in zip(cases, axes, strict=True):
        fused = fuse(predictions, labels, axis, calibration)
        wholes.append(_dice(fused.probability, truth, labels))
        dice = _slice_dice(fused.probability, truth, labels, axis)
        slices += [(a, d) for a, d in zip(fused.agreement, dice, strict=True) if np.isfinite(d)]
    target = KEPT_DICE * float(np.nanmean(wholes))
    for limit in np.arange(0, 1, 0.05):
        valid = [dice for agreement, dice in slices if agreement >= limit]
        if valid and np.mean(valid) >= target:
            return round(float(limit), 2)
    return MIN_AGREEMENT


def _rounded(dice: float) -> float | None:
    return round(float(dice), 4) if np.isfinite(dice) else None


def _mean_dice(cases: Sequence[Case], names: Sequence[str], labels: LabelSpace) -> np.ndarray:
    """Return the Dice (c,) of the mean of some sources, averaged over the cases that have the class."""
    each = [
        _dice(mean_prediction([predictions[n] for n in names], labels), truth, labels) for truth, predictions in cases
    ]
    return _finite_mean(np.array(each))


def _dice(p: np.ndarray, truth: np.ndarray, labels: LabelSpace) -> np.ndarray:
    """Return the Dice of each channel (c,), NaN for the background and for a class that is in neither label."""
    return _dice_table(p, truth, labels, None)[:, 0]


def _slice_dice(p: np.ndarray, truth: np.ndarray, labels: LabelSpace, axis: int) -> np.ndarray:
    """Return the mean Dice over the classes of each slice (n,), NaN where there is none."""
    return _finite_mean(_dice_table(p, truth, labels, axis))


def _finite_mean(table: np.ndarray) -> np.ndarray:
    """Return the mean over the first axis of the finite values, NaN where there is none."""
    known = np.isfinite(table)
    total = np.where(known, table, 0).sum(0)
    return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)


def _dice_table(p: np.ndarray, truth: np.ndarray, labels: LabelSpace, axis: int | None) -> np.ndarray:
    """Return the Dice of each channel in each slice (c, n), or in the whole volume (c, 1)."""
    known = np.isfinite(truth).all(0)
    masks = labels.masks(p)
    made = np.full((len(p), 1 if axis is None else truth.shape[axis + 1]), np.nan)
    for c in range(labels.first_foreground, len(p)):
        mine, theirs = masks[c] & known, (np.where(known, truth[c], 0) > 0.5) & known
        both, a, b = (
            np.atleast_1d(one.sum() if axis is None else sum_slices(one, axis)) for one in (mine & theirs, mine, theirs)
        )
        made[c] = np.where(a + b > 0, 2 * both / np.maximum(a + b, 1), np.nan)
    return made
