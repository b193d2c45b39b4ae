"""The results of a study so far, the tables of its report, and their columns."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from nnunet_limited.metrics import statistics as stats
from nnunet_limited.metrics.registry import METRICS, SAFEGUARDS
from nnunet_limited.report.tables import Column, interval, number, number_column, text_column
from nnunet_limited.runs.evaluate import read_rows
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
    number_column("seeds", "seeds", 0),
    number_column("rank", "rank", 0),
    Column(
        "rank [95 %]", "low", lambda row: "" if math.isnan(row["low"]) else f"{row['low']:.0f} to {row['high']:.0f}"
    ),
    Column("first in", "first", lambda row: f"{row['first']:.0f} of {row['seeds']:.0f} seeds" if row["seeds"] else ""),
]


@dataclass(frozen=True)
class Results:
    """``runs`` has a row for each run, ``scores`` one for each run, case and class."""

    runs: pd.DataFrame
    scores: pd.DataFrame
    records: dict[Run, RunRecord]

    def settings(self) -> list[Setting]:
        """Return every dataset, configuration and labelled size, in the order of the study."""
        return list(dict.fromkeys(self.runs[SETTING].itertuples(index=False, name=None)))

    def table(self, setting: Setting, method: str, metric: str) -> pd.Series:
        """Return a method's scores by seed, case, fold and class, as ``metrics.statistics`` takes them."""
        chosen = self.scores
        for key, value in zip((*SETTING, "method"), (*setting, method), strict=True):
            chosen = chosen[chosen[key] == value]
        return chosen.set_index(["seed", "case", "fold", "class"])[metric].astype(float)

    def by_case(self, setting: Setting, method: str, metric: str) -> pd.Series:
        """Return the mean over classes, then seeds, of each case and fold, for pictures of single cases."""
        classes = self.table(setting, method, metric).groupby(level=["seed", "case", "fold"]).mean()
        return classes.groupby(level=["case", "fold"]).mean().dropna()

    def cases(self, run: Run, method: str, metric: str) -> pd.Series:
        """Return the score of each case of a run of the method of that name, without cases that have none."""
        classes = self.table(run.setting, method, metric).xs((run.seed, run.fold), level=("seed", "fold"))
        return classes.groupby(level="case").mean().dropna()

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
            found = read_rows(folder.run_folder(run) / "metrics.csv")
            found = found.reindex(columns=["case", "class", *METRICS])  # a metric may be newer than the run
            scores.append(found.assign(**keys))
        rows.append(row)
    empty = pd.DataFrame(columns=[*KEYS, "case", "class", *METRICS])
    found = pd.concat(scores, ignore_index=True) if scores else empty
    return Results(pd.DataFrame(rows), found, records)


def learning_curve(results: Results, place: tuple[str, str], method: str, metric: str) -> pd.DataFrame:
    """Return mean and sd of a method at each labelled size of a dataset and configuration."""
    rows = []
    for setting in results.settings():
        table = results.table(setting, method, metric)
        if setting[:2] == place and not table.empty:
            rows.append((setting[2], results.labeled_cases(setting), *stats.mean_and_sd(table)))
    return pd.DataFrame(rows, columns=["labeled", "labeled_cases", "mean", "sd"]).sort_values("labeled_cases")


def headline(results: Results, study: Study) -> pd.DataFrame:
    """Return a row for each size and method: metrics, difference to the baseline, labels saved, and what follows."""
    rows, found = [], []
    for setting in results.settings():
        curve = _reference_curve(results, study, setting[:2])
        for method in study.methods:
            table = results.table(setting, method.name, study.main.name)
            if table.empty:
                continue
            row: dict[str, Any] = {**dict(zip(SETTING, setting, strict=True)), "method": method.name}
            row["seeds"], row["cases"] = (table.index.unique(level).size for level in ("seed", "case"))
            for metric in shown_metrics(study):
                row[metric], row[f"{metric}_sd"] = stats.mean_and_sd(results.table(setting, method.name, metric))
            against = _differences(results, study, setting, method.name)
            main = against.pop(study.main.name)
            found.append(main)
            row |= {"paired_seeds": main.seeds, "better": main.better, "difference": main.mean}
            row |= {"low": main.low, "high": main.high, "p": main.p}
            row["setbacks"] = stats.setbacks({METRICS[name].title: one for name, one in against.items()})
            saved = (math.nan,) * 3
            if method.name != study.reference:
                saved = stats.labels_saved(
                    curve,
                    stats.seed_means(table).reindex(curve.index).dropna(),
                    results.labeled_cases(setting),
                    study.main.higher_is_better,
                )
            rows.append(row | dict(zip(("labels_saved", "labels_saved_low", "labels_saved_high"), saved, strict=True)))
    p, higher = stats.holm([row["p"] for row in rows]), study.main.higher_is_better
    for row, difference, corrected in zip(rows, found, p, strict=True):
        row |= {"p_holm": corrected, "evidence": stats.evidence(difference, corrected, row["setbacks"], higher)}
    return pd.DataFrame(rows)


def _differences(results: Results, study: Study, setting: Setting, method: str) -> dict[str, stats.Difference]:
    """Return a method's difference to the baseline in the main metric and the safeguards; empty for the baseline."""
    names = dict.fromkeys((study.main.name, *SAFEGUARDS))
    if method == study.reference:
        return dict.fromkeys(names, stats.Difference())
    return {
        name: stats.paired_difference(
            results.table(setting, method, name),
            results.table(setting, study.reference, name),
            METRICS[name].higher_is_better,
        )
        for name in names
    }


def _reference_curve(results: Results, study: Study, place: tuple[str, str]) -> pd.DataFrame:
    """Return the baseline's scores in the main metric, a row for each seed and a column for each labelled size."""
    curve = {}
    for setting in results.settings():
        table = results.table(setting, study.reference, study.main.name)
        if setting[:2] == place and not table.empty:
            curve[setting] = stats.seed_means(table)
    table = pd.DataFrame(curve)
    return table.set_axis([results.labeled_cases(setting) for setting in curve], axis="columns")


def ranking(results: Results, study: Study) -> pd.DataFrame:
    """Return the methods' ranks at each size and how certain they are."""
    parts = []
    for setting in results.settings():
        tables = {method.name: results.table(setting, method.name, study.main.name) for method in study.methods}
        tables = {name: table for name, table in tables.items() if not table.empty}
        if len(tables) > 1:
            ranks = stats.ranking(tables, study.main.higher_is_better)
            parts.append(ranks.rename_axis("method").reset_index().assign(**dict(zip(SETTING, setting, strict=True))))
    columns = [*SETTING, "method", "seeds", "rank", "low", "high", "first"]
    return pd.concat(parts)[columns] if parts else pd.DataFrame()


def classes(results: Results, study: Study) -> pd.DataFrame:
    """Return the mean of every metric by size, method and class (``mean``: that over classes).

    It is the mean over seeds of the means over cases.
    """
    keys = [*SETTING, "method", "class"]
    if results.scores.empty:
        return pd.DataFrame()
    metrics = list(shown_metrics(study))
    by_seed = results.scores.groupby([*keys, "seed"], sort=False)[metrics].mean()
    by_class = by_seed.groupby(keys, sort=False).mean().reset_index()
    parts = []
    for place, part in by_class.groupby(keys[:-1], sort=False):
        mean = dict(zip(keys, (*place, MEAN), strict=True)) | part[metrics].mean().to_dict()
        parts.append(pd.concat([part, pd.DataFrame([mean])]))
    return pd.concat(parts, ignore_index=True)


def costs(results: Results) -> pd.DataFrame:
    """Return minutes of training and memory by method."""
    done = results.runs[results.runs["state"] == "done"]
    of = {"runs": ("run", "size"), "minutes": ("minutes", "mean"), "memory_mb": ("memory_mb", "max")}
    return done.groupby("method", sort=False).agg(**of).reset_index()


def shown_metrics(study: Study) -> tuple[str, ...]:
    """Return the metrics of the tables: the main one, the safeguards beside it, and the others."""
    return tuple(dict.fromkeys((study.main.name, *SAFEGUARDS, *study.metrics)))


def _spread(row: Any, key: str) -> str:
    if row["seeds"] < 2 or math.isnan(row[key]):
        return number(row[key])
    return f"{number(row[key])} ± {number(row[f'{key}_sd'])}"


def _saved(row: Any) -> str:
    low, high = row["labels_saved_low"], row["labels_saved_high"]
    if math.isnan(low):
        return number(row["labels_saved"], 1)
    start = "less" if low == -math.inf else number(low, 1)
    return f"{number(row['labels_saved'], 1)} [{start}, {number(high, 1)}]"


def class_columns(study: Study) -> list[Column]:
    """Return the columns of the table of classes, without those of the setting."""
    scores = [number_column(METRICS[metric].heading(study.voxels), metric) for metric in shown_metrics(study)]
    return [text_column("class"), *scores]


def setting_columns(study: Study) -> list[Column]:
    """Return the columns that say which runs a row is about, without those that are the same in every row."""
    several = {"dataset": study.datasets, "configuration": study.configurations}
    names = ["method", *(name for name, values in several.items() if len(values) > 1)]
    return [*map(text_column, names), text_column("labelled", "labeled")]


def headline_columns(study: Study) -> list[Column]:
    """Return the columns of the headline table: the main metric, the safeguards and what follows come first."""
    scores = [
        Column(METRICS[key].heading(study.voxels), key, partial(_spread, key=key)) for key in shown_metrics(study)
    ]
    first = len(dict.fromkeys((study.main.name, *SAFEGUARDS)))
    return [
        *setting_columns(study),
        number_column("seeds", "seeds", 0),
        number_column("cases", "cases", 0),
        *scores[:first],
        Column(f"{study.main.title} against {study.reference} [95 %]", "difference", interval),
        text_column("evidence"),
        Column("labels saved [95 %]", "labels_saved", _saved),
        *scores[first:],
    ]
