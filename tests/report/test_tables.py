"""Tables as text: what a cell shows, and what Markdown, LaTeX and a page make of it."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from nnunet_limited.report.tables import Column, latex, markdown, number, number_column, table_of, text_column

TABLE = pd.DataFrame(
    {"method": ["a_b & {c}", "<d>"], "dice": [0.91239, math.nan], "error": [1234.5, math.inf], "best": [True, False]}
)
COLUMNS = [
    text_column("method"),
    number_column("Dice [95 %]", "dice"),
    Column("±", "error", lambda row: f"±{row['error']:.0f} mm³"),
]


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.12345, 4, "0.1235"),
        (999.5, 0, "1000"),
        (1234.5, 4, "1234"),
        (math.nan, 4, ""),
        (math.inf, 1, "more than all"),
    ],
)
def test_numbers_are_short(value: float, digits: int, text: str) -> None:
    assert number(value, digits) == text


def test_markdown() -> None:
    assert markdown(TABLE, COLUMNS[:2]).splitlines() == [
        "| method | Dice [95 %] |",
        "|---|---|",
        "| a_b & {c} | 0.9124 |",
        "| \\<d> |  |",
    ]


def test_latex_escapes_what_it_would_take_for_markup() -> None:
    assert latex(TABLE, COLUMNS).splitlines() == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"method & Dice [95 \%] & $\pm$ \\",
        r"\midrule",
        r"a\_b \& \{c\} & 0.9124 & $\pm$1234 mm$^3$ \\",
        r"$<$d$>$ &  & $\pm$inf mm$^3$ \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_cells_of_a_page_sort_by_their_values() -> None:
    table = table_of("All", TABLE, COLUMNS)
    assert [column["text"] for column in table["columns"]] == [True, False, False]
    assert [[cell["key"] for cell in row["cells"]] for row in table["rows"]] == [
        [None, 0.91239, 1234.5],
        [None, "", math.inf],
    ]
    assert [row["best"] for row in table["rows"]] == [True, False]


def test_a_table_without_rows() -> None:
    assert markdown(TABLE.iloc[:0], COLUMNS[:1]) == "| method |\n|---|\n"
    assert table_of("None", TABLE.iloc[:0], COLUMNS)["rows"] == []
