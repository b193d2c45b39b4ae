"""Measures of a loop of active learning: area and efficiency of its curve, penalties, the gain of the next round.

Definitions as in nnActive (Lüth et al., TMLR 2025, arXiv 2511.19183).
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pandas as pd
from scipy import integrate, optimize

from nnunet_limited.metrics.statistics import LEVEL, MIN_SEEDS, Difference, difference_of, holm


def area_under_budget_curve(dice: Sequence[float]) -> float:
    """Return the area under the Dice of the rounds, equally spaced on [0, 1] (AUBC).

    The area of a single round is its Dice.
    """
    values = np.asarray(dice, float)
    return float(integrate.trapezoid(values, dx=1 / (len(values) - 1)) if len(values) > 1 else values[0])


def foreground_efficiency(foreground: Sequence[float], dice: Sequence[float], start: float, full: float) -> float:
    """Return b of dice = full - (full - start) exp(-b (foreground - its start)) by least squares (FG-Eff).

    ``foreground`` is the annotated part of all foreground voxels in percent, ``start`` the mean Dice before the first
    query, ``full`` the Dice with all labels. The rate is nan if ``full`` is not above ``start``, if no foreground was
    annotated, or if a value is nan.
    """
    x, y = np.asarray(foreground, float) - foreground[0], np.asarray(dice, float)
    if not full > start or not x.any() or not np.isfinite([*x, *y]).all():
        return float("nan")
    (b,) = _fit(lambda at, b: full - (full - start) * np.exp(-b * at), x, y, [1 / max(x.max(), 1e-9)])
    return float(b)


def _fit(curve: Callable[..., np.ndarray], x: np.ndarray, y: np.ndarray, start: list[float], **kept: Any) -> np.ndarray:
    """Return the parameters of a curve by least squares, nan if none fits."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optimize.OptimizeWarning)
            return np.asarray(optimize.curve_fit(curve, x, y, p0=start, maxfev=10_000, **kept)[0])
    except RuntimeError:
        return np.full(len(start), np.nan)


def penalties(settings: Sequence[Mapping[str, np.ndarray]], level: float = LEVEL) -> pd.DataFrame:
    """Return how often each strategy (row) was beaten by each other strategy (column).

    Each of the ``settings``, e.g. a round, holds the scores of every strategy, of shape (seeds,) and paired by seed. A
    strategy is beaten if its mean is lower with p < ``level`` in a paired two-sided t-test; the values are fractions of
    the settings (pairwise penalty matrix; Ash et al., ICLR 2020), nan for fewer than ``MIN_SEEDS`` seeds.
    """
    names = list(settings[0])
    enough = all(len(scores[names[0]]) >= MIN_SEEDS for scores in settings)
    fractions = pd.DataFrame(0.0 if enough else np.nan, index=names, columns=names)
    for scores in settings if enough else ():
        for a, b in permutations(names, 2):
            found = difference_of(scores[a] - scores[b])
            if found.mean < 0 and found.p < level:
                fractions.loc[a, b] += 1 / len(settings)
    return fractions


def compare_pairs(settings: Sequence[Mapping[str, np.ndarray]]) -> dict[tuple[str, str], tuple[Difference, float]]:
    """Return the difference of each pair of strategies, first minus second, and its p-value by Holm over all pairs.

    ``settings`` are those of :func:`penalties`; the scores of a seed are averaged over them first.
    """
    names = list(settings[0])
    means = {name: np.mean([scores[name] for scores in settings], axis=0) for name in names}
    found = {(a, b): difference_of(means[a] - means[b]) for a, b in combinations(names, 2)}
    corrected = holm([one.p for one in found.values()])
    return {pair: (one, p) for (pair, one), p in zip(found.items(), corrected, strict=True)}


def predicted_gain(dice: Sequence[float]) -> float:
    """Return the expected gain of Dice in the next round; nan for fewer than three rounds.

    Gains are assumed to shrink by the same factor each round: dice = c - a exp(-b round) is fitted by least squares.
    """
    y = np.asarray(dice, float)
    if len(y) < 3 or not np.isfinite(y).all():
        return float("nan")
    top, x = float(y.max()), np.arange(len(y) + 1, dtype=float)

    def curve(at: np.ndarray, c: float, a: float, b: float) -> np.ndarray:
        return np.asarray(c - a * np.exp(-b * at))

    begin = [min(1.0, top + 0.01), max(1e-3, top - float(y[0])), 0.5]
    found = _fit(curve, x[:-1], y, begin, bounds=([0, 0, 1e-3], [1, 1, 10]))
    return float(np.diff(curve(x[-2:], *found))[0])
