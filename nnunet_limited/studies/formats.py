"""How the tables of a report are written: what a cell shows, on the page, in Markdown and in LaTeX."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pandas as pd

from nnunet_limited.studies.study import Study
from nnunet_limited.studies.tables import TITLES, unit

Format = tuple[str, str, Callable[[Any], str]]  # heading, key to sort by, and what to show of a row


def number(value: float, digits: int = 4) -> str:
    """Return a number as text; nothing where it is not known."""
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return "more than all"
    return f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:.0f}"


def plain(name: str, key: str | None = None) -> Format:
    """Return the format of a column that is text."""
    return name, key or name, partial(_text, key=key or name)


def numeric(name: str, key: str, digits: int = 4) -> Format:
    """Return the format of a column of numbers."""
    return name, key, partial(_numeric, key=key, digits=digits)


def _text(row: Any, key: str) -> str:
    return str(row[key])


def _numeric(row: Any, key: str, digits: int) -> str:
    return number(row[key], digits)


def _spread(row: Any, key: str) -> str:
    return number(row[key]) + (f" ± {number(row[f'{key}_sd'])}" if row["seeds"] > 1 else "")


def _p(row: Any) -> str:
    value = row["p_holm"]
    return "" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def _interval(row: Any) -> str:
    return "" if math.isnan(row["low"]) else f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}]"


def setting_columns(study: Study) -> list[Format]:
    """Return the columns that say which runs a row is about; what all share goes without saying."""
    columns = [plain("method")]
    columns += [plain("dataset")] if len(study.datasets) > 1 else []
    columns += [plain("configuration")] if len(study.configurations) > 1 else []
    return [*columns, plain("labelled", "labeled")]


def headline_formats(study: Study) -> list[Format]:
    """Return the columns of the headline table."""
    scores: list[Format] = [
        (f"{TITLES[metric]}{unit(study, metric)}", metric, partial(_spread, key=metric)) for metric in study.metrics
    ]
    return [
        *setting_columns(study),
        numeric("seeds", "seeds", 0),
        numeric("cases", "cases", 0),
        scores[0],
        (f"{TITLES[study.metrics[0]]} against {study.reference} [95 %]", "difference", _interval),
        ("p (Holm)", "p_holm", _p),
        numeric("labels saved", "labels_saved", 1),
        *scores[1:],
    ]


def class_formats(study: Study) -> list[Format]:
    """Return the columns of the table of classes."""
    scores = [numeric(f"{TITLES[metric]}{unit(study, metric)}", metric) for metric in study.metrics]
    return [*setting_columns(study), plain("class"), *scores]


def ranking_formats(study: Study) -> list[Format]:
    """Return the columns of the table of ranks."""
    return [
        *setting_columns(study),
        numeric("rank", "rank", 0),
        ("95 % of resamples", "low", lambda row: f"{row['low']:.0f} to {row['high']:.0f}"),
        ("first in", "first", lambda row: f"{100 * row['first']:.0f} %"),
    ]


COSTS: list[Format] = [
    plain("method"),
    numeric("runs", "runs", 0),
    numeric("minutes of training a run", "minutes", 1),
    numeric("largest memory (MB)", "memory_mb", 0),
]
RUNS: list[Format] = [
    plain("run"),
    plain("state"),
    numeric("labelled cases", "labeled_cases", 0),
    numeric("minutes", "minutes", 1),
]


def markdown(table: pd.DataFrame, formats: Sequence[Format]) -> str:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(name for name, *_ in formats) + " |", "|" + "---|" * len(formats)]
    lines += ["| " + " | ".join(show(row) for *_, show in formats) + " |" for _, row in table.iterrows()]
    return "\n".join(lines) + "\n"


def latex(table: pd.DataFrame, formats: Sequence[Format]) -> str:
    """Return a table for LaTeX's booktabs."""
    lines = [r"\begin{tabular}{l" + "r" * (len(formats) - 1) + "}", r"\toprule"]
    lines += [" & ".join(_tex(name) for name, *_ in formats) + r" \\", r"\midrule"]
    lines += [" & ".join(_tex(show(row)) for *_, show in formats) + r" \\" for _, row in table.iterrows()]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _tex(text: str) -> str:
    for plain_text, escaped in (
        ("&", r"\&"), ("%", r"\%"), ("_", r"\_"), ("±", r"$\pm$"), ("<", "$<$"), ("³", "$^3$"),
    ):  # fmt: skip
        text = text.replace(plain_text, escaped)
    return text
