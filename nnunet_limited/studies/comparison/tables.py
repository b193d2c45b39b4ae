"""The tables of a report, and their columns."""

from __future__ import annotations

import math
from functools import partial
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
from nnunet_limited.report.tables import Column, number, number_column, text_column
from nnunet_limited.studies.comparison.results import SETTING, Results
from nnunet_limited.studies.comparison.study import Study

COSTS = [
    text_column("method"),
    number_column("runs", "runs", 0),
    number_column("minutes of training per run", "minutes", 1),
    number_column("largest memory (MB)", "memory_mb", 0),
]
RUNS = [
    text_column("run"),
    text_column("state"),
    number_column("labelled cases", "labeled_cases", 0),
    number_column("minutes", "minutes", 1),
]


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
    main = study.main
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
            other = method.name != study.reference
            found = paired_difference(table, baseline) if other and not baseline.empty else Difference()
            row["cases"] = table.index.get_level_values("case").nunique()
            row |= {"difference": found.mean, "low": found.low, "high": found.high, "p": found.p}
            needed = labels_for(curve, row[main.name], main.higher_is_better) if other and len(curve) > 1 else np.nan
            rows.append({**row, "labels_saved": needed - results.labeled_cases(setting)})
    table = pd.DataFrame(rows)
    return table if table.empty else table.assign(p_holm=holm(table["p"].tolist()))


def ranking(results: Results, study: Study) -> pd.DataFrame:
    """Return the methods' ranks at each size and how stable they are."""
    parts = []
    for setting in results.settings():
        tables = {method.name: results.table(setting, method.name, study.main.name) for method in study.methods}
        tables = {name: table for name, table in tables.items() if not table.empty}
        if len(tables) > 1:
            ranks = ranking_stability(tables, study.main.higher_is_better)
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
    of = {"runs": ("run", "size"), "minutes": ("minutes", "mean"), "memory_mb": ("memory_mb", "max")}
    return done.groupby("method", sort=False).agg(**of).reset_index()


def _spread(row: Any, key: str) -> str:
    if row["seeds"] < 2 or math.isnan(row[key]):
        return number(row[key])
    return f"{number(row[key])} ± {number(row[f'{key}_sd'])}"


def _p(row: Any) -> str:
    value = row["p_holm"]
    return "" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def _interval(row: Any) -> str:
    return "" if math.isnan(row["low"]) else f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"


def setting_columns(study: Study) -> list[Column]:
    """Return the columns that say which runs a row is about, without those that are the same in every row."""
    several = {"dataset": study.datasets, "configuration": study.configurations}
    names = ["method", *(name for name, values in several.items() if len(values) > 1)]
    return [*map(text_column, names), text_column("labelled", "labeled")]


def headline_columns(study: Study) -> list[Column]:
    """Return the columns of the headline table."""
    scores = [Column(METRICS[key].heading(study.voxels), key, partial(_spread, key=key)) for key in study.metrics]
    return [
        *setting_columns(study),
        number_column("seeds", "seeds", 0),
        number_column("cases", "cases", 0),
        scores[0],
        Column(f"{study.main.title} against {study.reference} [95 %]", "difference", _interval),
        Column("p (Holm)", "p_holm", _p),
        number_column("labels saved", "labels_saved", 1),
        *scores[1:],
    ]


def class_columns(study: Study) -> list[Column]:
    """Return the columns of the table of classes."""
    scores = [number_column(METRICS[metric].heading(study.voxels), metric) for metric in study.metrics]
    return [*setting_columns(study), text_column("class"), *scores]


def ranking_columns(study: Study) -> list[Column]:
    """Return the columns of the table of ranks."""
    return [
        *setting_columns(study),
        number_column("rank", "rank", 0),
        Column("95 % of resamples", "low", lambda row: f"{row['low']:.0f} to {row['high']:.0f}"),
        Column("first in", "first", lambda row: f"{100 * row['first']:.0f} %"),
    ]
