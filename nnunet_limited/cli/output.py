"""What commands print: tables for people on stdout, or one JSON document with ``--json``; progress on stderr."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

# Names of classes and cases are text: neither markup nor emoji.
console = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)


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
        console.print(f"  {command}", markup=False)


def progress(cases: Sequence[str], title: str) -> Iterable[str]:
    """Yield the cases, with a progress bar on a terminal."""
    terminal = Console(stderr=True)
    return track(cases, title, console=terminal, disable=not terminal.is_terminal)
