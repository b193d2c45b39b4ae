"""``nnunet-limited demo``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from nnunet_limited.cli.options import START, JsonOption, add_command
from nnunet_limited.cli.output import console, show_json, show_table

OutOption = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for all output of the demo.")]
SeedOption = Annotated[
    int, typer.Option(min=0, max=2**31 - 1, help="Random seed of phantom, labelled cases and training.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, demo, panel=START)


def demo(out: OutOption = Path("demo_output"), seed: SeedOption = 0, as_json: JsonOption = False) -> None:
    """Compare supervised training with the recipe on a synthetic dataset with 3 labelled cases (minutes, CPU).

    Example:
    nnunet-limited demo
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
