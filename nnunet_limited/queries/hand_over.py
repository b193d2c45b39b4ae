"""What annotators get: images, label files to begin with, and pictures of each query."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from nnunet_limited.datasets.derived import ignore_of
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.host.images import write_label
from nnunet_limited.queries.record import IMAGES, Query, window_hash
from nnunet_limited.queries.windows import Window
from nnunet_limited.report.figures import picture
from nnunet_limited.report.overlays import show_image, show_labels
from nnunet_limited.util.files import file_hash, replacing

MONTAGE = 24
DPI = 90


@dataclass(frozen=True)
class View:
    """The slice through the middle of a query (rows, columns): first channel, prediction, entropy; None without model.

    ``aspect`` is the spacing of rows over that of columns; ``frame`` the query's first column and row and its size.
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


def copy_images(folder: Path, raw: RawDataset, case: str) -> None:
    """Copy the images of a case."""
    about, ending = raw.cases[case], raw.description.file_ending
    for channel, file in enumerate(about.images):
        _copy(file, folder / IMAGES / f"{case}_{channel:04d}{ending}")
        beside = file.with_name(f"{file.name.removesuffix(ending)}.json")  # as nnU-Net has the spacing beside TIFF
        if beside.is_file():
            _copy(beside, folder / IMAGES / f"{case}_{channel:04d}.json")


def begin_label(
    file: Path,
    raw: RawDataset,
    shape: tuple[int, ...],
    properties: Any,
    windows: list[Window],
    predicted: np.ndarray | None,
    annotated: np.ndarray | None,
) -> dict[str, Any]:
    """Write the label file to begin with on a scan of ``shape``; return its hash and those of its windows.

    It holds what is ``annotated`` already and, in the ``windows`` asked for, the prediction (without one, background)
    of the rest. Elsewhere it is ignore. The case's own label is not looked at: it may be a hidden one.
    """
    ignore = ignore_of(raw)
    label = np.full(shape, ignore, np.uint8 if ignore < 256 else np.uint16)
    for window in windows:
        label[window.inside] = 0 if predicted is None else predicted[window.inside]
    if annotated is not None:
        label = np.where(annotated == ignore, label, annotated).astype(label.dtype)
    write_label(raw.reader()(), label, file, properties, raw.description.file_ending)
    return {"file": file_hash(file), "regions": [window_hash(label, window) for window in windows]}


def _copy(source: Path, target: Path) -> None:
    if not target.is_file():
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)


def write_pictures(folder: Path, title: str, seen: list[tuple[Query, View]], classes: dict[str, list[int]]) -> None:
    """Write ``montage.png`` with the first queries and ``index.html`` with all of them."""
    from nnunet_limited.report.page import render

    with replacing(folder / "montage.png") as temporary:
        _montage(seen[:MONTAGE], classes).savefig(temporary, format="png", dpi=DPI)
    rows = []
    for query, view in seen:
        last = np.add(query.window.start, query.window.size) - 1
        place = f"voxels {_xyz(query.window.start)} to {_xyz(last)}"
        rows.append({"query": query, "place": place, "picture": picture(_panels(view, classes), dpi=DPI)})
    minutes = sum(query.minutes or 0.0 for query, _ in seen)
    content = {"title": title, "rows": rows, "minutes": minutes, "classes": list(classes)}
    with replacing(folder / "index.html") as temporary:
        temporary.write_text(
            render("queries.html", predicted=seen[0][1].label is not None, **content), encoding="utf-8"
        )


def _xyz(voxel: Iterable[int]) -> str:
    """Return a voxel in the order of most viewers, x, y, z, counted from 0."""
    return ", ".join(str(int(v)) for v in reversed(list(voxel)))


def _draw(axes: Any, view: View, classes: dict[str, list[int]], labels: bool) -> None:
    """Draw a slice with its frame and, if asked, the prediction."""
    show_image(axes, view.image, view.aspect)
    if labels and view.label is not None:
        show_labels(axes, view.label, classes, tint=0.2)
    axes.add_patch(Rectangle(*view.frame, fill=False, edgecolor="white", linewidth=2.2))
    axes.add_patch(Rectangle(*view.frame, fill=False, edgecolor="black", linewidth=0.8, linestyle="--"))


def _montage(seen: list[tuple[Query, View]], classes: dict[str, list[int]]) -> Figure:
    columns = min(6, len(seen))
    rows = -(-len(seen) // columns)
    figure = Figure(figsize=(2.2 * columns, 2.5 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for number, (axes, (query, view)) in enumerate(zip(panels, seen, strict=False), 1):
        _draw(axes, view, classes, labels=True)
        axes.set_title(f"{number}. {query.window.case}", fontsize=8)
    return figure


def _panels(view: View, classes: dict[str, list[int]]) -> Figure:
    """Return image, prediction and uncertainty, as far as they are there."""
    names = ["image"] if view.label is None else ["image", "prediction", "uncertainty"]
    figure = Figure(figsize=(3.0 * len(names), 3.3), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        _draw(axes, view, classes, labels=name == "prediction")
        axes.set_title(name, fontsize=9)
    if view.entropy is not None:
        axes.imshow(view.entropy, cmap="inferno", alpha=0.6, vmin=0, aspect=view.aspect)
    return figure
