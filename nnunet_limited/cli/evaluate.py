"""``nnunet-limited evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunet_limited.cli.options import COMPARE, JsonOption, add_command
from nnunet_limited.cli.output import console, show_json, show_table
from nnunet_limited.metrics.request import EvaluateRequest

OutOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="CSV file to write, with a row for each case and class.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    metavars = {"predictions": "PREDICTIONS", "truth": "LABELS", "dataset_json": "FILE"}
    add_command(app, evaluate, EvaluateRequest, panel=COMPARE, arguments=("predictions", "truth"), metavars=metavars)


def evaluate(request: EvaluateRequest, out: OutOption = None, as_json: JsonOption = False) -> None:
    """Compare predictions with labels: Dice, IoU, surface distances, volume error, sensitivity and precision.

    If a class is neither in the prediction nor in the label, the case is left out of its means. If it is in one of the
    two only, overlaps are 0 and distances are the diagonal of the image.

    Example:
    nnunet-limited evaluate PREDICTIONS Dataset004_Hippocampus/labelsTr --out metrics.csv
    """
    from nnunet_limited.metrics.registry import METRICS
    from nnunet_limited.runs.evaluate import evaluate as run
    from nnunet_limited.runs.evaluate import summarise, write_rows

    rows = run(request)
    summary = summarise(rows)
    if out is not None:
        write_rows(out, rows)
    if as_json:
        show_json({"classes": summary.to_dict("index"), "cases": rows.to_dict("records")})
        return
    columns = ("class", *(metric.title for metric in METRICS.values()))
    table = [(name, *(f"{value:.4f}" for value in values)) for name, *values in summary.itertuples()]
    unit = "voxels" if request.voxels else "mm"
    show_table(f"Means over {rows['case'].nunique()} cases; distances in {unit}, volumes in {unit}³", columns, table)
    if out is not None:
        console.print(f"wrote {out}", highlight=False)
