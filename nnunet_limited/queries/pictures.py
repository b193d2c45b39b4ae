"""Pictures of queries: a montage, and a page with each query on its scan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from nnunet_limited.queries.record import Query
from nnunet_limited.queries.windows import Window
from nnunet_limited.report.figures import picture
from nnunet_limited.report.overlays import show_image, show_labels
from nnunet_limited.util.files import replacing

MONTAGE = 24  # queries in the montage, in four rows
DPI = 90


@dataclass(frozen=True)
class View:
    """The slice through the middle of a query (rows, columns): first channel, prediction and entropy.

    Without a model the last two are None. ``aspect`` is the spacing of rows over that of columns; ``frame`` are first
    column and row of the window, its columns and its rows.
    """

    image: np.ndarray
    label: np.ndarray | None
    entropy: np.ndarray | None
    aspect: float
    frame: tuple[tuple[float, float], int, int]

    @classmethod
    def of(
        cls,
        window: Window,
        image: np.ndarray,
        label: np.ndarray | None,
        entropy: np.ndarray | None,
        spacing: Sequence[float],
        axis: int,
    ) -> View:
        """Cut the slice across ``axis`` out of arrays of the scan (*spatial)."""
        middle = window.start[axis] + window.size[axis] // 2
        planes = [None if a is None else np.take(a, middle, axis).copy() for a in (image, label, entropy)]
        rows, columns = (one for one in range(3) if one != axis)
        corner = (window.start[columns] - 0.5, window.start[rows] - 0.5)
        frame = corner, window.size[columns], window.size[rows]
        assert planes[0] is not None
        return cls(planes[0], planes[1], planes[2], spacing[rows] / spacing[columns], frame)


def write_pictures(folder: Path, title: str, views: list[tuple[Query, View]], classes: dict[str, list[int]]) -> None:
    """Write ``montage.png`` with the first queries and ``index.html`` with all of them."""
    from nnunet_limited.report.page import render

    with replacing(folder / "montage.png") as temporary:
        _montage(views[:MONTAGE], classes).savefig(temporary, format="png", dpi=DPI)
    rows = []
    for query, view in views:
        last = np.add(query.window.start, query.window.size) - 1
        place = f"voxels {_xyz(query.window.start)} to {_xyz(last)}"
        rows.append({"query": query, "place": place, "picture": picture(_panels(view, classes), dpi=DPI)})
    minutes = sum(query.minutes or 0.0 for query, _ in views)
    content = {"title": title, "rows": rows, "minutes": minutes, "classes": list(classes)}
    with replacing(folder / "index.html") as temporary:
        temporary.write_text(
            render("queries.html", predicted=views[0][1].label is not None, **content), encoding="utf-8"
        )


def _xyz(voxel: Iterable[int]) -> str:
    """Return the index of a voxel in the order of most viewers: x, y, z, from 0."""
    return ", ".join(str(int(v)) for v in reversed(list(voxel)))


def _draw(axes: Any, view: View, classes: dict[str, list[int]], labels: bool) -> None:
    """Draw a slice with its frame and, with ``labels``, the prediction."""
    show_image(axes, view.image, view.aspect)
    if labels and view.label is not None:
        show_labels(axes, view.label, classes, tint=0.2)
    axes.add_patch(Rectangle(*view.frame, fill=False, edgecolor="white", linewidth=2.2))
    axes.add_patch(Rectangle(*view.frame, fill=False, edgecolor="black", linewidth=0.8, linestyle="--"))


def _montage(views: list[tuple[Query, View]], classes: dict[str, list[int]]) -> Figure:
    columns = min(6, len(views))
    rows = -(-len(views) // columns)
    figure = Figure(figsize=(2.2 * columns, 2.5 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for number, (axes, (query, view)) in enumerate(zip(panels, views, strict=False), 1):
        _draw(axes, view, classes, labels=True)
        axes.set_title(f"{number}. {query.window.case}", fontsize=8)
    return figure


def _panels(view: View, classes: dict[str, list[int]]) -> Figure:
    """Return a figure of the image and, with a model, of prediction and uncertainty."""
    names = ["image"] if view.label is None else ["image", "prediction", "uncertainty"]
    figure = Figure(figsize=(3.0 * len(names), 3.3), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        _draw(axes, view, classes, labels=name == "prediction")
        axes.set_title(name, fontsize=9)
    if view.entropy is not None:
        axes.imshow(view.entropy, cmap="inferno", alpha=0.6, vmin=0, aspect=view.aspect)
    return figure
