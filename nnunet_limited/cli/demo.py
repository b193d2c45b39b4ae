"""``nnunet-limited demo``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from nnunet_limited.cli.output import JsonOption, console, show_json, show_table


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo writes.")] = Path("demo_output"),
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of phantom, split and training.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Show the whole way on a made-up dataset: 3 labelled cases, supervised against the recipe (minutes, CPU).

    Example: nnunet-limited demo
    """
    from nnunet_limited.studies.demo import run_demo

    start = time.monotonic()
    result = run_demo(out / f"seed_{seed}", seed, (lambda line: None) if as_json else console.print)
    if as_json:
        show_json(result)
        return
    names = list(result["dice"]["supervised"])
    rows = [(name, *(f"{dice[name]:.3f}" for dice in result["dice"].values())) for name in names]
    show_table(f"Dice on {result['cases']} held-out cases, 3 labelled", ("class", *result["dice"]), rows)
    console.print(f"wrote {result['picture']} after {time.monotonic() - start:.0f} s", highlight=False)
