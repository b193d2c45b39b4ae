"""What a loop of active learning is worth: areas and efficiencies of its curves, and what the next round will bring.

Definitions as in nnActive (Lüth et al., TMLR 2025, arXiv 2511.19183).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np
import pandas as pd
from scipy import integrate, optimize, stats

from nnunet_limited.metrics.statistics import holm


def area_under_budget_curve(dice: Sequence[float]) -> float:
    """Return the area under the Dice of the rounds, which are taken to be equally far apart on [0, 1] (AUBC).

    A loop of one round has the area of its only Dice.
    """
    return float(integrate.trapezoid(dice, dx=1 / (len(dice) - 1))) if len(dice) > 1 else float(dice[0])


def foreground_efficiency(foreground: Sequence[float], dice: Sequence[float], start: float, full: float) -> float:
    """Return b of dice = full - (full - start) exp(-b (foreground - its start)) by least squares (FG-Eff).

    ``foreground`` is the annotated part of all foreground voxels in percent; ``start`` the mean Dice before the first
    query, ``full`` that with every label. It is nan if there is nothing to gain, or
    that is not known, or nothing was annotated.
    """
    x, y = np.asarray(foreground, float), np.asarray(dice, float)
    x = x - x[0]
    if not full > start or not x.any() or not np.isfinite([*x, *y]).all():
        return float("nan")

    def curve(at: np.ndarray, b: float) -> np.ndarray:
        return np.asarray(full - (full - start) * np.exp(-b * at))

    try:
        found, _ = optimize.curve_fit(curve, x, y, p0=[1 / max(x.max(), 1e-9)], maxfev=10_000)
    except RuntimeError:  # no curve fits
        return float("nan")
    return float(found[0])


def penalties(settings: Sequence[Mapping[str, np.ndarray]], level: float = 0.05) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return how often each strategy (row) was beaten by each other one (column), and the corrected p-values.

    Each of the ``settings``, such as the rounds, holds the scores of every strategy (seeds,), which are paired. Beaten
    is what scores less with p < ``level`` in a paired two-sided t-test; the first table is the share of the settings
    (pairwise penalty matrix; Ash et al., ICLR 2020). The second is of the means over settings, with Holm's correction
    over all pairs; nan where there are fewer than two seeds.
    """
    names = list(settings[0])
    shares = pd.DataFrame(0.0, index=names, columns=names)
    for scores in settings:
        for a, b in permutations(names, 2):
            if scores[a].mean() < scores[b].mean() and _paired(scores[a], scores[b]) < level:
                shares.loc[a, b] += 1 / len(settings)
    pairs = [(a, b) for n, a in enumerate(names) for b in names[n + 1 :]]
    means = {name: np.mean([scores[name] for scores in settings], axis=0) for name in names}
    corrected = holm([_paired(means[a], means[b]) for a, b in pairs]) if pairs else []
    p = pd.DataFrame(np.nan, index=names, columns=names)
    for (a, b), value in zip(pairs, corrected, strict=True):
        p.loc[a, b] = p.loc[b, a] = value
    return shares, p


def _paired(a: np.ndarray, b: np.ndarray) -> float:
    """Return the p-value of a paired t-test; 1 for scores that are equal, nan for a single pair."""
    difference = np.asarray(a, float) - np.asarray(b, float)
    if len(difference) < 2:
        return float("nan")
    if np.ptp(difference) == 0:
        return 0.0 if difference[0] else 1.0
    return float(stats.ttest_rel(a, b).pvalue)


def predicted_gain(dice: Sequence[float]) -> float:
    """Return what the next round is expected to add to the Dice of the rounds so far; nan for fewer than three.

    Gains are taken to shrink by the same factor each round, which is that of dice = c - a exp(-b round) through the
    rounds by least squares.
    """
    y = np.asarray(dice, float)
    if len(y) < 3 or not np.isfinite(y).all():
        return float("nan")
    x = np.arange(len(y), dtype=float)

    def curve(at: np.ndarray, c: float, a: float, b: float) -> np.ndarray:
        return np.asarray(c - a * np.exp(-b * at))

    top = float(y.max())
    begin = [min(1.0, top + 0.01), max(1e-3, top - float(y[0])), 0.5]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optimize.OptimizeWarning)
            found, _ = optimize.curve_fit(curve, x, y, p0=begin, bounds=([0, 0, 1e-3], [1, 1, 10]), maxfev=10_000)
    except RuntimeError:  # no curve fits
        return float("nan")
    return float(curve(np.array([len(y)]), *found)[0] - curve(np.array([len(y) - 1]), *found)[0])
