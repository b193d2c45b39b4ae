"""``nnunet-limited zero-shot``: try a promptable model on labelled cases."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean

import typer
from rich.console import Console
from rich.progress import track

from nnunet_limited.cli.options import PSEUDO_LABELS, DeviceOption, JsonOption, add_command
from nnunet_limited.cli.output import console, show_json, show_next, show_table
from nnunet_limited.pseudo_labels.request import ZeroShotRequest


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, zero_shot, ZeroShotRequest, panel=PSEUDO_LABELS, arguments=("dataset", "prompter"))


def zero_shot(request: ZeroShotRequest, device: DeviceOption = None, as_json: JsonOption = False) -> None:
    """Prompt a model with boxes and points from labels, and compare its outlines with the labels.

    The Dice shows whether the model is a useful source of pseudo-labels; nothing is trained. Finished work is skipped.

    Example:
    nnunet-limited zero-shot 500 sam:medsam-vit-base --out zero_shot
    """
    from nnunet_limited.prompters.prompter import find_prompter
    from nnunet_limited.pseudo_labels.zero_shot import ZeroShot
    from nnunet_limited.runs.launch import choose_device

    def progress(missing: list[str]) -> Iterable[str]:
        shown = Console(stderr=True)
        return track(missing, "Prompting", console=shown, disable=not shown.is_terminal)

    trial = ZeroShot.of(request)
    results = trial.run(
        lambda: find_prompter(request.prompter, choose_device(device), request.accept_licence), progress
    )
    rows = trial.write_table(results)
    seconds = [fmean([one[f"seconds_per_{what}"] for one in results]) for what in ("image", "prompt")]
    about = results[0]["about"]
    if as_json:
        show_json({"about": about, "rows": rows, "seconds_per_image": seconds[0], "seconds_per_prompt": seconds[1]})
        return
    columns = ["prompt", "class", "Dice", "min", "max", "cases"]
    show_table(f"{about['name']} on {trial.dataset.name}", columns, [list(row.values()) for row in rows])
    console.print(f"{seconds[0]:.2f} s per slice and {seconds[1]:.2f} s per prompt", highlight=False)
    console.print(
        f"Licence of the code: {about['code_licence']}; of the weights: {about['weights_licence']}", highlight=False
    )
    console.print(f"wrote {request.out}", highlight=False)
    sources = f"student,atlas,{request.prompter}"
    show_next(f"nnunet-limited pseudo-label {request.dataset} CONFIGURATION -p PLANS --sources {sources}")
