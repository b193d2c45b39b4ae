"""What loops of active learning are compared by, against hand-computed values."""

import numpy as np
import pytest
from scipy import stats

from nnunet_limited.metrics.areas import area_under_budget_curve, foreground_efficiency, penalties, predicted_gain


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


def test_penalties() -> None:
    """In the first setting b beats a for certain; in the second nothing is certain."""
    first = {"a": np.array([0.1, 0.2, 0.3]), "b": np.array([0.3, 0.41, 0.5]), "c": np.array([0.1, 0.2, 0.3])}
    second = {"a": np.array([0.1, 0.5, 0.3]), "b": np.array([0.4, 0.1, 0.5]), "c": np.array([0.1, 0.5, 0.3])}
    shares, p = penalties([first, second])
    assert shares.loc["a", "b"] == shares.loc["c", "b"] == 0.5
    assert shares.to_numpy().sum() == 1.0  # nothing else is beaten
    raw = stats.ttest_rel((first["a"] + second["a"]) / 2, (first["b"] + second["b"]) / 2).pvalue
    assert p.loc["a", "b"] == p.loc["b", "a"] == pytest.approx(min(1, 3 * raw))
    assert p.loc["a", "c"] == 1
    one = {"a": np.array([0.1]), "b": np.array([0.9])}
    shares, p = penalties([one])
    assert not shares.to_numpy().any()
    assert np.isnan(p.loc["a", "b"])


def test_gain_of_the_next_round() -> None:
    dice = 0.8 - 0.4 * 0.5 ** np.arange(4)
    assert predicted_gain(dice) == pytest.approx(0.8 - 0.4 * 0.5**4 - dice[-1], abs=1e-4)
    assert predicted_gain([0.5, 0.6, 0.6, 0.6]) < 0.01
    assert np.isnan(predicted_gain([0.5, 0.6]))
    assert np.isnan(predicted_gain([0.5, np.nan, 0.6]))
