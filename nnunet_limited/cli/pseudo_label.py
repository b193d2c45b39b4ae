"""``nnunet-limited pseudo-label``: what a model, or several sources together, say of the unlabelled cases."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from nnunet_limited.cli.options import (
    PSEUDO_LABELS,
    AskOption,
    ConfigurationArgument,
    DatasetArgument,
    DeviceOption,
    JsonOption,
    LicenceOption,
    SourcesOption,
    add_command,
)
from nnunet_limited.cli.output import console, show_json, show_next, show_table
from nnunet_limited.errors import LimitedError

if TYPE_CHECKING:
    from nnunet_limited.data.pseudo_label_store import PseudoLabels
    from nnunet_limited.engine.settings import Config
    from nnunet_limited.pseudo_labels.model import ModelSource
    from nnunet_limited.runs.request import TrainRequest


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, pseudo_label, panel=PSEUDO_LABELS)


def progress(cases: list[str], title: str) -> Iterable[str]:
    """Show on a terminal how far the pseudo-labels of a fold are."""
    shown = Console(stderr=True)
    return track(cases, f"Pseudo-labels of {title}", console=shown, disable=not shown.is_terminal)


def asked(model: type[Config], ask: Sequence[str]) -> Config:
    """Return the settings that ``--ask`` gives."""
    from nnunet_limited.engine.settings import parse_assignments, resolve

    return resolve(model, parse_assignments(ask, "--ask", "kind=box"), set(model.model_fields), "--ask")


def labeller(
    model: TrainRequest,
    name: str,
    previous: str | None,
    ensemble: bool = False,
    sources: str | None = None,
    ask: Sequence[str] = (),
    accepted: str | None = None,
    device: str = "cpu",
) -> ModelSource:
    """Return what makes the pseudo-labels that the options ask for."""
    from nnunet_limited.pseudo_labels.model import ModelSource

    if sources is None:
        if ask or accepted:
            raise LimitedError("--ask and --accept-licence are for several sources; give --sources student,… too")
        return ModelSource(model, name, previous, ensemble)
    from nnunet_limited.pseudo_labels.consensus import Consensus
    from nnunet_limited.pseudo_labels.sources import SourceSettings

    settings = asked(SourceSettings, ask)
    specs = tuple(part.strip() for part in sources.split(","))
    return Consensus(model, name, previous, ensemble, specs, settings, accepted, device)


def pseudo_label(
    dataset: DatasetArgument,
    configuration: ConfigurationArgument,
    trainer: Annotated[str, typer.Option("-tr", help="Trainer of the model.")] = "LimitedSupervisedTrainer",
    plans: Annotated[str, typer.Option("-p", help="Plans of the model.")] = "nnUNetPlans",
    sources: SourcesOption = None,
    ask: AskOption = None,
    name: Annotated[
        str | None, typer.Option(help="Name to find them by; default: model, or consensus with --sources.")
    ] = None,
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
    accepted: LicenceOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Label the unlabelled cases: a label and a confidence image each, with what they are worth.

    Each fold uses its own model and labelled cases, so that cross-validation stays honest. With several sources, what
    they do not agree on is left open. What is done already is not done again. Examples:
    nnunet-limited pseudo-label 4 3d_fullres -tr LimitedBidirectionalCopyPasteTrainer -p nnUNetPlans_l8;
    nnunet-limited pseudo-label 500 3d_fullres -p nnUNetPlans_l1 --sources student,atlas,sam:medsam-vit-base
    """
    from nnunet_limited.runs.crossval import default_folds
    from nnunet_limited.runs.launch import choose_device
    from nnunet_limited.runs.request import TrainRequest

    model = TrainRequest(dataset=dataset, configuration=configuration, fold="0", trainer=trainer, plans=plans)
    chosen = [int(fold) if fold.isdecimal() else fold for fold in folds] if folds else default_folds(model)
    default = "model" if sources is None else "consensus"
    processor = choose_device(device)
    wanted = labeller(model, name or default, previous, ensemble, sources, ask or (), accepted, processor)
    made = []
    for labels in wanted.check(chosen):
        made.append(wanted.make(labels, processor, partial(progress, title=labels.folder.name)))
    if as_json:
        show_json([{"folder": str(labels.folder), **labels.origin, "cases": labels.cases} for labels in made])
        return
    columns = {"confidence": "confidence in %", "stability": "stability"}
    if sources is not None:
        columns = {"coverage": "coverage", "foreground_coverage": "of foreground", "agreement": "agreement"}
    rows = [[labels.folder.name, len(labels.cases), *_means(labels, list(columns))] for labels in made]
    show_table("Pseudo-labels", ["fold", "cases", *columns.values()], rows)
    for line in dict.fromkeys(line for labels in made for line in wanted.told(labels)):
        console.print(line, markup=False, highlight=False)
    console.print(f"Wrote {made[0].folder.parent}", highlight=False)
    setting = "" if name in (None, default) else f" --set pseudo_labels={name}"
    train = f"train {dataset} {configuration} all" if ensemble else f"crossval {dataset} {configuration}"
    student = "LimitedRecipeTrainer" if sources is None else "LimitedPromptedPseudoLabelTrainer"
    show_next(f"nnunet-limited {train} -tr {student} -p {plans}{setting}")


def _means(labels: PseudoLabels, keys: list[str]) -> list[str]:
    columns = [[about[key] for about in labels.cases.values()] for key in keys]
    return [f"{np.mean(known):.3g}" if (known := [v for v in c if v is not None]) else "-" for c in columns]
