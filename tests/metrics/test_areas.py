"""What loops of active learning are compared by, against hand-computed values."""

import numpy as np
import pytest
from scipy import stats

from nnunet_limited.metrics.areas import (
    area_under_budget_curve,
    compare_pairs,
    foreground_efficiency,
    penalties,
    predicted_gain,
)


def test_area_under_the_budget_curve() -> None:
    assert area_under_budget_curve([0.2, 0.4, 0.8]) == pytest.approx((0.3 + 0.6) / 2)
    assert area_under_budget_curve([0.5, 0.5, 0.5, 0.5]) == pytest.approx(0.5)
    assert area_under_budget_curve([0.7]) == 0.7


def test_foreground_efficiency() -> None:
    x = np.array([3.0, 5, 8, 12])
    y = 0.9 - 0.4 * np.exp(-0.25 * (x - 3))
    assert foreground_efficiency(x, y, 0.5, 0.9) == pytest.approx(0.25, rel=1e-4)
    assert foreground_efficiency(x, 0.5 - 0.01 * (x - 3), 0.5, 0.9) < 0  # it gets worse
    assert np.isnan(foreground_efficiency(x, y, 0.9, 0.9))
    assert np.isnan(foreground_efficiency([1, 1], [0.5, 0.6], 0.5, 0.9))


FIRST = {"a": [0.1, 0.2, 0.3, 0.2, 0.1], "b": [0.3, 0.41, 0.5, 0.4, 0.3], "c": [0.1, 0.2, 0.3, 0.2, 0.1]}
SECOND = {"a": [0.1, 0.5, 0.3, 0.2, 0.4], "b": [0.4, 0.1, 0.5, 0.3, 0.1], "c": [0.1, 0.5, 0.3, 0.2, 0.4]}
SETTINGS = [{name: np.array(scores) for name, scores in one.items()} for one in (FIRST, SECOND)]


def test_penalties() -> None:
    """In the first setting b beats a for certain; in the second nothing is certain."""
    shares = penalties(SETTINGS)
    assert shares.loc["a", "b"] == shares.loc["c", "b"] == 0.5
    assert shares.to_numpy().sum() == 1.0  # nothing else is beaten


def test_pairs_are_compared_over_all_settings() -> None:
    pairs = compare_pairs(SETTINGS)
    means = {name: (np.array(FIRST[name]) + np.array(SECOND[name])) / 2 for name in "abc"}
    raw = stats.ttest_rel(means["a"], means["b"]).pvalue
    found, p = pairs["a", "b"]
    assert (found.seeds, found.mean) == (5, pytest.approx(np.mean(means["a"] - means["b"])))
    assert p == pytest.approx(min(1, 3 * raw))
    assert pairs["a", "c"][1] == 1


def test_few_seeds_are_compared_without_tests() -> None:
    few = [{name: scores[:4] for name, scores in one.items()} for one in SETTINGS]
    assert penalties(few).isna().all(axis=None)
    assert all(np.isnan(p) for _, p in compare_pairs(few).values())
    assert compare_pairs(few)["a", "b"][0].worse == 3


def test_gain_of_the_next_round() -> None:
    dice = 0.8 - 0.4 * 0.5 ** np.arange(4)
    assert predicted_gain(dice) == pytest.approx(0.8 - 0.4 * 0.5**4 - dice[-1], abs=1e-4)
    assert predicted_gain([0.5, 0.6, 0.6, 0.6]) < 0.01
    assert np.isnan(predicted_gain([0.5, 0.6]))
    assert np.isnan(predicted_gain([0.5, np.nan, 0.6]))
