"""``nnunet-limited trainers`` and ``configure``."""

from typing import Annotated

import typer
from rich.markup import escape

from nnunet_limited.cli.options import TRAIN, JsonOption, SetOption, command
from nnunet_limited.cli.output import console, show_json, show_next, show_table
from nnunet_limited.errors import LimitedError

app = typer.Typer()


@command(app, TRAIN)
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
        return show_json(cards[0] if name else cards)
    if name is None:
        for card in cards:
            title = card["name"] + (f" ({card['short_name']})" if card["short_name"] else "")
            cost = f"Time {card['relative_time'] or '?'}, memory {card['relative_memory'] or '?'}."
            console.print(f"[bold]{escape(title)}[/bold]\n  {escape(_plain(card['summary']))} {cost}", markup=True)
        return None
    card = cards[0]
    console.print(" ".join(filter(None, (card["name"], card["short_name"]))), markup=False)
    for line in (card["summary"], card["details"], card["paper"] and f"Paper: {card['paper']}"):
        if line:
            console.print(_plain(line), markup=False)
    gpus = "one GPU or several" if card["several_gpus"] else "one GPU"
    console.print(
        f"Step: {card['relative_time'] or '?'} times the time, {card['relative_memory'] or '?'} times the memory of a "
        f"supervised one; predicts with the {card['predicts_with']}; trains on {gpus}"
    )
    rows = [(key, str(entry["default"]), entry["description"]) for key, entry in card["settings"].items()]
    show_table("Settings (--set)", ("setting", "default", "description"), rows)


@command(app, TRAIN)
def configure(
    plans: Annotated[str, typer.Argument(metavar="PLANS", help="Name of plans made by 'nnunet-limited plan'.")],
    assignments: SetOption = None,
    name: Annotated[
        str | None, typer.Option(help="Suffix of the new plans' name; default: made from the settings.")
    ] = None,
    dataset: Annotated[
        str | None, typer.Option("-d", help="Number or name of the dataset, if several have plans of this name.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write plans with other settings under a new name; nothing is preprocessed again.

    Example:
    nnunet-limited configure nnUNetPlans_l8 --set consistency_weight=0.3 --name w03
    """
    from nnunet_limited.engine.settings import parse_assignments
    from nnunet_limited.runs.variants import configure as write_variant
    from nnunet_limited.runs.variants import find_plans

    settings = parse_assignments(assignments or [])
    if not settings:
        raise LimitedError("configure: no --set KEY=VALUE is given; name the setting to change")
    folder = find_plans(plans, dataset)
    new = write_variant(folder, plans, settings, name)
    if as_json:
        return show_json({"plans": new, "file": str(folder / f"{new}.json"), "dataset": folder.name})
    console.print(f"wrote {folder / f'{new}.json'}")
    show_next(f"nnunet-limited self-train {folder.name} CONFIGURATION -p {new}")


def _plain(text: str) -> str:
    """Return a docstring's text with quotes in place of the marks of code."""
    return text.replace("``", "'")
