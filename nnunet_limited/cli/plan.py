"""``nnunet-limited plan`` and ``nnunet-limited configure``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from nnunet_limited.cli.output import JsonOption, SetOption, console, show_json, show_next, show_table
from nnunet_limited.errors import LimitedError
from nnunet_limited.util.parallel import default_processes


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("plan")(plan)
    app.command("configure")(configure)


def plan(
    dataset: Annotated[str, typer.Argument(help="Number or name of the dataset.")],
    split: Annotated[str, typer.Option(help="Name of the split to plan for.")],
    configurations: Annotated[
        list[str] | None,
        typer.Option("-c", help="Configuration to preprocess (2d, 3d_fullres, …); repeatable."),
    ] = None,
    planner: Annotated[
        str, typer.Option("-pl", help="nnU-Net planner, e.g. nnUNetPlannerResEncM.")
    ] = "ExperimentPlanner",
    size: Annotated[
        Literal["default", "tiny"],
        typer.Option(help="tiny: learns on a CPU in minutes, for trying things out."),
    ] = "default",
    geometry: Annotated[
        Literal["all", "labeled"],
        typer.Option(help="Plan spacing and patch from all images or the labelled ones."),
    ] = "all",
    patch: Annotated[
        str | None,
        typer.Option(help="Patch size, e.g. 80x112x112, in the order of the plans; default: nnU-Net's choice."),
    ] = None,
    processes: Annotated[int | None, typer.Option("-np", min=1, help="Worker processes.")] = None,
    assignments: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fingerprint, plan and preprocess a dataset for a split. What is done already is not done again.

    Example: nnunet-limited plan 4 --split l8 -c 3d_fullres
    """
    from nnunet_limited.engine.settings import parse_assignments
    from nnunet_limited.planners.plan import PlanRequest, make_plans
    from nnunet_limited.planners.planned import PlannedData
    from nnunet_limited.runs.variants import check_settings
    from nnunet_limited.runs.variants import configure as write_variant

    settings = parse_assignments(assignments or [])
    if settings:
        check_settings({"plans_name": f"for split {split}", "limited": {"settings": settings}})
    edges = patch.split("x") if patch else []
    if not all(edge.isdecimal() and int(edge) > 0 for edge in edges):
        raise LimitedError(f"--patch {patch} is not of the form 80x112x112; give the number of voxels of each edge")
    request = PlanRequest(
        dataset,
        split,
        tuple(configurations or ()),
        planner,
        size,
        geometry,
        tuple(map(int, edges)),
        processes or default_processes(),
    )
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
        (
            c,
            "x".join(map(str, planned[c]["patch_size"])),
            planned[c]["batch_size"],
            planned[c]["data_identifier"],
        )
        for c in result.configurations
    ]
    show_table(f"Plans {name}", ("configuration", "patch", "batch", "preprocessed data"), rows)
    for warning in result.warnings:
        console.print(f"warning: {warning}", highlight=False, markup=False)
    console.print(f"wrote {folder / f'{name}.json'}", highlight=False)
    show_next(train, f"nnunet-limited train {where} 0 {trainer}-p {name}")


def configure(
    plans: Annotated[str, typer.Argument(help="Name of plans made by 'nnunet-limited plan'.")],
    assignments: SetOption = None,
    name: Annotated[str | None, typer.Option(help="Appended to the plans' name; default: from the settings.")] = None,
    dataset: Annotated[str | None, typer.Option("-d", help="Dataset, if several have plans of this name.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Give plans other settings under a name of their own; nothing is preprocessed again.

    Example: nnunet-limited configure nnUNetPlans_l8 --set consistency_weight=0.3 --name w03
    """
    from nnunet_limited.engine.settings import parse_assignments
    from nnunet_limited.runs.variants import configure as write_variant
    from nnunet_limited.runs.variants import find_plans

    settings = parse_assignments(assignments or [])
    if not settings:
        raise LimitedError("configure: no --set key=value given; say which setting to change")
    folder = find_plans(plans, dataset)
    new = write_variant(folder, plans, settings, name)
    if as_json:
        show_json({"plans": new, "file": str(folder / f"{new}.json"), "dataset": folder.name})
        return
    console.print(f"wrote {folder / f'{new}.json'}", highlight=False)
    show_next(f"nnunet-limited self-train {folder.name} CONFIGURATION -p {new}")
