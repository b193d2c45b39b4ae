"""Measures of a loop of active learning: area and efficiency of its curve, penalties, the gain of the next round.

Definitions as in nnActive (Lüth et al., TMLR 2025, arXiv 2511.19183).
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, permutations
from typing import Any

import numpy as np
import pandas as pd
from scipy import integrate, optimize, stats

from nnunet_limited.metrics.statistics import holm


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


def penalties(settings: Sequence[Mapping[str, np.ndarray]], level: float = 0.05) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return how often each strategy (row) was beaten by each other strategy (column), and the corrected p-values.

    Each of the ``settings``, e.g. a round, holds the scores of every strategy, of shape (seeds,) and paired by seed. A
    strategy is beaten if its mean is lower with p < ``level`` in a paired two-sided t-test; the first table is the
    fraction of settings (pairwise penalty matrix; Ash et al., ICLR 2020). The second table compares the means over
    settings, with Holm's correction over all pairs; it is nan for fewer than two seeds.
    """
    names = list(settings[0])
    fractions = pd.DataFrame(0.0, index=names, columns=names)
    for scores in settings:
        for a, b in permutations(names, 2):
            if scores[a].mean() < scores[b].mean() and _paired(scores[a], scores[b]) < level:
                fractions.loc[a, b] += 1 / len(settings)
    pairs = list(combinations(names, 2))
    means = {name: np.mean([scores[name] for scores in settings], axis=0) for name in names}
    corrected = holm([_paired(means[a], means[b]) for a, b in pairs]) if pairs else []
    p = pd.DataFrame(np.nan, index=names, columns=names)
    for (a, b), value in zip(pairs, corrected, strict=True):
        p.loc[a, b] = p.loc[b, a] = value
    return fractions, p


def _paired(a: np.ndarray, b: np.ndarray) -> float:
    """Return the p-value of a paired t-test: 1 for equal scores, nan for a single pair."""
    difference = np.asarray(a, float) - np.asarray(b, float)
    if len(difference) < 2:
        return float("nan")
    if np.ptp(difference) == 0:
        return 0.0 if difference[0] else 1.0
    return float(stats.ttest_rel(a, b).pvalue)


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
