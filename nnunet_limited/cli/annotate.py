"""``nnunet-limited sparsify``, ``import-labels``, ``query`` and ``absorb``."""

import math
import statistics
from functools import partial
from typing import Any

import typer

from nnunet_limited.cli.options import ANNOTATE, DeviceOption, JsonOption, command
from nnunet_limited.cli.output import console, progress, show_json, show_next, show_table
from nnunet_limited.datasets.request import ImportRequest, SparsifyRequest
from nnunet_limited.host.folders import free_number, raw_folder
from nnunet_limited.queries.request import AbsorbRequest, QueryRequest
from nnunet_limited.util.extras import require_extra
from nnunet_limited.util.parallel import default_processes

app = typer.Typer()


@command(
    app,
    ANNOTATE,
    groups={
        "Slices and scribbles": "count axis placement style",
        "Boxes, points and patches": "margin background radius size",
    },
)
def sparsify(request: SparsifyRequest, as_json: JsonOption = False) -> None:
    """Simulate sparse labels from dense ones, as a new dataset with the same images.

    Its cases are validated on the dense labels.

    Example:
    nnunet-limited sparsify 501 --kind scribbles --out Dataset601_HeartScribbles
    """
    from nnunet_limited.datasets.sparsify import sparsify as run

    _show_view(run(request, default_processes()), request.out, as_json)


@command(
    app,
    ANNOTATE,
    groups={
        "Label files": "labels unlabeled background grid_of_image",
        "Boxes and points": "boxes points coordinates radius",
    },
)
def import_labels(request: ImportRequest, as_json: JsonOption = False) -> None:
    """Import sparse labels that people made, as a new dataset with the same images.

    Cases without an imported annotation keep their label. Annotated cases with a dense label are validated on it.

    Example:
    nnunet-limited import-labels 501 --labels scribbles/ --unlabeled 4 --out Dataset601_HeartScribbles
    """
    from nnunet_limited.datasets.import_labels import import_labels as run

    _show_view(run(request, default_processes()), request.out, as_json)


def _show_view(record: dict[str, Any], name: str, as_json: bool) -> None:
    """Print what is annotated in a new dataset of sparse labels, and what to run next."""
    if as_json:
        return show_json(record)
    cases = list(record["cases"].values())
    rows = []
    for key in ("annotated_share", "foreground_voxels", "marks", "slices", "minutes"):
        values = [about[key] for about in cases if key in about]
        if values:
            rows.append(
                (
                    key.replace("_share", " fraction").replace("_", " "),
                    *(f"{f(values):.4g}" for f in (min, statistics.mean, max, sum)),
                )
            )
    rows[0] = (*rows[0][:-1], "")
    show_table(f"{name}: {len(cases)} cases", ("", "min", "mean", "max", "sum"), rows)
    if record["kept"]:
        console.print(f"Cases without new annotation, which keep their label: {len(record['kept'])}.")
    if complete := [case for case, about in record["cases"].items() if about.get("complete")]:
        console.print(
            f"Fully annotated, as no voxel has the value {record['unlabeled']} of --unlabeled: {', '.join(complete)}.",
            markup=False,
        )
    warnings = [about["warning"] for about in cases if "warning" in about]
    shares = [about["annotated_share"] for about in cases if about.get("complete") is False]
    if shares and min(shares) > 0.5:
        warnings.append(
            f"in every label file more than half of the voxels are annotated: value {record['background']} is "
            f"background, and {record['unlabeled']} is not annotated; are --background and --unlabeled swapped?"
        )
    _show_warnings(warnings)
    console.print(f"wrote {raw_folder(name)}")
    show_next(
        f"nnunet-limited split {name} --name all",
        f"nnunet-limited plan {name} --split all -c 2d",
        f"nnUNetv2_train {name} 2d 0 -tr LimitedSparseTrainer -p nnUNetPlans_all",
    )


def _show_warnings(warnings: list[str]) -> None:
    for warning in warnings:
        console.print(f"warning: {warning}", markup=False)


@command(
    app,
    ANNOTATE,
    flags={"folds": "-f"},
    groups={
        "Budget and unit": "items minutes what size axis seconds",
        "Selection": "strategy rounds overlap seed",
        "Model": "trainer plans folds device",
        "Cold start and simulation": "split features oracle",
    },
)
def query(request: QueryRequest, device: DeviceOption = None, as_json: JsonOption = False) -> None:
    """Choose what to annotate next, and write a folder with all that annotators need.

    Examples:
    nnunet-limited query 501 3d_fullres -tr LimitedSparseTrainer -p nnUNetPlans_l8 \\
      --what patch --size 16x64x64 --items 20 --out round_1
    nnunet-limited query 501 --items 4 --out round_0  # without a model
    """
    from nnunet_limited.metrics.areas import predicted_gain
    from nnunet_limited.queries.query import query as run
    from nnunet_limited.runs.launch import choose_device

    require_extra("al", "query", "jinja2")
    made = run(request, choose_device(device), partial(progress, title="Cases"))
    record, out = made.record, request.out
    if as_json:
        return show_json({**record.model_dump(mode="json"), "queries": [one.as_dict() for one in made.queries]})
    rows = []
    for number, one in enumerate(made.queries, 1):
        place = ["x".join(map(str, part)) for part in (one.window.start, one.window.size)]
        rows.append((number, one.window.case, *place, f"{one.minutes:.3g}"))
    show_table(f"Queries in {record.dataset}", ("", "case", "start", "size", "minutes"), rows)
    if request.items is not None and len(made.queries) < request.items:
        console.print(f"{len(made.queries)} instead of {request.items}: no more windows are left to query.")
    if record.dice:
        gain = predicted_gain(record.dice)
        prediction = "" if math.isnan(gain) else f" Predicted gain of this round: {gain:.3f}."
        console.print(f"Validation Dice so far: {', '.join(f'{one:.3f}' for one in record.dice)}.{prediction}")
    hint = f": open {out / 'index.html'}, and annotate the files in {out / 'labels'}" if request.oracle is None else ""
    console.print(f"wrote {out}{hint}")
    show_next(f"nnunet-limited absorb {out} --out Dataset{free_number()}_{record.dataset[11:]}")


@command(app, ANNOTATE, arguments=("folder",))
def absorb(request: AbsorbRequest, as_json: JsonOption = False) -> None:
    """Check the annotations of a round, and make the dataset and the split of the next one.

    Partial annotations are allowed; what is missing can be queried again. Existing files stay as they are.

    Example:
    nnunet-limited absorb round_1 --out Dataset601_Heart
    """
    from nnunet_limited.queries.absorb import absorb as run
    from nnunet_limited.queries.absorb import next_commands

    record = run(request, default_processes())
    if as_json:
        return show_json(record)
    rows: list[tuple[Any, ...]] = []
    for number, one in enumerate(record["queries"], 1):
        done = one["annotated"]
        state = "done" if done == 1 else f"{100 * done:.0f} % annotated" if done else "not annotated"
        state = "unchanged" if one["unchanged"] else state
        rows.append((number, one["case"], "x".join(map(str, one["start"])), "x".join(map(str, one["size"])), state))
    show_table(f"Annotations of {request.folder}", ("", "case", "start", "size", "state"), rows)
    if any(one["unchanged"] for one in record["queries"]):
        console.print("If the unchanged predictions are right, run the command again with --accept-unchanged.")
    if record["not_taken"]:
        cases = ", ".join(f"{case} ({count:,})" for case, count in record["not_taken"].items())
        console.print(
            f"Voxels of value 0 outside of the queried windows are no annotation: {cases}. To annotate background "
            "there, save CASE.seg.nrrd with a segment named background.",
            markup=False,
        )
    if record["added"]:
        left_out = [case for case in record["added"] if case not in record["offered"]]
        console.print(
            f"Scans added since the query, unlabelled in the new split: {', '.join(record['offered']) or 'none'}."
            + (f" Left out, as their patients are validated on: {', '.join(left_out)}." if left_out else ""),
            markup=False,
        )
    _show_warnings(record["warnings"])
    voxels, minutes = (sum(c[key] for c in record["cases"].values()) for key in ("foreground_voxels", "minutes"))
    console.print(f"{voxels:,} voxels of foreground, about {minutes:.0f} minutes of annotation.")
    console.print(f"wrote {raw_folder(request.out)} and its split {record['split']}")
    show_next(*next_commands(request.out, record))
