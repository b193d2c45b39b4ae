"""Tables as text: what a cell shows, and what Markdown, LaTeX and a page make of it."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from nnunet_limited.cli.output import show_table
from nnunet_limited.metrics.registry import METRICS
from nnunet_limited.report.figures import picture
from nnunet_limited.report.tables import (
    Column,
    csv_text,
    latex,
    markdown,
    number,
    number_column,
    table_of,
    text_column,
)
from nnunet_limited.runs.evaluate import read_rows, write_rows

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


def test_a_spreadsheet_computes_no_text(tmp_path: Path) -> None:
    names = ["=cmd|calc!A0", "@x", "+1-1", "-a", "\t=1", "'x", "\uff1d1", "nan", "NA", "a,b", "plain"]
    rows = pd.DataFrame({"case": names, "class": names, **{metric: -0.5 for metric in METRICS}})
    write_rows(tmp_path / "metrics.csv", rows)
    text = (tmp_path / "metrics.csv").read_text(encoding="utf-8")
    assert not any(
        cell.startswith(("=", "@", "+", "-a", "\t", "\uff1d")) for cell in text.replace("\n", ",").split(",")
    )
    assert "'=cmd|calc!A0,'=cmd|calc!A0,-0.5" in text
    pd.testing.assert_frame_equal(read_rows(tmp_path / "metrics.csv"), rows, check_dtype=False)
    assert csv_text(pd.DataFrame({"n": ["-1.5", "+2"]})) == "n\n-1.5\n+2\n"


def test_markup_in_names_is_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    names = ["o[/b]", "[red]x", ":smile:", r"\input{/etc/passwd}", "a|b", "$\\frac{$"]
    show_table("[/x]", ("class", "[/y]"), [(name, "1") for name in names])
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)
    table = pd.DataFrame({"method": names, "dice": 1.0})
    assert r"\input" not in latex(table, COLUMNS[:1])
    assert markdown(table, COLUMNS[:1]).replace("\\|", "").count("|") == 2 * (2 + len(names))
    figure = Figure()
    figure.subplots().set(title=names[-1], xlabel=names[0])
    assert picture(figure).png.startswith(b"\x89PNG")
