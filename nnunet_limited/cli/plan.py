"""``nnunet-limited plan``."""

from __future__ import annotations

import typer

from nnunet_limited.cli.options import START, JsonOption, SetOption, add_command
from nnunet_limited.cli.output import console, show_json, show_next, show_table
from nnunet_limited.planners.request import PlanRequest


def register(app: typer.Typer) -> None:
    """Add the command."""
    groups = {"Size and geometry": "size geometry patch planner"}
    add_command(app, plan, PlanRequest, panel=START, groups=groups)


def plan(request: PlanRequest, assignments: SetOption = None, as_json: JsonOption = False) -> None:
    """Fingerprint, plan and preprocess a dataset for a split. Finished work is skipped.

    Example:
    nnunet-limited plan 4 --split l8 -c 3d_fullres
    """
    from nnunet_limited.engine.settings import parse_assignments
    from nnunet_limited.planners.plan import make_plans
    from nnunet_limited.planners.planned import PlannedData
    from nnunet_limited.runs.variants import check_settings
    from nnunet_limited.runs.variants import configure as write_variant

    settings = parse_assignments(assignments or [])
    if settings:
        check_settings({"plans_name": f"for split {request.split}", "limited": {"settings": settings}})
    result = make_plans(request)
    folder = result.file.parent
    name = write_variant(folder, result.plans, settings) if settings else result.plans
    where, trainer = f"{folder.name} {result.configurations[0]}", f"-tr {result.trainer} " if result.trainer else ""
    train = f"nnunet-limited {'crossval' if trainer else 'self-train'} {where} {trainer}-p {name}"
    if as_json:
        show_json(
            {
                "plans": name,
                "file": str(folder / f"{name}.json"),
                "dataset": folder.name,
                "configurations": list(result.configurations),
                "warnings": list(result.warnings),
                "next": train,
            }
        )
        return
    planned = PlannedData.load(folder, name).plans["configurations"]
    rows = [
        (c, "x".join(map(str, planned[c]["patch_size"])), planned[c]["batch_size"], planned[c]["data_identifier"])
        for c in result.configurations
    ]
    show_table(f"Plans {name}", ("configuration", "patch", "batch", "preprocessed data"), rows)
    for warning in result.warnings:
        console.print(f"warning: {warning}", highlight=False, markup=False)
    console.print(f"wrote {folder / f'{name}.json'}", highlight=False)
    show_next(train, f"nnunet-limited train {where} 0 {trainer}-p {name}")
