"""``nnunet-limited absorb``."""

from __future__ import annotations

import contextlib
from typing import Any

import typer

from nnunet_limited.cli.options import ANNOTATE, JsonOption, add_command
from nnunet_limited.cli.output import console, show_json, show_next, show_table
from nnunet_limited.errors import LimitedError
from nnunet_limited.queries.request import AbsorbRequest


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, absorb, AbsorbRequest, panel=ANNOTATE, arguments=("folder",))


def absorb(request: AbsorbRequest, as_json: JsonOption = False) -> None:
    """Check the annotations of a round, and make the dataset and the split of the next one.

    Partial annotations are allowed; what is missing can be queried again. Existing files stay as they are.

    Example:
    nnunet-limited absorb round_1 --out Dataset601_Heart
    """
    from nnunet_limited.host.folders import raw_folder
    from nnunet_limited.queries.absorb import absorb as run
    from nnunet_limited.util.parallel import default_processes

    record = run(request, default_processes())
    if as_json:
        show_json(record)
        return
    rows: list[tuple[Any, ...]] = []
    for number, one in enumerate(record["queries"], 1):
        done = one["annotated"]
        state = "done" if done == 1 else f"{100 * done:.0f} % annotated" if done else "not annotated"
        state = "unchanged" if one["unchanged"] else state
        rows.append((number, one["case"], "x".join(map(str, one["start"])), "x".join(map(str, one["size"])), state))
    show_table(f"Annotations of {request.folder}", ("", "case", "start", "size", "state"), rows)
    if any(one["unchanged"] for one in record["queries"]):
        console.print("If the unchanged predictions are right, run the command again with --accept-unchanged.")
    sums = {key: sum(about[key] for about in record["cases"].values()) for key in ("foreground_voxels", "minutes")}
    console.print(
        f"{sums['foreground_voxels']:,} voxels of foreground, about {sums['minutes']:.0f} minutes of annotation."
    )
    console.print(f"wrote {raw_folder(request.out)} and its split {record['split']}", highlight=False)
    show_next(*_next_commands(request.out, record))


def _next_commands(out: str, record: dict[str, Any]) -> list[str]:
    """Return how to plan, train and query again, with the configuration and size of the model of this round."""
    from nnunet_limited.host.folders import preprocessed_folder
    from nnunet_limited.planners.planned import PlannedData
    from nnunet_limited.splits import load_split

    configuration, size = "3d_fullres", ""
    if record["model"] is not None:
        configuration, plans = record["model"]["configuration"], {}
        with contextlib.suppress(LimitedError):  # they may be deleted
            plans = PlannedData.load(preprocessed_folder(record["dataset"]), record["model"]["plans"]).plans
        size = " --size tiny" if plans.get("limited", {}).get("size") == "tiny" else ""
    following = record["round"] + 1
    what, axis, voxel = record["granularity"]
    again = f"--what {what}" + (f" --size {'x'.join(map(str, voxel))}" if voxel else "")
    again += f" --axis {axis}" if axis is not None else ""
    again += f" --items {record['items']}" if record["items"] else f" --minutes {record['minutes']:g}"
    if record["model"] is not None:  # after a cold start the default for models is better
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
