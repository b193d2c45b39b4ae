"""Tables as they are shown: the columns of a table, and its text on a page, in Markdown, LaTeX and CSV."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

_COMPUTED = tuple("=+-@\t\r'\uff1d\uff0b\uff0d\uff20")  # begins what a spreadsheet computes, or our own mark of text


@dataclass(frozen=True)
class Column:
    """A column as it is shown: its title, the column of the table to sort by, and the text of a row."""

    title: str
    key: str
    show: Callable[[pd.Series], str]


def number(value: float, digits: int = 4) -> str:
    """Return a number as text: empty for nan, ``more than all`` for infinity, no decimals from 1000 on."""
    if math.isnan(value):
        return ""
    if math.isinf(value):
        return "more than all"
    return f"{value:.{digits}f}" if abs(value) < 1000 else f"{value:.0f}"


def interval(row: pd.Series) -> str:
    """Return the ``difference`` of a row with its interval from ``low`` to ``high``, if it has one."""
    if math.isnan(row["difference"]):
        return ""
    ends = "" if math.isnan(row["low"]) else f" [{row['low']:+.4f}, {row['high']:+.4f}]"
    return f"{row['difference']:+.4f}{ends}"


def text_column(title: str, key: str | None = None) -> Column:
    """Return a column of text; by default its title is its key."""
    return Column(title, key or title, lambda row: str(row[key or title]))


def number_column(title: str, key: str, digits: int = 4) -> Column:
    """Return a column of numbers."""
    return Column(title, key, lambda row: number(row[key], digits))


def shown(table: pd.DataFrame, columns: Sequence[Column]) -> pd.DataFrame:
    """Return the table as text; titles may occur twice."""
    rows = [[column.show(row) for column in columns] for _, row in table.iterrows()]
    return pd.DataFrame(rows, columns=[column.title for column in columns])


def markdown(table: pd.DataFrame, columns: Sequence[Column]) -> str:
    """Return a table in Markdown."""
    text = shown(table, columns)  # to_markdown would need one more package, tabulate
    rows = ([*text.columns], *text.to_numpy().tolist())
    head, *lines = ("| " + " | ".join(map(_in_markdown, line)) + " |" for line in rows)
    return "\n".join([head, "|" + "---|" * len(columns), *lines]) + "\n"


def _in_markdown(text: str) -> str:
    """Return a text of which Markdown makes neither another cell nor code, a link or HTML."""
    return re.sub(r"([\\|`]|\[(?=[^]]*\]\()|<(?=[A-Za-z/!?]))", r"\\\1", text)


def csv_text(table: pd.DataFrame, **options: Any) -> str:
    """Return a table as CSV; a text that a spreadsheet would compute begins with an apostrophe, numbers stay.

    ``options`` are those of pandas; without them there is no index.
    """
    text = table.apply(lambda column: column if pd.api.types.is_numeric_dtype(column) else column.map(_cell_of_csv))
    return str(text.to_csv(**{"index": False, **options}))


def read_cell(text: str) -> str:
    """Return the text that :func:`csv_text` has written into a cell."""
    return text[1:] if text.startswith("'") else text


def _cell_of_csv(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith(_COMPUTED):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def latex(table: pd.DataFrame, columns: Sequence[Column]) -> str:
    """Return a table for LaTeX with the package booktabs."""
    text = shown(table, columns).to_latex(index=False, escape=True, column_format="l" + "r" * (len(columns) - 1))
    for plain, escaped in (("±", r"$\pm$"), ("<", "$<$"), (">", "$>$"), ("³", "$^3$")):
        text = text.replace(plain, escaped)
    return text


def table_of(caption: str, table: pd.DataFrame, columns: Sequence[Column]) -> dict[str, Any]:
    """Return a table for a page; a row with a true ``best`` stands out, and cells sort by what they were made from."""
    text = shown(table, columns).to_numpy().tolist()
    rows: list[dict[str, Any]] = []
    for (_, row), texts in zip(table.iterrows(), text, strict=True):
        cells = [_cell(row[column.key], shown) for column, shown in zip(columns, texts, strict=True)]
        rows.append({"cells": cells, "best": bool(row.get("best", False))})
    heads = [{"name": c.title, "text": bool(rows) and rows[0]["cells"][n]["text"]} for n, c in enumerate(columns)]
    return {"caption": caption, "columns": heads, "rows": rows}


def _cell(value: Any, text: str) -> dict[str, Any]:
    if not isinstance(value, (int, float, np.number)):
        return {"shown": text, "key": None, "text": True}
    return {"shown": text, "key": "" if math.isnan(value) else value, "text": False}
