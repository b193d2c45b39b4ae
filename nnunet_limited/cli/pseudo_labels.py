"""``nnunet-limited pseudo-label``, which labels the unlabelled cases, and ``zero-shot``, which tries a model for it."""

from __future__ import annotations

from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING

import typer

from nnunet_limited.cli.options import PSEUDO_LABELS, DeviceOption, JsonOption, command
from nnunet_limited.cli.output import console, progress, show_json, show_next, show_table
from nnunet_limited.pseudo_labels.request import PseudoLabelRequest, ZeroShotRequest

if TYPE_CHECKING:
    from nnunet_limited.data.pseudo_label_store import PseudoLabels

app = typer.Typer()


@command(app, PSEUDO_LABELS, flags={"folds": "-f"}, groups={"Sources": "sources ask accept_licence"})
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
    made = [
        job.make(labels, processor, partial(progress, title=f"Pseudo-labels of {labels.folder.name}"))
        for labels in job.check(request.chosen_folds())
    ]
    if as_json:
        return show_json([{"folder": str(labels.folder), **labels.origin, "cases": labels.cases} for labels in made])
    columns = {"confidence": "confidence in %", "stability": "stability"}
    if job.uses_sources:
        columns = {"coverage": "coverage", "foreground_coverage": "of foreground", "agreement": "agreement"}
    rows = [[labels.folder.name, len(labels.cases), *_means(labels, list(columns))] for labels in made]
    show_table("Pseudo-labels", ["fold", "cases", *columns.values()], rows)
    for line in dict.fromkeys(line for labels in made for line in job.summary_lines(labels)):
        console.print(line, markup=False)
    console.print(f"wrote {made[0].folder.parent}")
    setting = "" if job.name == request.default_name else f" --set pseudo_labels={job.name}"
    where = f"{request.dataset} {request.configuration}"
    train = f"train {where} all" if request.ensemble else f"crossval {where}"
    student = "LimitedPromptedPseudoLabelTrainer" if job.uses_sources else "LimitedRecipeTrainer"
    show_next(f"nnunet-limited {train} -tr {student} -p {request.plans}{setting}")


def _means(labels: PseudoLabels, keys: list[str]) -> list[str]:
    columns = [[about[key] for about in labels.cases.values()] for key in keys]
    return [f"{fmean(known):.3g}" if (known := [v for v in c if v is not None]) else "-" for c in columns]


@command(app, PSEUDO_LABELS, arguments=("dataset", "prompter"))
def zero_shot(request: ZeroShotRequest, device: DeviceOption = None, as_json: JsonOption = False) -> None:
    """Prompt a model with boxes and points from labels, and compare its outlines with the labels.

    The Dice shows whether the model is a useful source of pseudo-labels; nothing is trained. Finished work is skipped.

    Example:
    nnunet-limited zero-shot 500 sam:medsam-vit-base --out zero_shot
    """
    from nnunet_limited.prompters.prompter import find_prompter
    from nnunet_limited.pseudo_labels.zero_shot import ZeroShot
    from nnunet_limited.runs.launch import choose_device

    trial = ZeroShot(request)
    results = trial.run(
        lambda: find_prompter(request.prompter, choose_device(device), request.accept_licence),
        partial(progress, title="Prompting"),
    )
    rows = trial.write_table(results)
    image, prompt = (fmean([one[f"seconds_per_{what}"] for one in results]) for what in ("image", "prompt"))
    about = results[0]["about"]
    if as_json:
        return show_json({"about": about, "rows": rows, "seconds_per_image": image, "seconds_per_prompt": prompt})
    columns = ["prompt", "class", "Dice", "min", "max", "cases"]
    show_table(f"{about['name']} on {trial.dataset.name}", columns, [list(row.values()) for row in rows])
    console.print(f"{image:.2f} s per slice and {prompt:.2f} s per prompt")
    console.print(f"Licence of the code: {about['code_licence']}; of the weights: {about['weights_licence']}")
    console.print(f"wrote {request.out}")
    sources = f"student,atlas,{request.prompter}"
    show_next(f"nnunet-limited pseudo-label {request.dataset} CONFIGURATION -p PLANS --sources {sources}")
