"""``nnunet-limited evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunet_limited.cli.options import COMPARE, JsonOption, add_command
from nnunet_limited.cli.output import console, show_json, show_table


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, evaluate, panel=COMPARE)


def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of predictions, e.g. of nnUNetv2_predict.")],
    truth: Annotated[Path, typer.Argument(help="Folder of labels of the same names.")],
    dataset_json: Annotated[
        Path | None, typer.Option(help="dataset.json of the classes; default: that beside either folder.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Of the surface Dice: surfaces so close agree; in mm, or voxels.")
    ] = 1.0,
    voxels: Annotated[bool, typer.Option("--voxels", help="Distances and volumes in voxels instead of mm.")] = False,
    out: Annotated[Path | None, typer.Option(help="CSV file to write, a row for each case and class.")] = None,
    processes: Annotated[
        int | None, typer.Option("-np", min=1, help="Cases at once; default: nnUNet_def_n_proc, at most one a core.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare predictions with labels: Dice, IoU, surface distances, volume error, sensitivity and precision.

    Where a class is neither predicted nor there, the case is left out of its means; where it is only one of the two,
    overlaps are 0 and distances the diagonal of the image. Example:
    nnunet-limited evaluate PREDICTIONS Dataset004_Hippocampus/labelsTr --out metrics.csv
    """
    from nnunet_limited.metrics.registry import METRICS
    from nnunet_limited.runs.evaluate import EvaluateRequest, summarise, write_rows
    from nnunet_limited.runs.evaluate import evaluate as run
    from nnunet_limited.util.parallel import default_processes

    request = EvaluateRequest(
        predictions=predictions,
        truth=truth,
        dataset_json=dataset_json,
        tolerance=tolerance,
        voxels=voxels,
        processes=default_processes() if processes is None else processes,
    )
    rows = run(request)
    summary = summarise(rows)
    if out is not None:
        write_rows(out, rows)
    if as_json:
        show_json({"classes": summary.to_dict("index"), "cases": rows.to_dict("records")})
        return
    columns = ("class", *(metric.title for metric in METRICS.values()))
    table = [(name, *(f"{value:.4f}" for value in values)) for name, *values in summary.itertuples()]
    unit = "voxels" if voxels else "mm"
    show_table(f"Means over {rows['case'].nunique()} cases; distances in {unit}, volumes in {unit}³", columns, table)
    if out is not None:
        console.print(f"wrote {out}", highlight=False)
