"""``nnunet-limited doctor``, ``demo``, ``split`` and ``plan``."""

import time
from pathlib import Path
from typing import Annotated

import typer

from nnunet_limited.cli.options import START, DatasetArgument, JsonOption, SetOption, command
from nnunet_limited.cli.output import console, show_json, show_next, show_table
from nnunet_limited.planners.request import PlanRequest
from nnunet_limited.splits.request import SplitRequest

OutOption = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for all output of the demo.")]
SeedOption = Annotated[
    int,
    typer.Option(
        min=0, max=2**31 - 1, help="Random seed of the synthetic images, the labelled cases and the training."
    ),
]
ReplaceOption = Annotated[bool, typer.Option("--replace", help="Overwrite a split of this name.")]

app = typer.Typer()


@command(app, START)
def doctor(as_json: JsonOption = False) -> None:
    """Check nnU-Net, torch, folders and trainers, and print how to fix what is wrong.

    Example:
    nnunet-limited doctor
    """
    from nnunet_limited.host.doctor import examine

    findings = examine()
    healthy = all(finding.ok for finding in findings)
    if as_json:
        show_json({"ok": healthy, "findings": [finding._asdict() for finding in findings]})
        findings = []
    for finding in findings:
        mark = "[green]ok  [/green]" if finding.ok else "[red]FAIL[/red]"
        console.print(f"{mark} {finding.what}: {finding.found}")
        if not finding.ok:
            console.print(f"     {finding.remedy}")
    raise typer.Exit(0 if healthy else 1)


@command(app, START)
def demo(out: OutOption = Path("demo_output"), seed: SeedOption = 0, as_json: JsonOption = False) -> None:
    """Compare supervised training with the recipe on a synthetic dataset with 3 labelled cases (minutes, CPU).

    Example:
    nnunet-limited demo
    """
    from nnunet_limited.metrics.registry import METRICS
    from nnunet_limited.studies.demo import run_demo

    start = time.monotonic()
    result = run_demo(out / f"seed_{seed}", seed, (lambda line: None) if as_json else console.print)
    if as_json:
        return show_json(result)
    metrics = [metric for name, metric in METRICS.items() if name in result]
    columns = ["class", "method", *(metric.heading(voxels=False) for metric in metrics)]
    rows = [
        [name, method, *(f"{result[metric.name][method][name]:.3f}" for metric in metrics)]
        for name in result["dice"]["supervised"]
        for method in result["dice"]
    ]
    show_table(f"{result['cases']} held-out cases, 3 labelled", columns, rows)
    console.print(f"wrote {result['picture']} after {time.monotonic() - start:.0f} s")


@command(
    app,
    START,
    groups={
        "Labelled cases": "labeled seed cover group_by labeled_from labeled_cases published",
        "Folds": "folds protocol test_cases",
    },
)
def split(
    request: SplitRequest, dataset: DatasetArgument, replace: ReplaceOption = False, as_json: JsonOption = False
) -> None:
    """Choose the labelled cases of each fold.

    Example:
    nnunet-limited split 4 --name l8 --labeled 8
    """
    from nnunet_limited.datasets.raw import RawDataset
    from nnunet_limited.splits.groups import grouped
    from nnunet_limited.splits.make import create_split

    raw = RawDataset.load(dataset)
    made, written = create_split(raw, request, replace)
    if as_json:
        folds = [vars(fold) for fold in made.folds]
        return show_json({"files": [str(file) for file in written], "info": made.info, "folds": folds})
    rows = [(n, len(f.train), len(f.val), len(f.unlabeled)) for n, f in enumerate(made.folds)]
    title = f"Split {request.name} of {raw.name} ({made.info['protocol']}, seed {request.seed})"
    show_table(title, ("fold", "labelled", "validation", "unlabelled"), rows)
    if request.group_by is not None:
        patients = grouped(list(raw.cases), request.group_by)
        console.print(f"Patients found by --group-by: {len(patients)} in {len(raw.cases)} cases.")
    if any(set(fold.train) & set(fold.val) for fold in made.folds):
        unit = "patient" if request.group_by else "case"
        console.print(f"The only labelled {unit} is used for training and validation: its Dice is not informative.")
    if request.folds is not None and len(made.folds) < request.folds:
        reason = "there are no more labelled cases to validate on"
        console.print(f"Folds made: {len(made.folds)} instead of {request.folds}; {reason}.")
    if not made.unlabeled:
        trainers = "LimitedSupervisedTrainer or, on sparse labels, a trainer for sparse labels"
        console.print(f"No case is unlabelled: train {trainers}.")
    for file in written:
        console.print(f"wrote {file}")
    show_next(f"nnunet-limited plan {raw.name} --split {request.name}")


@command(app, START, groups={"Size and geometry": "size geometry patch planner"})
def plan(request: PlanRequest, assignments: SetOption = None, as_json: JsonOption = False) -> None:
    """Fingerprint, plan and preprocess a dataset for a split. Finished work is skipped.

    Example:
    nnunet-limited plan 4 --split l8 -c 3d_fullres
    """
    from nnunet_limited.engine.settings import parse_assignments
    from nnunet_limited.planners.plan import make_plans
    from nnunet_limited.planners.planned import PlannedData
    from nnunet_limited.runs.variants import check_settings, configure

    settings = parse_assignments(assignments or [])
    if settings:
        check_settings({"plans_name": f"for split {request.split}", "limited": {"settings": settings}})
    result = make_plans(request)
    folder, chosen = result.file.parent, list(result.configurations)
    name = configure(folder, result.plans, settings) if settings else result.plans
    file = folder / f"{name}.json"
    where, trainer = f"{folder.name} {chosen[0]}", f"-tr {result.trainer} " if result.trainer else ""
    train = f"nnunet-limited {'crossval' if trainer else 'self-train'} {where} {trainer}-p {name}"
    if as_json:
        about = {"plans": name, "file": str(file), "dataset": folder.name, "configurations": chosen}
        about |= {"warnings": list(result.warnings), "again": list(result.again)}
        return show_json({**about, "next": train})
    planned = [PlannedData.load(folder, name).plans["configurations"][configuration] for configuration in chosen]
    rows = [
        (name, "x".join(map(str, one["patch_size"])), one["batch_size"], one["data_identifier"])
        for name, one in zip(chosen, planned, strict=True)
    ]
    show_table(f"Plans {name}", ("configuration", "patch", "batch", "preprocessed data"), rows)
    for line in result.again:
        console.print(line, markup=False)
    for warning in result.warnings:
        console.print(f"warning: {warning}", markup=False)
    console.print(f"wrote {file}")
    show_next(train, f"nnunet-limited train {where} 0 {trainer}-p {name}")
