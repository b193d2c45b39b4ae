"""The results of a study so far, the tables of its report, and their columns."""

import math
import re
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from nnunet_limited.metrics import statistics as stats
from nnunet_limited.metrics.registry import METRICS
from nnunet_limited.report.tables import Column, number, number_column, text_column
from nnunet_limited.splits.make import group_of
from nnunet_limited.studies.comparison.folder import ComparisonFolder
from nnunet_limited.studies.comparison.job import RunRecord
from nnunet_limited.studies.comparison.study import Run, Study

KEYS = ("dataset", "configuration", "labeled", "method", "seed", "fold")
COSTS = ("labeled_cases", "minutes", "memory_mb")
SETTING = ["dataset", "configuration", "labeled"]
MEAN = "mean"
Setting = tuple[str, str, str]  # dataset, configuration, labelled size
COST_COLUMNS = [
    text_column("method"),
    number_column("runs", "runs", 0),
    number_column("minutes of training per run", "minutes", 1),
    number_column("largest memory (MB)", "memory_mb", 0),
]
RUN_COLUMNS = [
    text_column("run"),
    text_column("state"),
    number_column("labelled cases", "labeled_cases", 0),
    number_column("minutes", "minutes", 1),
]
RANK_COLUMNS = [
    number_column("rank", "rank", 0),
    Column("95 % of resamples", "low", lambda row: f"{row['low']:.0f} to {row['high']:.0f}"),
    Column("first in", "first", lambda row: f"{100 * row['first']:.0f} %"),
]


@dataclass(frozen=True)
class Results:
    """``runs`` has a row for each run, ``scores`` one for each run, case and class (``mean``: that over classes)."""

    runs: pd.DataFrame
    scores: pd.DataFrame
    records: dict[Run, RunRecord]
    group_by: str | None = None

    def settings(self) -> list[Setting]:
        """Return every dataset, configuration and labelled size, in the order of the study."""
        return list(dict.fromkeys(self.runs[SETTING].itertuples(index=False, name=None)))

    def table(self, setting: Setting, method: str, metric: str, name: str = MEAN) -> pd.DataFrame:
        """Return a method's scores, rows by patient (or case), case and fold, columns by seed."""
        chosen = self.scores
        for key, value in zip((*SETTING, "method", "class"), (*setting, method, name), strict=True):
            chosen = chosen[chosen[key] == value]
        patient = re.compile(self.group_by or "$")
        table = chosen.assign(unit=[group_of(case, patient) or case for case in chosen["case"]])
        return table.pivot(index=["unit", "case", "fold"], columns="seed", values=metric)

    def cases(self, run: Run, method: str, metric: str) -> pd.Series:
        """Return the score of each case of a run of the method of that name, without cases that have none."""
        scores = self.table(run.setting, method, metric)[run.seed].xs(run.fold, level="fold")
        return scores.droplevel("unit").sort_index().dropna()

    def labeled_cases(self, setting: Setting) -> float:
        """Return the mean number of labelled cases of a size, nan if nothing was trained on it."""
        rows = self.runs[(self.runs[SETTING] == list(setting)).all(axis=1)]
        return float(rows["labeled_cases"].mean())


def load_results(folder: ComparisonFolder) -> Results:
    """Read all that is done."""
    names = {method.slug: method.name for method in folder.study.methods}
    rows, scores, records = [], [], {}
    for run, state, log in folder.states():
        keys = {key: getattr(run, key) for key in KEYS} | {"method": names[run.method]}
        row = {**keys, "run": run.identifier, "state": state, "log": log, **dict.fromkeys(COSTS, np.nan)}
        if state == "done":
            record = records[run] = folder.record(run)
            row.update({key: record[key] for key in COSTS})
            found = pd.read_csv(folder.run_folder(run) / "metrics.csv", dtype={"case": str, "class": str})
            found = found.reindex(columns=["case", "class", *METRICS])  # a metric may be newer than the run
            means = found.groupby("case", as_index=False)[list(METRICS)].mean()
            scores.append(pd.concat([found, means.assign(**{"class": MEAN})]).assign(**keys))
        rows.append(row)
    empty = pd.DataFrame(columns=[*KEYS, "case", "class", *METRICS])
    found = pd.concat(scores, ignore_index=True) if scores else empty
    return Results(pd.DataFrame(rows), found, records, folder.study.group_by)


def learning_curve(results: Results, place: tuple[str, str], method: str, metric: str) -> pd.DataFrame:
    """Return mean and sd of a method at each labelled size of a dataset and configuration."""
    rows = []
    for setting in results.settings():
        table = results.table(setting, method, metric)
        if setting[:2] == place and not table.empty:
            rows.append((setting[2], results.labeled_cases(setting), *stats.mean_and_sd(table)))
    return pd.DataFrame(rows, columns=["labeled", "labeled_cases", "mean", "sd"]).sort_values("labeled_cases")


def headline(results: Results, study: Study) -> pd.DataFrame:
    """Return a row for each size and method: metrics, difference to the baseline, labels saved."""
    main = study.main
    rows = []
    for setting in results.settings():
        baseline = results.table(setting, study.reference, main.name)
        means = learning_curve(results, setting[:2], study.reference, main.name).set_index("labeled_cases")["mean"]
        curve = {round(number): mean for number, mean in means.items()}
        for method in study.methods:
            table = results.table(setting, method.name, main.name)
            if table.empty:
                continue
            row: dict[str, Any] = {**dict(zip(SETTING, setting, strict=True)), "method": method.name}
            row["seeds"] = len(table.columns)
            for metric in study.metrics:
                row[metric], row[f"{metric}_sd"] = stats.mean_and_sd(results.table(setting, method.name, metric))
            other = method.name != study.reference
            found = stats.paired_difference(table, baseline) if other and not baseline.empty else stats.Difference()
            row["cases"] = table.index.get_level_values("case").nunique()
            row |= {"difference": found.mean, "low": found.low, "high": found.high, "p": found.p}
            points = curve if other and len(curve) > 1 else {}
            needed = stats.labels_for(points, row[main.name], main.higher_is_better)
            rows.append({**row, "labels_saved": needed - results.labeled_cases(setting)})
    table = pd.DataFrame(rows)
    return table if table.empty else table.assign(p_holm=stats.holm(table["p"].tolist()))


def ranking(results: Results, study: Study) -> pd.DataFrame:
    """Return the methods' ranks at each size and how stable they are."""
    parts = []
    for setting in results.settings():
        tables = {method.name: results.table(setting, method.name, study.main.name) for method in study.methods}
        tables = {name: table for name, table in tables.items() if not table.empty}
        if len(tables) > 1:
            ranks = stats.ranking_stability(tables, study.main.higher_is_better)
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


def class_columns(study: Study) -> list[Column]:
    """Return the columns of the table of classes, without those of the setting."""
    scores = [number_column(METRICS[metric].heading(study.voxels), metric) for metric in study.metrics]
    return [text_column("class"), *scores]


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
