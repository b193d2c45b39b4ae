"""What is said of a study's numbers, against values worked out by hand."""

from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nnunet_limited.metrics.statistics import holm, labels_for, mean_and_sd, paired_difference, ranking_stability


def scores(values: list[list[float]], cases: str = "abcdef") -> pd.DataFrame:
    """A row a case, a column a seed."""
    return pd.DataFrame(values, index=list(cases[: len(values)]))


def test_mean_and_spread_are_over_seeds() -> None:
    table = scores([[0.2, 0.6], [0.4, 0.8]])
    assert mean_and_sd(table) == pytest.approx((0.5, np.std([0.3, 0.7], ddof=1)))
    assert mean_and_sd(table[[0]]) == pytest.approx((0.3, 0.0))


def test_difference_is_paired_by_case_and_seed() -> None:
    """A case or seed that one of the two lacks does not count, however good it is."""
    baseline = scores([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    mine = scores([[0.2, 0.2, 0.9], [0.5, 0.4, 0.9]])
    found = paired_difference(mine, baseline)
    assert (found.cases, found.mean) == (2, pytest.approx(0.075))
    assert found.low == pytest.approx(0.05)
    assert found.high == pytest.approx(0.1)
    assert math.isnan(paired_difference(mine.rename(index=str.upper), baseline).mean)


def test_interval_and_p_value_are_those_of_their_definitions() -> None:
    """The bootstrap of four cases against all 256 samples of them, Wilcoxon's test against all 16 signs."""
    difference = np.array([0.04, 0.01, 0.08, -0.02])
    baseline = scores([[0.5]] * 4)
    found = paired_difference(baseline.add(difference, axis=0), baseline)
    means = [np.mean(sample) for sample in itertools.product(difference, repeat=4)]
    assert found.low == pytest.approx(np.percentile(means, 2.5), abs=0.004)
    assert found.high == pytest.approx(np.percentile(means, 97.5), abs=0.004)
    ranks = stats.rankdata(np.abs(difference))
    observed = ranks[difference > 0].sum()
    sums = [sum(r for r, up in zip(ranks, signs, strict=True) if up) for signs in itertools.product((0, 1), repeat=4)]
    tail = min(np.mean(np.array(sums) >= observed), np.mean(np.array(sums) <= observed))
    assert found.p == pytest.approx(min(1, 2 * tail))
    many = scores(np.random.default_rng(1).uniform(0, 1, (6, 1)).tolist())
    assert paired_difference(many, many * 0) == paired_difference(many, many * 0), "seeded"


def test_scans_of_a_patient_are_one_unit() -> None:
    """Two scans of one patient weigh as much as one of another, and do not make evidence stronger."""
    index = pd.MultiIndex.from_tuples([("p", "p1"), ("p", "p2"), ("q", "q1")])
    baseline = pd.DataFrame([[0.5], [0.5], [0.5]], index=index)
    found = paired_difference(baseline.add([0.1, 0.3, 0.0], axis=0), baseline)
    assert (found.cases, found.mean) == (2, pytest.approx(0.1))
    ranked = ranking_stability({"a": baseline, "b": baseline.add([0.1, 0.1, -0.15], axis=0)})
    assert ranked["rank"].tolist() == [1, 2]


def test_methods_are_ranked_on_the_seeds_that_all_have() -> None:
    one, other = scores([[0.5, 0.9], [0.5, 0.9]]), scores([[0.6], [0.6]])
    assert ranking_stability({"one": one, "other": other})["rank"].tolist() == [2, 1]


def test_no_difference_is_no_evidence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = paired_difference(scores([[0.5], [0.6]]), scores([[0.5], [0.6]]))
    assert (same.mean, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_p_values_are_corrected_for_their_number() -> None:
    assert holm([0.01, float("nan"), 0.04, 0.03]) == pytest.approx([0.03, float("nan"), 0.06, 0.06], nan_ok=True)
    assert holm([0.9, 0.8]) == [1, 1]
    assert math.isnan(holm([float("nan")])[0])


@pytest.mark.parametrize(
    ("score", "expected"),
    [(0.5, 4), (0.7, 8), (0.65, 4 * 2**0.75), (0.75, 8 * 2**0.5), (0.8, 16), (0.81, math.inf), (0.4, math.nan)],
)
def test_labels_for_a_score_are_read_off_the_learning_curve(score: float, expected: float) -> None:
    curve = {16: 0.8, 4: 0.5, 8: 0.7}
    expect = pytest.approx(expected, nan_ok=True)
    assert labels_for(curve, score) == expect
    assert labels_for({n: -v for n, v in curve.items()}, -score, higher_is_better=False) == expect


def test_a_curve_that_falls_is_read_where_it_first_gets_there() -> None:
    assert labels_for({4: 0.5, 8: 0.7, 16: 0.6}, 0.6) == pytest.approx(4 * 2**0.5)
    assert math.isnan(labels_for({4: float("nan")}, 0.5))


def test_ranks_of_methods_that_differ_in_every_case_are_certain() -> None:
    rng = np.random.default_rng(0)
    base = scores(rng.uniform(0, 1, (6, 2)).tolist())
    found = ranking_stability({"low": base, "high": base + 0.1, "middle": base + 0.05})
    assert found["rank"].tolist() == found["low"].tolist() == found["high"].tolist() == [3, 1, 2]
    assert found["first"].tolist() == [0, 1, 0]
    assert ranking_stability({"low": base, "high": base + 0.1}, higher_is_better=False)["rank"].tolist() == [1, 2]


def test_ranks_that_hang_on_one_case_are_not() -> None:
    """One of six cases decides; a sample is without it in a third of the draws."""
    one, other = scores([[0.5]] * 6), scores([[0.52]] * 5 + [[0.3]])
    found = ranking_stability({"one": one, "other": other}, resamples=4000)
    assert found.loc["one", "rank"] == 1
    assert found.loc["other", "first"] == pytest.approx((5 / 6) ** 6, abs=0.03)
    assert found[["low", "high"]].to_numpy().tolist() == [[1, 2], [1, 2]]


def test_only_cases_that_all_methods_have_are_ranked() -> None:
    full, part = scores([[0.5], [0.9]]), scores([[0.6]])
    assert ranking_stability({"full": full, "part": part})["rank"].tolist() == [2, 1]
    assert ranking_stability({"full": full, "none": part.iloc[:0]})["rank"].isna().all()
