"""The tables of a comparison study from made-up scores: what is claimed, and what is not."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nnunet_limited.metrics.registry import METRICS
from nnunet_limited.report.tables import markdown
from nnunet_limited.studies.comparison.report import _headline_section, summary
from nnunet_limited.studies.comparison.results import (
    RANK_COLUMNS,
    Results,
    classes,
    headline,
    headline_columns,
    ranking,
)
from nnunet_limited.studies.comparison.study import Study

METHODS = [{"name": "supervised"}, {"name": "other"}]
Scores = dict[tuple[str, str], list[float]]


def study(seeds: int, **changes: Any) -> Study:
    fields = {"name": "s", "datasets": ["d"], "labeled": [4, 8, 16], "methods": METHODS, "configurations": ["2d"]}
    return Study(**{**fields, "seeds": range(seeds), **changes})


def results(dice: Scores, **others: Scores) -> Results:
    """Return results of two cases and two classes; ``dice[method, size]`` has the mean of each seed."""
    metrics = {"dice": dice, **others}
    runs, scores = [], []
    for (method, size), values in dice.items():
        for seed in range(len(values)):
            keys = {"dataset": "d", "configuration": "2d", "labeled": size, "method": method, "seed": seed, "fold": 0}
            runs.append({**keys, "run": "", "state": "done", "labeled_cases": int(size), "minutes": 1, "memory_mb": 1})
            for case, name in product("ab", "xy"):
                shift = 0.01 * (1 if case == "a" else -1) * (2 if name == "x" else -1)
                row = {key: by_run[method, size][seed] + shift for key, by_run in metrics.items()}
                scores.append({"case": case, "class": name, **dict.fromkeys(METRICS, np.nan), **row, **keys})
    return Results(pd.DataFrame(runs), pd.DataFrame(scores), {})


NOISE = np.array([-0.02, -0.01, 0.0, 0.01, 0.02])
BETTER = np.array([0.08, 0.09, 0.1, 0.11, 0.13])
DICE: Scores = {("supervised", size): list(mean + NOISE) for size, mean in (("4", 0.5), ("8", 0.6), ("16", 0.7))}
DICE["other", "4"] = list(0.5 + NOISE + BETTER)


def row_of(table: pd.DataFrame, method: str = "other", size: str = "4") -> pd.Series:
    return table[(table["method"] == method) & (table["labeled"] == size)].iloc[0]


def test_five_seeds_have_the_interval_and_p_value_of_the_t_test() -> None:
    row = row_of(headline(results(DICE), study(5)))
    expected = stats.ttest_1samp(BETTER, 0)
    assert (row["low"], row["high"]) == pytest.approx(tuple(expected.confidence_interval()))
    assert row["p"] == row["p_holm"] == pytest.approx(expected.pvalue)
    assert row["evidence"] == "5 seeds: better, p < 0.001; better in 5 of 5"
    assert row["labels_saved_low"] < row["labels_saved"] < row["labels_saved_high"]
    shown = markdown(headline(results(DICE), study(5)), headline_columns(study(5)))
    assert "+0.1020 [+0.0" in shown
    assert "4.1 [" in shown


def test_fewer_seeds_have_counts_only() -> None:
    few = results({key: values[:4] for key, values in DICE.items()})
    row = row_of(headline(few, study(4)))
    assert row["evidence"] == "4 seeds: no p-value; better in 4 of 4"
    assert row[["low", "high", "p", "p_holm", "labels_saved_low", "labels_saved_high"]].isna().all()
    ranks = markdown(ranking(few, study(4)), RANK_COLUMNS)
    assert "| 4 | 1 |  | 4 of 4 seeds |" in ranks


def test_ranks_of_five_seeds_have_an_interval() -> None:
    assert "| 5 | 1 | 1 to 1 | 5 of 5 seeds |" in markdown(ranking(results(DICE), study(5)), RANK_COLUMNS)


def test_no_gain_is_claimed_where_surfaces_get_worse() -> None:
    """Not in the words, not in the summary, and the row is not marked as the best."""
    hd95: Scores = {key: [5.0] * 5 for key in DICE} | {("other", "4"): [6.0, 6.0, 6.0, 4.0, 4.0]}
    found = results(DICE, hd95=hd95)
    table = headline(found, study(5))
    assert row_of(table)["evidence"] == "5 seeds: no gain, p < 0.001; better in 5 of 5, but HD95 worse in 3 of 5"
    assert "other 0.602 (5 seeds: no gain" in summary(found, study(5), table)
    rows = _headline_section(study(5), table).tables[0]["rows"]
    best = [row["cells"][0]["shown"] for row in rows if row["best"] and row["cells"][1]["shown"] == "4"]
    assert best == ["supervised"]
    hd95["other", "4"] = [6.0, 6.0, 4.0, 4.0, 4.0]
    assert "no gain" not in row_of(headline(results(DICE, hd95=hd95), study(5)))["evidence"]


def test_safeguards_are_in_the_table_whatever_metrics_the_study_lists() -> None:
    titles = [column.title for column in headline_columns(study(5, metrics=["iou", "dice"]))]
    assert titles[4:8] == ["IoU", "HD95 (mm)", "NSD", "IoU against supervised [95 %]"]
    assert titles[-1] == "Dice"


@pytest.mark.parametrize("seeds", [1, 3, 5])
def test_a_dice_of_zero_everywhere_has_tables_too(seeds: int) -> None:
    """A learning curve that does not rise, in which nothing differs."""
    found = results({key: [0.0] * seeds for key in DICE})
    found.scores[["dice", "hd95"]] = 0.0, 100.0
    table = headline(found, study(seeds))
    assert row_of(table)["difference"] == row_of(table)["labels_saved"] == 0
    assert "better in 0 of" in row_of(table)["evidence"]
    assert ranking(found, study(seeds))["rank"].tolist() == [1, 1]
    assert "supervised 0.000" in summary(found, study(seeds), table)


def test_equal_sizes_are_one_point_of_the_curve() -> None:
    """4 and 10 % of 40 cases; nothing is divided by their distance."""
    found = results(DICE)
    found.runs.loc[found.runs["labeled"] == "8", "labeled_cases"] = 4
    assert np.isfinite(row_of(headline(found, study(5)))["labels_saved"])


def test_the_mean_is_over_the_cases_of_a_class_first() -> None:
    found = results(DICE)
    missing = (found.scores["class"] == "x") & (found.scores["case"] == "b")
    found.scores.loc[missing, "dice"] = np.nan
    row, by_class = row_of(headline(found, study(5))), classes(found, study(5))
    mine = by_class[(by_class["method"] == "other") & (by_class["labeled"] == "4")].set_index("class")["dice"]
    assert mine.index.tolist() == ["x", "y", "mean"]
    assert row["dice"] == pytest.approx(mine[["x", "y"]].mean()) == mine["mean"]
    by_case = found.scores[(found.scores["method"] == "other")].groupby("case")["dice"].mean().mean()
    assert abs(row["dice"] - by_case) > 0.001
