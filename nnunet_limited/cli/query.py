"""``nnunet-limited query`` and ``nnunet-limited absorb``: what to annotate next, and what came of it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import track

from nnunet_limited.cli.options import ANNOTATE, DatasetArgument, DeviceOption, JsonOption, add_command
from nnunet_limited.cli.output import console, show_json, show_next, show_table
from nnunet_limited.errors import LimitedError


def register(app: typer.Typer) -> None:
    """Add the commands."""
    add_command(app, query, panel=ANNOTATE)
    add_command(app, absorb, panel=ANNOTATE)


def _progress(cases: list[str]) -> Iterable[str]:
    """Show on a terminal how far the pool is."""
    shown = Console(stderr=True)
    return track(cases, "Cases", console=shown, disable=not shown.is_terminal)


def query(
    dataset: DatasetArgument,
    configuration: Annotated[
        str | None, typer.Argument(help="2d, 3d_fullres, … of the model; leave it out for a cold start.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to make for the annotators, e.g. round_1.")] = Path("round_1"),
    items: Annotated[int | None, typer.Option(min=1, help="Budget: how many to annotate.")] = None,
    minutes: Annotated[float | None, typer.Option(min=1, help="Budget in minutes of work, by estimate.")] = None,
    what: Annotated[
        Literal["case", "slice", "patch"], typer.Option(help="What is annotated: whole cases, slices or 3D patches.")
    ] = "case",
    size: Annotated[str | None, typer.Option(help="Voxels of a patch along each axis (z, y, x): 16x64x64.")] = None,
    axis: Annotated[int | None, typer.Option(min=0, max=2, help="Axis of slices; default: largest spacing.")] = None,
    strategy: Annotated[
        str | None, typer.Option(help="How to choose; default: clasp_pe, for a cold start typiclust.")
    ] = None,
    trainer: Annotated[str | None, typer.Option("-tr", help="Trainer of the model.")] = None,
    plans: Annotated[str | None, typer.Option("-p", help="Plans of the model.")] = None,
    folds: Annotated[list[int] | None, typer.Option("-f", help="Fold; repeatable. Default: all.")] = None,
    split: Annotated[
        str | None, typer.Option(help="Cold start: split that says what is annotated; default: cases with a label.")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="Cold start: .npz with an array of features for each case, e.g. embeddings.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that are planned; clasp_pe explores in early ones.")] = 5,
    overlap: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of a window that may be annotated already; default 0 for patches."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0, help="That an outline in one slice takes, for the estimate.")] = 79.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the choice.")] = 0,
    oracle: Annotated[
        Path | None,
        typer.Option(help="Simulation: folder of the hidden labels; nothing is written for people."),
    ] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose what to annotate next, and write a folder with all that annotators need.

    Examples:
    nnunet-limited query 501 3d_fullres -tr LimitedSparseTrainer -p nnUNetPlans_l8 \\
      --what patch --size 16x64x64 --items 20 --out round_1
    nnunet-limited query 501 --items 4 --out round_0  (without a model)
    """
    from nnunet_limited.queries.query import query as make
    from nnunet_limited.queries.request import QueryRequest
    from nnunet_limited.runs.launch import choose_device
    from nnunet_limited.util.extras import require_extra
    from nnunet_limited.util.fields import parse_voxels

    require_extra("al", "query", "jinja2")
    request = QueryRequest(
        dataset=dataset,
        configuration=configuration,
        out=out,
        items=items,
        minutes=minutes,
        what=what,
        size=parse_voxels(size, "--size") if size is not None else None,
        axis=axis,
        strategy=strategy,
        trainer=trainer,
        plans=plans,
        folds=tuple(folds or ()),
        split=split,
        features=features,
        rounds=rounds,
        overlap=overlap,
        seconds=seconds,
        seed=seed,
        oracle=oracle,
    )
    made = make(request, choose_device(device), _progress)
    if as_json:
        show_json({**made.record.as_dict(), "queries": [one.as_dict() for one in made.queries]})
        return
    rows = []
    for number, one in enumerate(made.queries, 1):
        place = ["x".join(map(str, part)) for part in (one.window.start, one.window.size)]
        rows.append((number, one.window.case, *place, f"{one.minutes:.3g}"))
    show_table(f"What to annotate in {made.record.dataset}", ("", "case", "start", "size", "minutes"), rows)
    if items is not None and len(made.queries) < items:
        console.print(f"{len(made.queries)} instead of {items}: no more windows are left to query.")
    _show_progress(made.record.dice)
    look = "" if oracle is not None else f": look at {out / 'index.html'}, annotate the files of {out / 'labels'}"
    console.print(f"wrote {out}{look}", highlight=False)
    show_next(f"nnunet-limited absorb {out} --out Dataset{_next_number()}_{made.record.dataset[11:]}")


def _show_progress(dice: Sequence[float]) -> None:
    """Print the Dice of the rounds so far and what the next one promises."""
    if not dice:
        return
    told = f"Validation Dice so far: {', '.join(f'{one:.3f}' for one in dice)}."
    from nnunet_limited.metrics.areas import predicted_gain

    gain = predicted_gain(dice)
    console.print(told if math.isnan(gain) else f"{told} By its curve this round adds {gain:.3f}: worth the minutes?")


def _next_number() -> str:
    """Return the next free number of a dataset above 600."""
    from nnunet_limited.host.folders import nnunet_folder

    taken = {
        folder.name[7:10]
        for variable in ("nnUNet_raw", "nnUNet_preprocessed")
        if nnunet_folder(variable).is_dir()
        for folder in nnunet_folder(variable).iterdir()
    }
    return next(f"{n:03d}" for n in range(601, 1000) if f"{n:03d}" not in taken)


def absorb(
    folder: Annotated[Path, typer.Argument(help="Folder of a round, annotated.")],
    out: Annotated[str, typer.Option(help="Name of the dataset to make, e.g. Dataset601_Heart.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the split to make; default r1 for round 1 and so on.")
    ] = None,
    accept_unchanged: Annotated[
        bool,
        typer.Option("--accept-unchanged", help="Files that are as they were handed out are answers too."),
    ] = False,
    oracle: Annotated[
        Path | None, typer.Option(help="Simulation: folder of dense labels that answers every query.")
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(help="After a cold start: regular expression of patients, as for split."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check the annotations of a round, and make the dataset and the split of the next one.

    Partial annotations are allowed; what is missing can be queried again. Existing files stay as they are.

    Example:
    nnunet-limited absorb round_1 --out Dataset601_Heart
    """
    from nnunet_limited.host.folders import raw_folder
    from nnunet_limited.queries.absorb import absorb as make
    from nnunet_limited.queries.request import AbsorbRequest
    from nnunet_limited.util.parallel import default_processes

    request = AbsorbRequest(
        folder=folder, out=out, name=name, accept_unchanged=accept_unchanged, oracle=oracle, group_by=group_by
    )
    record = make(request, default_processes())
    if as_json:
        show_json(record)
        return
    rows: list[tuple[Any, ...]] = []
    for number, one in enumerate(record["queries"], 1):
        done = one["annotated"]
        state = "done" if done == 1 else f"{100 * done:.0f} % annotated" if done else "not answered"
        state = "as handed out" if one["unchanged"] else state
        rows.append((number, one["case"], "x".join(map(str, one["start"])), "x".join(map(str, one["size"])), state))
    show_table(f"Answers of {folder}", ("", "case", "start", "size", "state"), rows)
    if any(one["unchanged"] for one in record["queries"]):
        console.print("If the predictions are right where nothing was changed, make it again with --accept-unchanged.")
    sums = {key: sum(about[key] for about in record["cases"].values()) for key in ("foreground_voxels", "minutes")}
    console.print(
        f"{sums['foreground_voxels']:,} voxels of foreground, about {sums['minutes']:.0f} minutes of outlining."
    )
    console.print(f"wrote {raw_folder(out)} and its split {record['split']}", highlight=False)
    show_next(*_next_commands(out, record))


def _next_commands(out: str, record: dict[str, Any]) -> list[str]:
    """Return how to plan, train and ask again, with the configuration and size of the model that asked."""
    from nnunet_limited.host.folders import preprocessed_folder
    from nnunet_limited.planners.planned import PlannedData
    from nnunet_limited.splits import load_split

    configuration, size = "3d_fullres", ""
    if record["model"] is not None:
        configuration, plans = record["model"]["configuration"], {}
        with contextlib.suppress(LimitedError):  # they are not needed any more
            plans = PlannedData.load(preprocessed_folder(record["dataset"]), record["model"]["plans"]).plans
        size = " --size tiny" if plans.get("limited", {}).get("size") == "tiny" else ""
    following = record["round"] + 1
    what, axis, voxel = record["granularity"]
    again = f"--what {what}" + (f" --size {'x'.join(map(str, voxel))}" if voxel else "")
    again += f" --axis {axis}" if axis is not None else ""
    again += f" --items {record['items']}" if record["items"] else f" --minutes {record['minutes']:g}"
    if record["model"] is not None:  # after a cold start the models have a say
        again += f" --strategy {record['strategy']}"
    again += f" --seconds {record['seconds']:g} --seed {record['seed']}"
    split = load_split(preprocessed_folder(out), record["split"])
    train, trainer = "self-train", "LimitedActiveTrainer"
    if not all(fold.unlabeled for fold in split.folds):  # every scan is annotated in part
        train, trainer = "crossval", "LimitedSparseTrainer"
    return [
        f"nnunet-limited plan {out} --split {record['split']} -c {configuration}{size}",
        f"nnunet-limited {train} {out} {configuration} -tr {trainer} -p PLANS",
        f"nnunet-limited query {out} {configuration} -tr {trainer} -p PLANS {again} "
        f"--rounds {record['rounds']} --out round_{following}",
    ]
