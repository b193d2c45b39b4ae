"""``nnunet-limited trainers``."""

from __future__ import annotations

from typing import Annotated

import typer

from nnunet_limited.cli.options import TRAIN, JsonOption, add_command
from nnunet_limited.cli.output import console, show_json, show_table


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, trainers, panel=TRAIN)


def trainers(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Trainer to describe; default: list all.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the trainers, or describe one of them with its settings and its paper.

    Time and memory of a step are relative to supervised training (2D, --size tiny, one CPU core; the memory is that of
    activations and gradients).

    Example:
    nnunet-limited trainers LimitedCPSTrainer
    """
    from nnunet_limited.trainers.catalogue import describe, trainer_names

    cards = [describe(each) for each in ([name] if name else trainer_names())]
    if as_json:
        show_json(cards[0] if name else cards)
        return
    if name is None:
        for card in cards:
            title = card["name"] + (f" ({card['short_name']})" if card["short_name"] else "")
            console.print(f"[bold]{title}[/bold]", highlight=False)
            cost = f"Time {card['relative_time'] or '?'}, memory {card['relative_memory'] or '?'}."
            console.print(f"  {_plain(card['summary'])} {cost}", highlight=False)
        return
    card = cards[0]
    console.print(f"{card['name']}  {card['short_name'] or ''}", markup=False)
    for line in (card["summary"], card["details"], card["paper"] and f"Paper: {card['paper']}"):
        if line:
            console.print(_plain(line), markup=False, highlight=False)
    gpus = "one GPU or several" if card["several_gpus"] else "one GPU"
    console.print(
        f"Step: {card['relative_time'] or '?'} times the time, {card['relative_memory'] or '?'} times the memory of a "
        f"supervised one; predicts with the {card['predicts_with']}; trains on {gpus}",
        highlight=False,
    )
    rows = [(key, str(entry["default"]), entry["description"]) for key, entry in card["settings"].items()]
    show_table("Settings (--set)", ("setting", "default", "description"), rows)


def _plain(text: str) -> str:
    """Return a docstring's text with quotes in place of the marks of code."""
    return text.replace("``", "'")
