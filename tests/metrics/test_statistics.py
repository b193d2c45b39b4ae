"""Statistics of a study, against values worked out by hand."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nnunet_limited.metrics.statistics import (
    MIN_SEEDS,
    Difference,
    difference_of,
    evidence,
    holm,
    labels_for,
    labels_saved,
    mean_and_sd,
    paired_difference,
    ranking,
    seed_means,
    setbacks,
)

NAN = float("nan")


def scores(values: list[list[float]] | np.ndarray, cases: Sequence[str] = "abcdef") -> pd.Series:
    """Return scores of one class from a row for each case and a column for each seed."""
    table = np.asarray(values, float)
    index = [(seed, case, "organ") for seed in range(table.shape[1]) for case in cases[: len(table)]]
    return pd.Series(table.T.ravel(), index=pd.MultiIndex.from_tuples(index, names=["seed", "case", "class"]))


def seeds(*means: float) -> pd.Series:
    """Return scores of one case with these values by seed."""
    return scores([list(means)])


def test_the_mean_is_over_cases_first_and_over_classes_then() -> None:
    """A class that is missing in a case does not give the other class of that case more weight."""
    values = {("a", "x"): 0.9, ("a", "y"): 0.1, ("b", "x"): NAN, ("b", "y"): 0.3}
    index = pd.MultiIndex.from_tuples([(0, *key) for key in values], names=["seed", "case", "class"])
    both = pd.Series([*values.values()], index=index)
    assert seed_means(both)[0] == pytest.approx((0.9 + 0.2) / 2)
    assert seed_means(both)[0] != pytest.approx((0.5 + 0.3) / 2), "the mean over classes first is another one"
    absent = pd.concat([both, pd.Series([NAN], index=pd.MultiIndex.from_tuples([(0, "a", "z")]))])
    absent.index.names = both.index.names
    assert seed_means(absent)[0] == pytest.approx(0.55), "a class that no case has does not count"


def test_mean_and_spread_are_over_seeds() -> None:
    table = scores([[0.2, 0.6], [0.4, 0.8]])
    assert mean_and_sd(table) == pytest.approx((0.5, np.std([0.3, 0.7], ddof=1)))
    assert mean_and_sd(table[[0]]) == pytest.approx((0.3, 0.0))


def test_difference_is_paired_by_case_and_seed() -> None:
    """A case or seed that one of the two lacks does not count, however good it is."""
    baseline = scores([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    mine = scores([[0.2, 0.2, 0.9], [0.5, 0.3, 0.9]])
    found = paired_difference(mine, baseline)
    assert (found.seeds, found.better, found.worse) == (2, 1, 1)
    assert found.mean == pytest.approx((0.15 - 0.05) / 2)
    assert paired_difference(mine.rename(index=str.upper, level="case"), baseline) == Difference()


def test_interval_and_p_value_are_those_of_the_t_test_over_seeds() -> None:
    rng = np.random.default_rng(0)
    mine, baseline = (rng.uniform(0, 1, (6, MIN_SEEDS)) for _ in range(2))
    found = paired_difference(scores(mine), scores(baseline))
    expected = stats.ttest_rel(mine.mean(axis=0), baseline.mean(axis=0))
    interval = expected.confidence_interval()
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_more_cases_are_no_further_evidence() -> None:
    """Runs differ; a case that is repeated a hundred times shows nothing new."""
    one = paired_difference(seeds(0.5, 0.6, 0.7, 0.5, 0.6), seeds(0.5, 0.5, 0.6, 0.6, 0.5))
    rows = ((0.5, 0.6, 0.7, 0.5, 0.6), (0.5, 0.5, 0.6, 0.6, 0.5))
    many = [scores([[*row]] * 100, [str(n) for n in range(100)]) for row in rows]
    assert paired_difference(*many).p == pytest.approx(one.p)


@pytest.mark.parametrize("count", range(1, MIN_SEEDS))
def test_few_seeds_have_neither_interval_nor_p_value(count: int) -> None:
    found = difference_of([0.1] * count)
    assert (found.seeds, found.better, found.mean) == (count, count, pytest.approx(0.1))
    assert np.isnan([found.low, found.high, found.p]).all()


def test_no_effect_is_seen_in_one_study_of_twenty() -> None:
    drawn = np.random.default_rng(0).normal(0, 1, (2000, MIN_SEEDS))
    found = [difference_of(one) for one in drawn]
    assert 0.03 <= np.mean([one.p < 0.05 for one in found]) <= 0.07
    assert 0.03 <= np.mean([not one.low <= 0 <= one.high for one in found]) <= 0.07


def test_no_difference_is_no_evidence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = paired_difference(seeds(*[0.0] * 5), seeds(*[0.0] * 5))
    assert (same.mean, same.low, same.high, same.p, same.better, same.worse) == (0, 0, 0, 1, 0, 0)
    assert difference_of([NAN, NAN]) == Difference()


def test_lower_may_be_better() -> None:
    found = difference_of([-1.0, -2.0, 1.0], higher_is_better=False)
    assert (found.better, found.worse) == (2, 1)


def test_p_values_are_corrected_for_their_number() -> None:
    assert holm([0.01, NAN, 0.04, 0.03]) == pytest.approx([0.03, NAN, 0.06, 0.06], nan_ok=True)
    assert holm([0.9, 0.8]) == [1, 1]
    assert math.isnan(holm([NAN])[0])


def test_what_follows_is_written_in_words() -> None:
    few, gain = difference_of([0.1, 0.2, 0.1]), difference_of([0.1, 0.2, 0.1, 0.2, 0.1])
    loss, unclear = difference_of([-0.1, -0.2, -0.1, -0.2, -0.1]), difference_of([0.1, -0.2, 0.1, 0.2, 0.1])
    assert evidence(few, few.p) == "3 seeds: no p-value; better in 3 of 3"
    assert evidence(difference_of([-0.1]), NAN) == "1 seed: no p-value; better in 0 of 1"
    assert evidence(gain, 0.0004) == "5 seeds: better, p < 0.001; better in 5 of 5"
    assert evidence(loss, 0.003) == "5 seeds: worse, p = 0.003; better in 0 of 5"
    assert evidence(unclear, 0.4) == "5 seeds: no difference shown, p = 0.400; better in 4 of 5"
    assert evidence(Difference(), NAN) == ""
    falls = difference_of([-0.1] * 5, higher_is_better=False)
    assert evidence(falls, 0.01, higher_is_better=False).startswith("5 seeds: better")


def test_no_gain_is_claimed_where_other_metrics_get_worse_in_most_seeds() -> None:
    hd95, nsd = difference_of([2.0, 1.0, -1.0], False), difference_of([0.1, -0.1, 0.1])
    found = setbacks({"HD95": hd95, "NSD": nsd})
    assert found == "HD95 worse in 2 of 3"
    gain, loss = difference_of([0.1] * 3), difference_of([-0.1] * 3)
    assert evidence(gain, NAN, found) == "3 seeds: no p-value; better in 3 of 3, but HD95 worse in 2 of 3: no gain"
    many = evidence(difference_of([0.1] * 5), 0.0, found)
    assert many == "5 seeds: no gain, p < 0.001; better in 5 of 5, but HD95 worse in 2 of 3"
    assert "no gain" not in evidence(loss, NAN, found)
    assert setbacks({"HD95": difference_of([1.0, -1.0], False)}) == "", "half of the seeds are not most"
    assert setbacks({"HD95": Difference()}) == "", "runs from before it was measured"


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
    assert math.isnan(labels_for({4: NAN}, 0.5))


@pytest.mark.parametrize("level", [0.0, 0.5])
def test_a_flat_curve_is_read_at_its_smallest_size(level: float) -> None:
    """All Dice 0, for example: nothing is divided by the rise of the curve."""
    assert labels_for({4: level, 8: level, 16: level}, level) == 4
    assert labels_for({4: level, 8: level}, level + 0.1) == math.inf
    flat = pd.DataFrame({4.0: [level] * 5, 8.0: [level] * 5})
    assert labels_saved(flat, pd.Series([level] * 5), 4) == (0, -math.inf, math.inf)


def test_equal_numbers_of_labelled_cases_are_one_point() -> None:
    """10 % of 40 cases and 4 cases are the same size."""
    curve = pd.DataFrame([[0.5, 0.7, 0.8]] * 2, columns=[4.0, 4.0, 8.0])
    assert labels_saved(curve, pd.Series([0.7, 0.7]), 4)[0] == pytest.approx(4 * 2**0.5 - 4)


def test_labels_saved_have_an_interval_from_five_seeds_on() -> None:
    noise = np.array([-0.02, -0.01, 0.0, 0.01, 0.02])
    curve = pd.DataFrame({4.0: 0.5 + noise, 8.0: 0.6 + noise[::-1], 16.0: 0.7 + noise})
    saved, low, high = labels_saved(curve, pd.Series(0.6 + noise), 4)
    assert saved == pytest.approx(4)
    assert low < saved < high
    for number, sign in ((low + 4, 1), (high + 4, -1)):  # at its ends, the test over seeds is just not significant
        inside, outside = (
            difference_of(0.6 + noise - [np.interp(np.log(at), np.log([4, 8, 16]), row) for row in curve.to_numpy()]).p
            for at in (number, number - sign * 0.2)
        )
        assert outside < 0.05 <= inside
    assert labels_saved(curve, pd.Series(0.9 + noise), 4) == (math.inf, math.inf, math.inf)
    assert np.isnan(labels_saved(curve, pd.Series(0.1 + noise), 4)).all()
    few = labels_saved(curve[:3], pd.Series(0.6 + noise[:3]), 4)
    assert np.isfinite(few[0])
    assert np.isnan(few[1:]).all()


def test_labels_saved_use_the_sizes_that_have_all_seeds() -> None:
    curve = pd.DataFrame({4.0: [0.5, 0.5], 8.0: [0.9, NAN], 16.0: [0.7, 0.7]})
    assert labels_saved(curve, pd.Series([0.6, 0.6]), 4)[0] == pytest.approx(8 - 4)
    assert np.isnan(labels_saved(curve[[4.0, 8.0]], pd.Series([0.6, 0.6]), 4)).all()


def test_ranks_of_methods_that_differ_in_every_seed_are_certain() -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(0, 1, (6, 5))
    found = ranking({"low": scores(base), "high": scores(base + 0.1), "middle": scores(base + 0.05)})
    assert found["rank"].tolist() == found["low"].tolist() == found["high"].tolist() == [3, 1, 2]
    assert found["first"].tolist() == [0, 5, 0]
    assert ranking({"low": scores(base), "high": scores(base + 0.1)}, False)["rank"].tolist() == [1, 2]


def test_ranks_that_hang_on_one_seed_are_not() -> None:
    found = ranking({"one": seeds(0.5, 0.5, 0.5, 0.5, 0.5), "other": seeds(0.52, 0.52, 0.52, 0.52, 0.3)})
    assert found.loc["one", "rank"] == 1
    assert found["first"].tolist() == [1, 4]
    assert found[["low", "high"]].to_numpy().tolist() == [[1, 2], [1, 2]]


def test_ranks_of_few_seeds_have_no_interval() -> None:
    found = ranking({"one": seeds(0.5, 0.9, 0.5), "other": seeds(0.6, 0.6, 0.6)})
    assert found["rank"].tolist() == [1, 2]
    assert found["first"].tolist() == [1, 2]
    assert found["seeds"].tolist() == [3, 3]
    assert found[["low", "high"]].isna().all(axis=None)


def test_only_seeds_and_cases_that_all_methods_have_are_ranked() -> None:
    assert ranking({"one": seeds(0.5, 0.9), "other": seeds(0.6)})["rank"].tolist() == [2, 1]
    full, part = scores([[0.5], [0.9]]), scores([[0.6]])
    assert ranking({"full": full, "part": part})["rank"].tolist() == [2, 1]
    assert ranking({"full": full, "none": part.iloc[:0]})["rank"].isna().all()


def test_equal_methods_share_a_rank() -> None:
    found = ranking({name: seeds(*[0.0] * 5) for name in "ab"})
    assert found[["rank", "low", "high", "first"]].to_numpy().tolist() == [[1, 1, 2, 5], [1, 1, 2, 5]]
