"""``nnunet-limited sparsify``."""

from __future__ import annotations

import statistics
from typing import Any

import typer

from nnunet_limited.cli.options import ANNOTATE, JsonOption, add_command
from nnunet_limited.cli.output import console, show_json, show_next, show_table
from nnunet_limited.datasets.request import SparsifyRequest


def register(app: typer.Typer) -> None:
    """Add the command."""
    groups = {
        "Slices and scribbles": "count axis placement style",
        "Boxes, points and patches": "margin background radius size",
    }
    add_command(app, sparsify, SparsifyRequest, panel=ANNOTATE, groups=groups)


def sparsify(request: SparsifyRequest, as_json: JsonOption = False) -> None:
    """Simulate sparse labels from dense ones, as a new dataset with the same images.

    Its cases are validated on the dense labels.

    Example:
    nnunet-limited sparsify 501 --kind scribbles --out Dataset601_HeartScribbles
    """
    from nnunet_limited.datasets.sparsify import sparsify as run
    from nnunet_limited.util.parallel import default_processes

    record = run(request, default_processes())
    if as_json:
        show_json(record)
        return
    show_view(record, request.out)


def show_view(record: dict[str, Any], name: str) -> None:
    """Print what is annotated in a new dataset of sparse labels, and what to run next."""
    from nnunet_limited.host.folders import raw_folder

    cases = list(record["cases"].values())
    rows = []
    for key in ("annotated_share", "foreground_voxels", "marks", "slices", "minutes"):
        values = [about[key] for about in cases if key in about]
        if values:
            rows.append((key.replace("_", " "), *(f"{f(values):.4g}" for f in (min, statistics.mean, max, sum))))
    rows[0] = (*rows[0][:-1], "")
    show_table(f"{name}: {len(cases)} cases", ("", "min", "mean", "max", "sum"), rows)
    if record["kept"]:
        console.print(f"{len(record['kept'])} cases keep their label, as they have no new annotation.")
    console.print(f"wrote {raw_folder(name)}", highlight=False)
    show_next(
        f"nnunet-limited split {name} --name all",
        f"nnunet-limited plan {name} --split all -c 2d",
        f"nnUNetv2_train {name} 2d 0 -tr LimitedSparseTrainer -p nnUNetPlans_all",
    )
