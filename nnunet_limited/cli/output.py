"""What commands print: tables for people on stdout, or one JSON document with ``--json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

console = Console(soft_wrap=True)


def show_json(content: Any) -> None:
    """Print ``content`` as JSON."""
    print(json.dumps(content, indent=2))


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        numbers = number > 0 and all(str(row[number])[:1] in "0123456789+-" for row in rows)
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table)


def show_next(*commands: str) -> None:
    """Print what to run next."""
    console.print("\nNext:")
    for command in commands:
        console.print(f"  {command}", markup=False, highlight=False)
