"""Statistics of a study: paired differences with intervals, labels saved, ranks. The independent units are the seeds.

A seed is a split and a run. Two runs of the same method differ, so the cases of one run share an error that no number
of cases averages out; only further seeds show its size. All intervals and p-values therefore come from the means of the
seeds, paired with those of the baseline: a t-distribution with seeds - 1 degrees of freedom. They hold for the
validation cases of the study; other patients are a further source of variation that a study of one dataset cannot show.

The scores of a method are a series with the levels ``seed``, ``case`` and ``class`` (and further ones, e.g. ``fold``).
It is nan where a class is neither present nor predicted.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
from scipy import stats

# With n seeds the standard deviation itself is known up to a factor of 0.6 to 2.9 for n = 5, but 0.5 to 6.3 for n = 3
# (95 %, chi-squared), and even with all differences of one sign a sign test has p = 0.06 for n = 5, 0.25 for n = 3.
MIN_SEEDS = 5
LEVEL = 0.05


@dataclass(frozen=True)
class Difference:
    """A method's mean difference to the baseline over the seeds that both have.

    ``better`` and ``worse`` are numbers of seeds. The 95 % interval and the two-sided p-value are nan for fewer than
    :data:`MIN_SEEDS` seeds.
    """

    seeds: int = 0
    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    better: int = 0
    worse: int = 0


def seed_means(scores: pd.Series) -> pd.Series:
    """Return nnU-Net's mean for each seed: of each class over its cases (nan left out), then over the classes.

    It equals ``foreground_mean`` in nnU-Net's summary.json; a class that no case has is left out, where nnU-Net's mean
    is nan.
    """
    means: pd.Series = scores.groupby(level=["class", "seed"]).mean().groupby(level="seed").mean()
    return means


def mean_and_sd(scores: pd.Series) -> tuple[float, float]:
    """Return the mean of the seeds' means and their standard deviation (0 for one seed)."""
    seeds = seed_means(scores)
    return float(seeds.mean()), float(seeds.std(ddof=1)) if len(seeds) > 1 else 0.0


def difference_of(differences: Sequence[float] | np.ndarray, higher_is_better: bool = True) -> Difference:
    """Summarise the paired differences of the seeds (method minus baseline); nan is left out."""
    values = np.asarray(differences, float)
    values = values[~np.isnan(values)]
    if not len(values):
        return Difference()
    sign, mean, count = 1 if higher_is_better else -1, float(values.mean()), len(values)
    better, worse = int((sign * values > 0).sum()), int((sign * values < 0).sum())
    if count < MIN_SEEDS:
        return Difference(count, mean, better=better, worse=worse)
    half, error = float(_half_width(values)), float(stats.sem(values))
    p = float(2 * stats.t.sf(abs(mean) / error, count - 1)) if error else float(mean == 0)
    return Difference(count, mean, mean - half, mean + half, p, better, worse)


def _half_width(differences: np.ndarray) -> np.ndarray:
    """Return half of the width of the 95 % interval of the mean over the first axis, the seeds."""
    width: np.ndarray = stats.t.ppf(1 - LEVEL / 2, len(differences) - 1) * stats.sem(differences, axis=0)
    return width


def paired_difference(scores: pd.Series, baseline: pd.Series, higher_is_better: bool = True) -> Difference:
    """Compare a method with the baseline on the seeds and cases that both have."""
    both = scores.index.intersection(baseline.index)
    if both.empty:
        return Difference()
    return difference_of((seed_means(scores[both]) - seed_means(baseline[both])).to_numpy(), higher_is_better)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979); nan stays nan and does not count."""
    from statsmodels.stats.multitest import multipletests

    values = np.asarray(p_values, float)
    valid = ~np.isnan(values)
    if valid.sum() > 1:  # one alone stays as it is
        values[valid] = multipletests(values[valid], method="holm")[1]
    return [float(value) for value in values]


# ---- in words --------------------------------------------------------------------------------------------------------


def setbacks(found: Mapping[str, Difference]) -> str:
    """Return which metrics, by their titles, are worse than the baseline's in most seeds; empty if none is."""
    mostly = {title: one for title, one in found.items() if 2 * one.worse > one.seeds}
    return ", ".join(f"{title} worse in {one.worse} of {one.seeds}" for title, one in mostly.items())


def evidence(found: Difference, p: float, setback: str = "", higher_is_better: bool = True) -> str:
    """Return in words what follows from a difference, empty without one.

    ``p`` is the corrected p-value, nan for too few seeds. No gain is claimed where there is a ``setback``, other
    metrics that are worse in most seeds, as :func:`setbacks` lists them.
    """
    if not found.seeds:
        return ""
    gained = found.mean > 0 if higher_is_better else found.mean < 0
    setback = setback if gained else ""
    seeds = f"{found.seeds} seed{'s' * (found.seeds > 1)}"
    counts = f"better in {found.better} of {found.seeds}{f', but {setback}' if setback else ''}"
    if math.isnan(p):
        return f"{seeds}: no p-value; {counts}{': no gain' if setback else ''}"
    result = "no difference shown" if p >= LEVEL else "no gain" if setback else "better" if gained else "worse"
    return f"{seeds}: {result}, {'p < 0.001' if p < 0.001 else f'p = {p:.3f}'}; {counts}"


# ---- labels saved ----------------------------------------------------------------------------------------------------


def labels_for(curve: Mapping[float, float], score: float, higher_is_better: bool = True) -> float:
    """Return the number of labelled cases at which the baseline's learning ``curve`` reaches ``score``.

    The curve (score by number of labelled cases) is taken as linear in the logarithm of that number, and its first
    crossing counts. It is inf if the curve stays below, and nan if it starts above ``score`` or is empty.
    """
    sign = 1 if higher_is_better else -1
    points = sorted((number, sign * value) for number, value in curve.items() if not np.isnan(value))
    target = sign * score
    if not points or np.isnan(score) or points[0][1] > target:
        return float("nan")
    if points[0][1] == target:
        return float(points[0][0])
    for (n0, v0), (n1, v1) in pairwise(points):  # v0 < target, so that no interval that holds it is flat
        if v1 >= target:
            return float(n0 * (n1 / n0) ** ((target - v0) / (v1 - v0)))
    return float("inf")


def labels_saved(
    curve: pd.DataFrame, scores: pd.Series, labeled: float, higher_is_better: bool = True
) -> tuple[float, float, float]:
    """Return how many more labelled cases than ``labeled`` the baseline needs for the mean of ``scores``, and its 95 %.

    ``curve`` has the baseline's scores, a row for each seed and a column for each number of labelled cases; ``scores``
    are the method's by seed. Sizes that lack one of the seeds are left out. The interval holds every number at which
    the curve does not differ from the scores in a paired t-test over seeds (Fieller's method). Its ends are -inf and
    inf where it reaches the smallest and the largest size; both are nan for fewer than :data:`MIN_SEEDS` seeds, and
    all is nan where the curve has fewer than two sizes or starts above the scores.
    """
    paired = scores.dropna()
    table = curve.reindex(paired.index).dropna(axis="columns").T.groupby(level=0).mean().T.sort_index(axis="columns")
    if paired.empty or len(table.columns) < 2:
        return math.nan, math.nan, math.nan
    needed = labels_for(table.mean().to_dict(), float(paired.mean()), higher_is_better)
    if math.isnan(needed) or len(paired) < MIN_SEEDS:
        return needed - labeled, math.nan, math.nan
    sizes = table.columns.to_numpy(float)
    grid = np.unique([*np.geomspace(sizes[0], sizes[-1], 200), *([needed] if math.isfinite(needed) else [])])
    values = np.stack([np.interp(np.log(grid), np.log(sizes), row) for row in table.to_numpy()])
    differences = paired.to_numpy()[:, None] - values
    held = np.flatnonzero(np.abs(differences.mean(axis=0)) <= _half_width(differences))
    if not len(held):  # above the whole curve
        return needed - labeled, math.inf, math.inf
    first, last = int(held[0]), int(held[-1])
    low = -math.inf if first == 0 else grid[first] - labeled
    return needed - labeled, float(low), float(math.inf if last == len(grid) - 1 else grid[last] - labeled)


# ---- ranks -----------------------------------------------------------------------------------------------------------


def ranking(methods: Mapping[str, pd.Series], higher_is_better: bool = True) -> pd.DataFrame:
    """Return each method's rank (1 is best), its 95 % interval, and the number of seeds in which it is first.

    Methods are ranked by their mean over the seeds and cases that all of them have; equal ones share a rank. A rank is
    at least one more than the number of methods that are better by a paired t-test over seeds, with Holm's correction
    over all pairs, and likewise at most; so the intervals of all methods hold together (Al Mohamad, Goeman and
    van Zwet, Biometrics 2022). They are nan for fewer than :data:`MIN_SEEDS` seeds.
    """
    names, sign = list(methods), -1 if higher_is_better else 1
    shared = methods[names[0]].index
    for scores in methods.values():
        shared = shared.intersection(scores.index)
    columns = ["seeds", "rank", "low", "high", "first"]
    values = sign * np.stack([seed_means(scores[shared]).to_numpy() for scores in methods.values()])
    values = values[:, ~np.isnan(values).any(axis=0)]
    if not values.size:
        return pd.DataFrame(math.nan, index=names, columns=columns).assign(seeds=0)
    first = (values == values.min(axis=0)).sum(axis=1)
    rank = stats.rankdata(values.mean(axis=1), method="min")
    found = pd.DataFrame({"seeds": values.shape[1], "rank": rank, "first": first}, index=names)
    pairs = list(combinations(range(len(names)), 2))
    differences = [difference_of(values[a] - values[b]) for a, b in pairs]
    better, worse = (np.zeros(len(names)) for _ in range(2))
    for (a, b), one, p in zip(pairs, differences, holm([one.p for one in differences]), strict=True):
        if p < LEVEL:
            ahead, behind = (a, b) if one.mean < 0 else (b, a)
            better[behind] += 1
            worse[ahead] += 1
    enough = values.shape[1] >= MIN_SEEDS
    low, high = (1 + better, len(names) - worse) if enough else (math.nan, math.nan)
    return found.assign(low=low, high=high)[columns]
