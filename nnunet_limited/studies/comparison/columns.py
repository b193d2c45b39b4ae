"""The columns of the tables of a comparison study."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from nnunet_limited.metrics.registry import METRICS
from nnunet_limited.report.tables import Column, number, number_column, text_column
from nnunet_limited.studies.comparison.study import Study


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
    columns = [text_column("method")]
    columns += [text_column("dataset")] if len(study.datasets) > 1 else []
    columns += [text_column("configuration")] if len(study.configurations) > 1 else []
    return [*columns, text_column("labelled", "labeled")]


def headline_columns(study: Study) -> list[Column]:
    """Return the columns of the headline table."""
    scores = [
        Column(METRICS[metric].heading(study.voxels), metric, partial(_spread, key=metric)) for metric in study.metrics
    ]
    return [
        *setting_columns(study),
        number_column("seeds", "seeds", 0),
        number_column("cases", "cases", 0),
        scores[0],
        Column(f"{METRICS[study.metrics[0]].title} against {study.reference} [95 %]", "difference", _interval),
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
