"""``nnunet-limited pseudo-label``: label the unlabelled cases with a model, or with several sources."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import track

from nnunet_limited.cli.options import PSEUDO_LABELS, DeviceOption, JsonOption, add_command
from nnunet_limited.cli.output import console, show_json, show_next, show_table
from nnunet_limited.pseudo_labels.request import PseudoLabelRequest

if TYPE_CHECKING:
    from nnunet_limited.data.pseudo_label_store import PseudoLabels

SOURCES = "sources ask accept_licence"


def register(app: typer.Typer) -> None:
    """Add the command."""
    arguments = ("dataset", "configuration")
    add_command(
        app,
        pseudo_label,
        PseudoLabelRequest,
        panel=PSEUDO_LABELS,
        arguments=arguments,
        flags={"folds": "-f"},
        groups={"Sources": SOURCES},
    )


def progress(cases: list[str], title: str) -> Iterable[str]:
    """Yield the cases of a fold, with a progress bar on a terminal."""
    shown = Console(stderr=True)
    return track(cases, f"Pseudo-labels of {title}", console=shown, disable=not shown.is_terminal)


def pseudo_label(request: PseudoLabelRequest, device: DeviceOption = None, as_json: JsonOption = False) -> None:
    """Write a label and a confidence image for each unlabelled case.

    Each fold uses its own model and labelled cases, so that cross-validation stays valid. With several sources, voxels
    on which they disagree are left open. Finished work is skipped.

    Examples:
    nnunet-limited pseudo-label 4 3d_fullres -tr LimitedBidirectionalCopyPasteTrainer -p nnUNetPlans_l8
    nnunet-limited pseudo-label 500 3d_fullres -p nnUNetPlans_l1 --sources student,atlas,sam:medsam-vit-base
    """
    from nnunet_limited.runs.launch import choose_device

    processor = choose_device(device)
    job = request.job(processor)
    made = []
    for labels in job.check(request.chosen_folds()):
        made.append(job.make(labels, processor, partial(progress, title=labels.folder.name)))
    if as_json:
        show_json([{"folder": str(labels.folder), **labels.origin, "cases": labels.cases} for labels in made])
        return
    columns = {"confidence": "confidence in %", "stability": "stability"}
    if job.uses_sources:
        columns = {"coverage": "coverage", "foreground_coverage": "of foreground", "agreement": "agreement"}
    rows = [[labels.folder.name, len(labels.cases), *_means(labels, list(columns))] for labels in made]
    show_table("Pseudo-labels", ["fold", "cases", *columns.values()], rows)
    for line in dict.fromkeys(line for labels in made for line in job.summary_lines(labels)):
        console.print(line, markup=False, highlight=False)
    console.print(f"wrote {made[0].folder.parent}", highlight=False)
    setting = "" if job.name == request.default_name else f" --set pseudo_labels={job.name}"
    train = "train {} {} all" if request.ensemble else "crossval {} {}"
    student = "LimitedPromptedPseudoLabelTrainer" if job.uses_sources else "LimitedRecipeTrainer"
    words = train.format(request.dataset, request.configuration)
    show_next(f"nnunet-limited {words} -tr {student} -p {request.plans}{setting}")


def _means(labels: PseudoLabels, keys: list[str]) -> list[str]:
    columns = [[about[key] for about in labels.cases.values()] for key in keys]
    return [f"{fmean(known):.3g}" if (known := [v for v in c if v is not None]) else "-" for c in columns]
