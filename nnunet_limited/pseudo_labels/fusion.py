"""One label from several sources, and where not to trust it.

A voxel is kept where all sources agree or the mean of them is sure. How far they must agree in a slice is calibrated on
labelled cases, and what hurts there is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

SURE_FOREGROUND, SURE_BACKGROUND = 0.9, 0.95
AGREEMENT = 0.5  # of a slice at the least, where nothing says better
HURTS = 0.01  # Dice that must be gained by leaving a source out
Probabilities = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Trust:
    """What is known of the sources: ``left_out[source]`` are channels it does not speak for; ``agreement`` in [0, 1].

    ``dice`` are the Dice of the sources and of their mean on labelled cases, by name and channel; ``cases`` how many.
    """

    agreement: float = AGREEMENT
    left_out: dict[str, tuple[int, ...]] = field(default_factory=dict)
    dice: dict[str, list[float | None]] = field(default_factory=dict)
    cases: int = 0

    def record(self) -> dict[str, Any]:
        """Return it as JSON."""
        left_out = {name: list(channels) for name, channels in self.left_out.items()}
        return {"agreement": self.agreement, "left_out": left_out, "dice": self.dice, "cases": self.cases}


@dataclass(frozen=True)
class Fused:
    """The mean of the sources (c, *spatial), where it is kept (*spatial), and the agreement of each slice (n,)."""

    probability: np.ndarray
    kept: np.ndarray
    agreement: np.ndarray


def fuse(sources: Probabilities, trust: Trust, regions: bool, axis: int) -> Fused:
    """Return the mean of the ``sources``, each (c, *spatial) with NaN where it says nothing, and where to keep it.

    The first channel is the background, but with overlapping ``regions``. Slices lie across ``axis`` of the volume.
    """
    heard = _heard(sources, trust.left_out, regions)
    mean = _mean(list(heard.values()), regions)
    hard = _hard(mean, regions)
    agree: np.ndarray = np.ones(hard.shape, bool)  # one row, or with regions one for each
    voices = np.zeros(hard.shape, int)
    for p in heard.values():
        said = np.isfinite(p)
        agree &= _hard(_normalised(np.where(said, p, mean), regions), regions) == hard
        voices += said if regions else said.any(0)
    kept = ((agree & (voices > 1)) | _sure(mean, regions)).all(0) & (voices > 0).any(0)
    between = agreement(list(heard.values()), regions, axis)
    kept &= _along(between >= trust.agreement, axis, kept.ndim)
    return Fused(mean, kept, between)


def agreement(sources: Sequence[np.ndarray], regions: bool, axis: int) -> np.ndarray:
    """Return how far the sources agree on the foreground of each slice (n,), the mean IoU of pairs and channels.

    Counted are voxels of which both speak; 1 where none of them sees any, and where only one of them speaks.
    """
    first = 0 if regions else 1
    size = sources[0].shape[axis + 1]
    total, count = np.zeros(size), np.zeros(size)
    masks = [(p > 0.5, np.isfinite(p)) for p in sources]
    for (mask, said), (other, also) in combinations(masks, 2):
        for c in range(first, len(mask)):
            both = _per_slice(mask[c] & other[c], axis)
            either = _per_slice((mask[c] | other[c]) & said[c] & also[c], axis)
            total += both / np.maximum(either, 1)
            count += either > 0
    return np.where(count > 0, total / np.maximum(count, 1), 1.0)


def calibrate(
    cases: Sequence[tuple[np.ndarray, Probabilities]],
    regions: bool,
    axes: Sequence[int],
    decide: bool = True,
    dependent: Collection[str] = (),
) -> Trust:
    """Return what labelled cases teach: their truth as probabilities (c, *spatial), NaN where unknown, and the sources.

    A source is left out for a class where the mean Dice is better by more than a hundredth without it, tried for all
    combinations but those of ``dependent`` sources alone, which outline what others have seen. Slices must agree as
    much as lets the kept ones have 0.9 of the mean Dice of whole cases. Nothing is learnt from fewer than two cases;
    without ``decide`` the Dice is told and nothing else.
    """
    if len(cases) < 2:
        return Trust(cases=len(cases))
    names = list(cases[0][1])
    first = 0 if regions else 1
    channels = range(first, len(cases[0][0]))
    combined = {
        some: _scores(cases, some, regions) for n in range(1, len(names) + 1) for some in combinations(names, n)
    }
    every = tuple(names)
    told = {"mean": combined[every]} | {name: combined[name,] for name in names}
    trust = Trust(dice={name: [_rounded(d) for d in dice[first:]] for name, dice in told.items()}, cases=len(cases))
    if not decide or len(names) < 2:
        return trust
    left_out: dict[str, list[int]] = {}
    for c in channels:
        best, chosen = combined[every][c], every
        for some in sorted(combined, key=len, reverse=True):
            if combined[some][c] > best + HURTS and not set(some) <= set(dependent):
                best, chosen = combined[some][c], some
        for name in set(names) - set(chosen):
            left_out.setdefault(name, []).append(c)
    trust = replace(trust, left_out={name: tuple(c) for name, c in sorted(left_out.items())})
    slices: list[tuple[float, float]] = []
    wholes = []
    for (truth, sources), axis in zip(cases, axes, strict=True):
        fused = fuse(sources, trust, regions, axis)
        wholes.append(_dice(fused.probability, truth, regions))
        dice = _slice_dice(fused.probability, truth, regions, axis)
        slices += [(a, d) for a, d in zip(fused.agreement, dice, strict=True) if np.isfinite(d)]
    return replace(trust, agreement=_least_agreement(slices, 0.9 * float(np.nanmean(wholes))))


def _rounded(dice: float) -> float | None:
    return round(float(dice), 4) if np.isfinite(dice) else None


def _least_agreement(slices: Sequence[tuple[float, float]], wanted: float) -> float:
    """Return the least agreement at which the slices that agree at least so far have the ``wanted`` mean Dice."""
    for limit in np.arange(0, 1, 0.05):
        kept = [dice for agreed, dice in slices if agreed >= limit]
        if kept and np.mean(kept) >= wanted:
            return round(float(limit), 2)
    return AGREEMENT


def _heard(sources: Probabilities, left_out: Mapping[str, Sequence[int]], regions: bool) -> dict[str, np.ndarray]:
    """Return the sources with NaN where they are not to be heard.

    With regions a source is not heard of those that it is left out for. Otherwise it is not heard, of any class,
    wherever it or the mean of all others sees a class that it is left out for: its background would speak against that.
    """
    heard = dict(sources)
    for name, channels in left_out.items():
        if name not in heard or len(heard) < 2:
            continue
        p = sources[name].astype(np.float32)
        if regions:
            p[list(channels)] = np.nan
        elif len(channels) == len(p) - 1:
            del heard[name]
            continue
        else:
            others = _mean([other for key, other in sources.items() if key != name], regions)
            there = np.isin(others.argmax(0), channels) | np.isin(np.nan_to_num(p).argmax(0), channels)
            p[:, there] = np.nan
        heard[name] = p
    return heard


def _mean(sources: Sequence[np.ndarray], regions: bool) -> np.ndarray:
    """Return the mean over those that say something; background where nobody does."""
    total = np.zeros(sources[0].shape, np.float32)
    count = np.zeros(sources[0].shape, np.int16)
    for p in sources:
        said = np.isfinite(p)
        total += np.where(said, p, 0)
        count += said
    return _normalised(total / np.maximum(count, 1), regions)


def _normalised(p: np.ndarray, regions: bool) -> np.ndarray:
    if regions:
        return p
    total = p.sum(0)
    empty = total < 1e-6
    made: np.ndarray = p / np.where(empty, 1, total)
    made[0, empty] = 1
    return made


def _hard(p: np.ndarray, regions: bool) -> np.ndarray:
    """Return a label: (1, *spatial) with the likeliest class, or (c, *spatial) with each region."""
    hard: np.ndarray = p > 0.5 if regions else p.argmax(0)[None]
    return hard


def _sure(p: np.ndarray, regions: bool) -> np.ndarray:
    if regions:
        return np.asarray((p > SURE_FOREGROUND) | (p < 1 - SURE_BACKGROUND))
    return np.asarray((p[0] > SURE_BACKGROUND) | (p[1:] > SURE_FOREGROUND).any(0))[None]


def _along(values: np.ndarray, axis: int, ndim: int) -> np.ndarray:
    return values.reshape([-1 if a == axis else 1 for a in range(ndim)])


def _per_slice(values: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1).sum(1)


def _scores(cases: Sequence[tuple[np.ndarray, Probabilities]], names: Sequence[str], regions: bool) -> np.ndarray:
    """Return the mean Dice (c,) of the mean of some sources over the cases that have the class."""
    each = [_dice(_mean([sources[name] for name in names], regions), truth, regions) for truth, sources in cases]
    known = np.isfinite(each)
    total = np.where(known, each, 0).sum(0)
    return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)


def _dice(p: np.ndarray, truth: np.ndarray, regions: bool) -> np.ndarray:
    """Return the Dice of each channel (c,), NaN for the background and for a class that nobody sees."""
    return _slice_table(p, truth, regions, None)[:, 0]


def _slice_dice(p: np.ndarray, truth: np.ndarray, regions: bool, axis: int) -> np.ndarray:
    """Return the mean Dice over the classes of each slice (n,), NaN where there is none."""
    table = _slice_table(p, truth, regions, axis)
    known = np.isfinite(table)
    return np.where(known.any(0), np.where(known, table, 0).sum(0) / np.maximum(known.sum(0), 1), np.nan)


def _slice_table(p: np.ndarray, truth: np.ndarray, regions: bool, axis: int | None) -> np.ndarray:
    """Return the Dice of each channel in each slice (c, n), or in the whole volume (c, 1)."""
    known = np.isfinite(truth).all(0)
    hard = _hard(p, regions)
    made = np.full((len(p), 1 if axis is None else truth.shape[axis + 1]), np.nan)
    for c in range(0 if regions else 1, len(p)):
        mine = (hard[c] if regions else hard[0] == c) & known
        theirs = (np.where(known, truth[c], 0) > 0.5) & known
        counts = [
            np.atleast_1d(one.sum() if axis is None else _per_slice(one, axis)) for one in (mine & theirs, mine, theirs)
        ]
        size = counts[1] + counts[2]
        made[c] = np.where(size > 0, 2 * counts[0] / np.maximum(size, 1), np.nan)
    return made
