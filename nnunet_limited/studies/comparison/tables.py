"""The tables of a report."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from nnunet_limited.metrics.registry import METRICS
from nnunet_limited.metrics.statistics import (
    Difference,
    holm,
    labels_for,
    mean_and_sd,
    paired_difference,
    ranking_stability,
)
from nnunet_limited.studies.comparison.results import SETTING, Results
from nnunet_limited.studies.comparison.study import Study


def learning_curve(results: Results, place: tuple[str, str], method: str, metric: str) -> pd.DataFrame:
    """Return mean and sd of a method at each labelled size of a dataset and configuration."""
    rows = []
    for setting in results.settings():
        table = results.table(setting, method, metric)
        if setting[:2] == place and not table.empty:
            rows.append((setting[2], results.labeled_cases(setting), *mean_and_sd(table)))
    return pd.DataFrame(rows, columns=["labeled", "labeled_cases", "mean", "sd"]).sort_values("labeled_cases")


def headline(results: Results, study: Study) -> pd.DataFrame:
    """Return a row for each size and method: metrics, difference to the baseline, labels saved."""
    main = METRICS[study.metrics[0]]
    rows = []
    for setting in results.settings():
        baseline = results.table(setting, study.reference, main.name)
        points = learning_curve(results, setting[:2], study.reference, main.name)
        curve = dict(zip(points["labeled_cases"].round().astype(int), points["mean"], strict=True))
        for method in study.methods:
            table = results.table(setting, method.name, main.name)
            if table.empty:
                continue
            row: dict[str, Any] = {**dict(zip(SETTING, setting, strict=True)), "method": method.name}
            row["seeds"] = len(table.columns)
            for metric in study.metrics:
                row[metric], row[f"{metric}_sd"] = mean_and_sd(results.table(setting, method.name, metric))
            difference = Difference(0, *[np.nan] * 4)
            if method.name != study.reference and not baseline.empty:
                difference = paired_difference(table, baseline)
            row["cases"] = table.index.get_level_values("case").nunique()
            row |= {"difference": difference.mean, "low": difference.low, "high": difference.high, "p": difference.p}
            row["labels_saved"] = np.nan
            if method.name != study.reference and len(curve) > 1:
                needed = labels_for(curve, row[main.name], main.higher_is_better)
                row["labels_saved"] = needed - results.labeled_cases(setting)
            rows.append(row)
    table = pd.DataFrame(rows)
    return table if table.empty else table.assign(p_holm=holm(table["p"].tolist()))


def ranking(results: Results, study: Study) -> pd.DataFrame:
    """Return the methods' ranks at each size and how stable they are."""
    main = study.metrics[0]
    parts = []
    for setting in results.settings():
        tables = {method.name: results.table(setting, method.name, main) for method in study.methods}
        tables = {name: table for name, table in tables.items() if not table.empty}
        if len(tables) > 1:
            ranks = ranking_stability(tables, METRICS[main].higher_is_better)
            parts.append(ranks.rename_axis("method").reset_index().assign(**dict(zip(SETTING, setting, strict=True))))
    return pd.concat(parts)[[*SETTING, "method", "rank", "low", "high", "first"]] if parts else pd.DataFrame()


def classes(results: Results, study: Study) -> pd.DataFrame:
    """Return the mean of every metric by size, method and class, over seeds of the means over cases."""
    keys = [*SETTING, "method", "class"]
    if results.scores.empty:
        return pd.DataFrame()
    by_seed = results.scores.groupby([*keys, "seed"], sort=False)[list(study.metrics)].mean()
    return by_seed.groupby(keys, sort=False).mean().reset_index()


def costs(results: Results) -> pd.DataFrame:
    """Return minutes of training and memory by method."""
    done = results.runs[results.runs["state"] == "done"]
    found = done.groupby("method", sort=False).agg(
        runs=("run", "size"), minutes=("minutes", "mean"), memory_mb=("memory_mb", "max")
    )
    return found.reset_index()
