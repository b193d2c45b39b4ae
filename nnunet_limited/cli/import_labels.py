"""``nnunet-limited import-labels``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from nnunet_limited.cli.output import JsonOption, show_json
from nnunet_limited.cli.sparsify import show_view
from nnunet_limited.cli.train import DatasetArgument


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import-labels")(import_labels)


def import_labels(
    dataset: DatasetArgument,
    out: Annotated[str, typer.Option(help="Name of the new dataset, e.g. Dataset601_HeartScribbles.")],
    labels: Annotated[Path | None, typer.Option(help="Folder of label files, each named after its case.")] = None,
    unlabeled: Annotated[
        int | None, typer.Option(min=0, help="Value in the label files of voxels that nobody annotated.")
    ] = None,
    background: Annotated[
        int, typer.Option(min=0, help="Value in the label files of what was drawn as background.")
    ] = 0,
    boxes: Annotated[Path | None, typer.Option(help="CSV or JSON: case,class,x0,y0,z0,x1,y1,z1.")] = None,
    points: Annotated[Path | None, typer.Option(help="CSV or JSON: case,class,x,y,z.")] = None,
    coordinates: Annotated[
        Literal["voxel", "lps", "ras"], typer.Option(help="Of boxes and points: voxels from 0, or millimetres.")
    ] = "voxel",
    radius: Annotated[float, typer.Option(min=0, help="Of a point, in units of the smallest spacing.")] = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Bring in sparse labels that people made, as a new dataset that shows the same images.

    Other cases keep the label they have, if any; annotated ones that have a dense label are validated on it.
    Example: nnunet-limited import-labels 501 --labels scribbles/ --unlabeled 4 --out Dataset601_HeartScribbles
    """
    from nnunet_limited.datasets.import_labels import ImportRequest, import_labels
    from nnunet_limited.util.parallel import default_processes

    request = ImportRequest(dataset, out, labels, unlabeled, background, boxes, points, coordinates, radius)
    record = import_labels(request, default_processes())
    if as_json:
        show_json(record)
        return
    show_view(record, out)
