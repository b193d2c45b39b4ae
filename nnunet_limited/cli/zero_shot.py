"""``nnunet-limited zero-shot``: how well does a promptable model do on a dataset, and with which prompts?"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from nnunet_limited.cli.options import (
    PSEUDO_LABELS,
    AskOption,
    DatasetArgument,
    DeviceOption,
    JsonOption,
    LicenceOption,
    add_command,
)
from nnunet_limited.cli.output import console, show_json, show_next, show_table
from nnunet_limited.cli.pseudo_label import asked
from nnunet_limited.errors import LimitedError


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, zero_shot, panel=PSEUDO_LABELS)


def zero_shot(
    dataset: DatasetArgument,
    prompter: Annotated[
        str, typer.Argument(help="sam:FOLDER, tiny-vit:FILE.pt, nninteractive:FOLDER or module:factory")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the table, the pictures and a file a case.")],
    cases: Annotated[int, typer.Option(min=1, help="Labelled cases to try, in the order of their names.")] = 5,
    split: Annotated[
        str | None,
        typer.Option(help="Take cases that are labelled in this split; default: all with a label."),
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Ask about every n-th slice with foreground.")] = 5,
    ask: AskOption = None,
    accepted: LicenceOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Prompt a model with boxes and points from the labels, and compare its outlines with them.

    Tells whether the model is worth being a source of pseudo-labels; nothing is trained. What is done already is not
    done again. Example: nnunet-limited zero-shot 500 sam:medsam-vit-base --out zero_shot
    """
    from nnunet_limited.datasets.raw import RawDataset
    from nnunet_limited.host.folders import preprocessed_folder
    from nnunet_limited.prompters.prompter import find_prompter
    from nnunet_limited.prompters.prompts import PromptSettings
    from nnunet_limited.pseudo_labels.zero_shot import ZeroShot, summarise
    from nnunet_limited.runs.launch import choose_device
    from nnunet_limited.splits import load_split
    from nnunet_limited.util.files import replacing

    raw = RawDataset.load(dataset)
    settings = asked(PromptSettings, ask or ())
    chosen = raw.labeled
    if split is not None:
        visible = set(load_split(preprocessed_folder(raw.name), split).labeled)
        chosen = [case for case in chosen if case in visible]
    wanted = ZeroShot(raw, prompter, out, tuple(chosen[:cases]), every, settings)

    def progress(missing: list[str]) -> Iterable[str]:
        shown = Console(stderr=True)
        return track(missing, "Prompting", console=shown, disable=not shown.is_terminal)

    results = wanted.run(lambda: find_prompter(prompter, choose_device(device), accepted), progress)
    rows = summarise(results)
    if not rows:
        raise LimitedError(
            f"no object in {len(results)} cases has {settings.least_area} voxels in a slice; give --ask least_area=1"
        )
    with replacing(out / "table.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    seconds = [np.mean([one[f"seconds_per_{what}"] for one in results]) for what in ("image", "prompt")]
    about = results[0]["about"]
    if as_json:
        show_json({"about": about, "rows": rows, "seconds_per_image": seconds[0], "seconds_per_prompt": seconds[1]})
        return
    columns = ["prompt", "class", "Dice", "least", "largest", "cases"]
    show_table(f"{about['name']} on {raw.name}", columns, [list(row.values()) for row in rows])
    console.print(f"{seconds[0]:.2f} s a slice and {seconds[1]:.2f} s a prompt", highlight=False)
    console.print(
        f"Licence of the code: {about['code_licence']}; of the weights: {about['weights_licence']}", highlight=False
    )
    console.print(f"Wrote {out}", highlight=False)
    show_next(f"nnunet-limited pseudo-label {dataset} CONFIGURATION -p PLANS --sources student,atlas,{prompter}")
