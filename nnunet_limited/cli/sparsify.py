"""``nnunet-limited sparsify``."""

from __future__ import annotations

import statistics
from typing import Annotated, Any, Literal

import typer

from nnunet_limited.cli.output import JsonOption, console, show_json, show_next, show_table
from nnunet_limited.cli.train import DatasetArgument
from nnunet_limited.errors import LimitedError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sparsify")(sparsify)


def voxels(text: str) -> tuple[int, ...]:
    """Return the numbers of a size such as 8x64x64."""
    parts = text.split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise LimitedError(f"--size {text} is not of the form 8x64x64; give a number of voxels for each axis")
    return tuple(map(int, parts))


def sparsify(
    dataset: DatasetArgument,
    kind: Annotated[
        Literal["scribbles", "slices", "orthogonal-slices", "boxes", "points", "patches"],
        typer.Option(help="What is drawn."),
    ],
    out: Annotated[str, typer.Option(help="Name of the new dataset, e.g. Dataset601_HeartScribbles.")],
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Other marks for another seed.")] = 0,
    count: Annotated[
        int | None,
        typer.Option(min=1, help="Slices an axis, points an object, patches, or slices with scribbles (default: all)."),
    ] = None,
    axis: Annotated[
        int | None, typer.Option(min=0, max=2, help="Slices lie across it; default: the one with the largest spacing.")
    ] = None,
    placement: Annotated[
        Literal["centre", "equidistant", "random"] | None, typer.Option(help="Where slices or points are.")
    ] = None,
    style: Annotated[Literal["spline", "skeleton"] | None, typer.Option(help="How scribbles are drawn.")] = None,
    margin: Annotated[
        float | None, typer.Option(min=0, max=1, help="How far boxes may be too large, in parts of the object.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Voxels of a patch along each axis, e.g. 8x64x64.")] = None,
    background: Annotated[int | None, typer.Option(min=0, help="Points in the background, by default 10.")] = None,
    radius: Annotated[
        float | None, typer.Option(min=0, help="Of a point, in units of the smallest spacing; by default 2.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="That a stroke, outline, box or point takes; for the cost in minutes.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate sparse labels from dense ones, as a new dataset that shows the same images.

    Its cases are validated on the dense labels. Example: nnunet-limited sparsify 501 --kind scribbles
    --out Dataset601_HeartScribbles
    """
    from nnunet_limited.datasets.sparsify import SparsifyRequest
    from nnunet_limited.datasets.sparsify import sparsify as make
    from nnunet_limited.util.parallel import default_processes

    given = {
        "count": count,
        "axis": axis,
        "placement": placement,
        "style": style,
        "margin": margin,
        "size": voxels(size) if size is not None else None,
        "background": background,
        "radius": radius,
    }
    options = {name: value for name, value in given.items() if value is not None}
    record = make(SparsifyRequest(dataset, kind, out, seed, options, seconds), default_processes())
    if as_json:
        show_json(record)
        return
    show_view(record, out)


def show_view(record: dict[str, Any], name: str) -> None:
    """Print what a new dataset of sparse labels is like, and what to run next."""
    from nnunet_limited.host.folders import raw_folder

    cases = list(record["cases"].values())
    rows = []
    for key in ("annotated_share", "foreground_voxels", "marks", "slices", "minutes"):
        values = [about[key] for about in cases if key in about]
        if values:
            rows.append((key.replace("_", " "), *(f"{f(values):.4g}" for f in (min, statistics.mean, max, sum))))
    rows[0] = (*rows[0][:-1], "")
    show_table(f"{name}: {len(cases)} cases", ("", "least", "mean", "most", "sum"), rows)
    if record["kept"]:
        console.print(f"{len(record['kept'])} cases keep the label they have, as nobody annotated them anew.")
    console.print(f"wrote {raw_folder(name)}", highlight=False)
    show_next(
        f"nnunet-limited split {name} --name all",
        f"nnunet-limited plan {name} --split all -c 2d",
        f"nnUNetv2_train {name} 2d 0 -tr LimitedSparseTrainer -p nnUNetPlans_all",
    )
