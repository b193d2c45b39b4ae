"""Statistics of a study: paired differences with intervals, labels saved, stability of the ranking.

The scores of a method are a table with a row for each case and a column for each seed, nan where a case was not
validated with that seed. Cases are the independent units: their means over seeds are resampled and ranked. Rows with
the same first level of the index belong to one unit, e.g. the scans of a patient.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import stats

RESAMPLES = 9999  # scipy's default of bootstrap and permutation tests


@dataclass(frozen=True)
class Difference:
    """A method's mean difference to the baseline over the cases that both have, with its 95 % interval."""

    cases: int = 0
    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan


def mean_and_sd(scores: pd.DataFrame) -> tuple[float, float]:
    """Return the mean over cases, then over seeds, and the standard deviation over seeds (0 for one seed)."""
    seeds = scores.mean(axis=0)
    return float(seeds.mean()), float(seeds.std(ddof=1)) if len(seeds) > 1 else 0.0


def paired_difference(scores: pd.DataFrame, baseline: pd.DataFrame, seed: int = 0) -> Difference:
    """Compare a method with the baseline on the cases and seeds that both have.

    The interval is the percentile bootstrap over cases, the p-value that of Wilcoxon's signed-rank test, two-sided
    (1 if no case differs).
    """
    seeds = [column for column in scores.columns if column in baseline.columns]
    difference = _by_unit(scores[seeds] - baseline[seeds]).dropna().to_numpy()
    if not len(difference):
        return Difference()
    low = high = mean = float(difference.mean())
    if len(difference) > 1 and np.ptp(difference) > 0:
        rng = np.random.default_rng(seed)
        found = stats.bootstrap((difference,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=rng)
        low, high = map(float, found.confidence_interval)
    p = float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0
    return Difference(len(difference), mean, low, high, p)


def _by_unit(scores: pd.DataFrame) -> pd.Series:
    """Return the mean over seeds of each row, and over the rows of each unit."""
    means: pd.Series = scores.mean(axis=1).dropna().groupby(level=0).mean()
    return means


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979); nan stays nan and does not count."""
    from statsmodels.stats.multitest import multipletests

    values = np.asarray(p_values, float)
    valid = ~np.isnan(values)
    if valid.any():
        values[valid] = multipletests(values[valid], method="holm")[1]
    return [float(value) for value in values]


def labels_for(curve: Mapping[int, float], score: float, higher_is_better: bool = True) -> float:
    """Return the number of labelled cases at which the baseline's learning ``curve`` reaches ``score``.

    The curve (score by number of labelled cases) is taken as linear in the logarithm of that number, and its first
    crossing counts. It is inf if the curve stays below, and nan if it starts above ``score`` or is empty.
    """
    sign = 1 if higher_is_better else -1
    points = sorted((number, sign * value) for number, value in curve.items() if not np.isnan(value))
    target = sign * score
    if not points or np.isnan(score) or points[0][1] > target:
        return float("nan")
    if len(points) == 1:
        return float(points[0][0]) if points[0][1] == target else float("inf")
    for (n0, v0), (n1, v1) in pairwise(points):
        if v1 >= target:
            return float(n0 * (n1 / n0) ** ((target - v0) / (v1 - v0)))
    return float("inf")


def ranking_stability(
    methods: Mapping[str, pd.DataFrame], higher_is_better: bool = True, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Return each method's rank (1 is best), its 95 % interval and how often it is first, in resampled cases.

    Methods are ranked by their mean over the cases and seeds that all of them have; equal ones share a rank
    (Wiesenfarth et al., Scientific Reports 2021, doi:10.1038/s41598-021-82017-6).
    """
    seeds = set.intersection(*(set(scores.columns) for scores in methods.values()))
    rows = set.intersection(*(set(scores.dropna(how="all").index) for scores in methods.values()))
    shared = {name: scores.loc[scores.index.isin(rows), sorted(seeds)] for name, scores in methods.items()}
    table = pd.DataFrame({name: _by_unit(scores) for name, scores in shared.items()}).dropna()
    if table.empty:
        return pd.DataFrame(np.nan, index=list(methods), columns=["rank", "low", "high", "first"])
    values = table.to_numpy() * (-1 if higher_is_better else 1)
    drawn = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    ranks = stats.rankdata(values[drawn].mean(axis=1), axis=1, method="min")
    rank, (low, high) = stats.rankdata(values.mean(axis=0), method="min"), np.percentile(ranks, (2.5, 97.5), axis=0)
    found = {"rank": rank, "low": low, "high": high, "first": (ranks == 1).mean(axis=0)}
    return pd.DataFrame(found, index=list(methods))
