"""``nnunet-limited configure``."""

from __future__ import annotations

from typing import Annotated

import typer

from nnunet_limited.cli.options import TRAIN, JsonOption, SetOption, add_command
from nnunet_limited.cli.output import console, show_json, show_next
from nnunet_limited.errors import LimitedError


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, configure, panel=TRAIN)


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
        show_json({"plans": new, "file": str(folder / f"{new}.json"), "dataset": folder.name})
        return
    console.print(f"wrote {folder / f'{new}.json'}", highlight=False)
    show_next(f"nnunet-limited self-train {folder.name} CONFIGURATION -p {new}")
