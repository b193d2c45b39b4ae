"""What commands print: tables for people on stdout, or one JSON document with ``--json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from nnunet_limited.errors import LimitedError

console = Console(soft_wrap=True)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A setting, e.g. consistency_weight=0.3; repeatable. Gives the plans a name of their own.",
    ),
]


def show_json(content: Any) -> None:
    """Print ``content`` as JSON."""
    print(json.dumps(content, indent=2))


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table)


def show_next(*commands: str) -> None:
    """Print what to run next."""
    console.print("\nNext:")
    for command in commands:
        console.print(f"  {command}", markup=False, highlight=False)


def read_list(file: Path | None, option: str) -> tuple[str, ...]:
    """Read case names, one a line; blank lines and lines that begin with # do not count."""
    if file is None:
        return ()
    if not file.is_file():
        raise LimitedError(f"{option} {file} does not exist; write one case name a line into it")
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise LimitedError(f"{option} {file} is not a text file ({error}); write one case name a line") from error
    cases = tuple(line for line in lines if line and not line.startswith("#"))
    if not cases:
        raise LimitedError(f"{option} {file} names no case; write one case name a line")
    return cases
