"""Sources calibrated on labelled cases: which to leave out for a class, and the agreement that a slice needs."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from nnunet_limited.losses.label_space import LabelSpace
from nnunet_limited.pseudo_labels.fusion import MIN_AGREEMENT, Calibration, Predictions, fuse, mean_prediction

MIN_GAIN = 0.01  # Dice that leaving out a source must gain
KEPT_DICE = 0.9  # Dice of the valid slices, as a fraction of that of whole cases
Case = tuple[np.ndarray, Predictions]


def calibrate(
    cases: Sequence[Case], labels: LabelSpace, axes: Sequence[int], decide: bool = True, dependent: Collection[str] = ()
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
    names, first = tuple(cases[0][1]), labels.first_foreground
    dice = {}
    for some in (some for n in range(1, len(names) + 1) for some in combinations(names, n)):
        means = ((mean_prediction([predictions[n] for n in some], labels), truth) for truth, predictions in cases)
        dice[some] = _finite_mean([_dice(mean, truth, labels) for mean, truth in means])
    shown = {"mean": dice[names]} | {name: dice[name,] for name in names}
    known = {n: [round(float(d), 4) if np.isfinite(d) else None for d in some[first:]] for n, some in shown.items()}
    calibration = Calibration(dice=known, cases=len(cases))
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
        dice = _finite_mean(_dice(fused.probability, truth, labels, axis))
        slices += [(a, d) for a, d in zip(fused.agreement, dice, strict=True) if np.isfinite(d)]
    target = KEPT_DICE * float(np.nanmean(wholes))
    for limit in np.arange(0, 1, 0.05):
        valid = [dice for agreement, dice in slices if agreement >= limit]
        if valid and np.mean(valid) >= target:
            return round(float(limit), 2)
    return MIN_AGREEMENT


def _finite_mean(values: ArrayLike) -> np.ndarray:
    """Return the mean over the first axis of the finite values, NaN where there is none."""
    return np.ma.filled(np.ma.masked_invalid(values).mean(0), np.nan)


def _dice(p: np.ndarray, truth: np.ndarray, labels: LabelSpace, axis: int | None = None) -> np.ndarray:
    """Return the Dice of each channel (c,), or of each of its slices across ``axis`` (c, n).

    It is NaN for the background, and for a class that neither label has.
    """
    known, over = np.isfinite(truth).all(0), tuple(a + 1 for a in range(3) if a != axis)
    mine, theirs = labels.masks(p) & known, (truth > 0.5) & known
    size = mine.sum(over) + theirs.sum(over)
    dice = np.where(size > 0, 2 * (mine & theirs).sum(over) / np.maximum(size, 1), np.nan)
    dice[: labels.first_foreground] = np.nan
    return dice
