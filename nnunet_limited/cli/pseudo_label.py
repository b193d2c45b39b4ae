"""``nnunet-limited pseudo-label``."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Annotated, Literal

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from nnunet_limited.cli.output import JsonOption, console, show_json, show_next, show_table
from nnunet_limited.cli.train import ConfigurationArgument, DatasetArgument, DeviceOption


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("pseudo-label")(pseudo_label)


def progress(cases: list[str], title: str) -> Iterable[str]:
    """Show on a terminal how far the pseudo-labels of a fold are."""
    shown = Console(stderr=True)
    return track(cases, f"Pseudo-labels of {title}", console=shown, disable=not shown.is_terminal)


def pseudo_label(
    dataset: DatasetArgument,
    configuration: ConfigurationArgument,
    trainer: Annotated[str, typer.Option("-tr", help="Trainer of the model.")] = "LimitedSupervisedTrainer",
    plans: Annotated[str, typer.Option("-p", help="Plans of the model.")] = "nnUNetPlans",
    source: Annotated[Literal["model"], typer.Option(help="What makes the pseudo-labels: a trained model.")] = "model",
    name: Annotated[str, typer.Option(help="Name to find them by.")] = "model",
    folds: Annotated[list[str] | None, typer.Option("-f", help="Fold; repeatable. Default: all of the split.")] = None,
    previous: Annotated[
        str | None, typer.Option(help="Name of the round before; stability is the agreement with it.")
    ] = None,
    ensemble: Annotated[
        bool,
        typer.Option(
            "--ensemble",
            help="All folds predict together, for a model to deploy. The folds' validation labels leak into it.",
        ),
    ] = False,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict the unlabelled cases: a label and a confidence image each, for LimitedRecipeTrainer.

    Each fold uses its own model, so that cross-validation stays honest. What is done already is not done again.
    Example: nnunet-limited pseudo-label 4 3d_fullres -tr LimitedBidirectionalCopyPasteTrainer
    -p nnUNetPlans_l8
    """
    from nnunet_limited.evaluation.crossval import default_folds
    from nnunet_limited.pseudo_labels.model import ModelSource
    from nnunet_limited.trainers.launch import TrainRequest, choose_device

    model = TrainRequest(dataset, configuration, "0", trainer, plans)
    chosen = [int(fold) if fold.isdecimal() else fold for fold in folds] if folds else default_folds(model)
    made = []
    wanted = ModelSource(model, name, previous, ensemble)
    for labels in wanted.check(chosen):
        made.append(wanted.make(labels, choose_device(device), partial(progress, title=labels.folder.name)))
    if as_json:
        show_json([{"folder": str(labels.folder), **labels.origin, "cases": labels.cases} for labels in made])
        return
    rows = []
    for labels in made:
        columns = [[about[key] for about in labels.cases.values()] for key in ("confidence", "stability")]
        means = [f"{np.mean(known):.3g}" if (known := [v for v in c if v is not None]) else "-" for c in columns]
        rows.append([labels.folder.name, len(labels.cases), *means])
    show_table("Pseudo-labels", ["fold", "cases", "confidence in %", "stability"], rows)
    console.print(f"Wrote {made[0].folder.parent}", highlight=False)
    setting = "" if name == "model" else f" --set pseudo_labels={name}"
    train = f"train {dataset} {configuration} all" if ensemble else f"crossval {dataset} {configuration}"
    show_next(f"nnunet-limited {train} -tr LimitedRecipeTrainer -p {plans}{setting}")
