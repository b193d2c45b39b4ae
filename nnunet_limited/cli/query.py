"""``nnunet-limited query``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import typer
from rich.console import Console
from rich.progress import track

from nnunet_limited.cli.options import ANNOTATE, DeviceOption, JsonOption, add_command
from nnunet_limited.cli.output import console, show_json, show_next, show_table
from nnunet_limited.queries.request import QueryRequest


def register(app: typer.Typer) -> None:
    """Add the command."""
    groups = {
        "Budget and unit": "items minutes what size axis seconds",
        "Selection": "strategy rounds overlap seed",
        "Model": "trainer plans folds device",
        "Cold start and simulation": "split features oracle",
    }
    arguments = ("dataset", "configuration")
    add_command(app, query, QueryRequest, panel=ANNOTATE, arguments=arguments, flags={"folds": "-f"}, groups=groups)


def query(request: QueryRequest, device: DeviceOption = None, as_json: JsonOption = False) -> None:
    """Choose what to annotate next, and write a folder with all that annotators need.

    Examples:
    nnunet-limited query 501 3d_fullres -tr LimitedSparseTrainer -p nnUNetPlans_l8 \\
      --what patch --size 16x64x64 --items 20 --out round_1
    nnunet-limited query 501 --items 4 --out round_0  (without a model)
    """
    from nnunet_limited.host.folders import free_number
    from nnunet_limited.queries.query import query as run
    from nnunet_limited.runs.launch import choose_device
    from nnunet_limited.util.extras import require_extra

    require_extra("al", "query", "jinja2")
    made = run(request, choose_device(device), _progress)
    if as_json:
        show_json({**made.record.as_dict(), "queries": [one.as_dict() for one in made.queries]})
        return
    rows = []
    for number, one in enumerate(made.queries, 1):
        place = ["x".join(map(str, part)) for part in (one.window.start, one.window.size)]
        rows.append((number, one.window.case, *place, f"{one.minutes:.3g}"))
    show_table(f"Queries in {made.record.dataset}", ("", "case", "start", "size", "minutes"), rows)
    if request.items is not None and len(made.queries) < request.items:
        console.print(f"{len(made.queries)} instead of {request.items}: no more windows are left to query.")
    _show_dice(made.record.dice)
    out = request.out
    hint = f": open {out / 'index.html'}, and annotate the files in {out / 'labels'}" if request.oracle is None else ""
    console.print(f"wrote {out}{hint}", highlight=False)
    show_next(f"nnunet-limited absorb {out} --out Dataset{free_number()}_{made.record.dataset[11:]}")


def _progress(cases: list[str]) -> Iterable[str]:
    """Show the progress over the cases on a terminal."""
    terminal = Console(stderr=True)
    return track(cases, "Cases", console=terminal, disable=not terminal.is_terminal)


def _show_dice(dice: Sequence[float]) -> None:
    """Print the Dice of the rounds so far and the predicted gain of this one."""
    from nnunet_limited.metrics.areas import predicted_gain

    if not dice:
        return
    gain = predicted_gain(dice)
    prediction = "" if math.isnan(gain) else f" Predicted gain of this round: {gain:.3f}."
    console.print(f"Validation Dice so far: {', '.join(f'{one:.3f}' for one in dice)}.{prediction}")
