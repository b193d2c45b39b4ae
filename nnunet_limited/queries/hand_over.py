"""Write what annotators get: images, initial label files and pictures of each query."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from nnunet_limited.datasets.derived import ignore_of
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.host.images import read_scan, write_label
from nnunet_limited.queries.query_round import QueryRound
from nnunet_limited.queries.record import IMAGES, LABELS, InitialLabel, Query, Round, window_hash
from nnunet_limited.queries.score import ModelScorer, Track
from nnunet_limited.queries.windows import Window
from nnunet_limited.report.figures import picture
from nnunet_limited.report.overlays import save_png, show_image, show_labels
from nnunet_limited.util.files import copy_file, file_hash, replace_text, replacing

MONTAGE = 24  # queries in the montage, in four rows
DPI = 90


def hand_over(query_round: QueryRound, queries: list[Query], device: str, track: Track) -> Round:
    """Write the files for annotators and finally the record of the round, which is returned.

    In a simulation there are neither images nor pictures, and label files show no prediction. ``track`` yields the
    cases one by one and shows the progress.
    """
    simulated, raw = query_round.record.oracle, query_round.raw
    scorer = None if query_round.request.model is None or simulated else ModelScorer(query_round, device)
    handed = Round(query_round.request.out, query_round.record, tuple(queries))
    reader = raw.reader()()
    views: dict[Window, View] = {}
    for case in track(handed.cases):
        image, properties = read_scan(reader, raw.cases[case].images, raw.description.num_channels)
        predicted, entropy = (None, None) if scorer is None else scorer.on_scan(case)
        annotated = query_round.label(case) if case in query_round.cases.annotated else None
        label = initial_label(image.shape[1:], ignore_of(raw), handed.windows_of(case), predicted, annotated)
        file = handed.folder / LABELS / f"{case}{raw.description.file_ending}"
        write_label(reader, label, file, properties)
        hashes = tuple(window_hash(label, window) for window in handed.windows_of(case))
        handed.initial_labels[case] = InitialLabel(file=file_hash(file), windows=hashes)
        if not simulated:
            copy_images(handed.folder, raw, case)
            spacing = properties["spacing"]
            axis = query_round.request.granularity.plane_axis(spacing)
            for window in handed.windows_of(case):
                views[window] = View(window, image[0], predicted, entropy, spacing, axis)
    if not simulated:
        title = f"Round {query_round.record.round} of {raw.name}: what to annotate next"
        classes = {name: [value] for value, name in query_round.class_names.items()}
        write_pictures(handed.folder, title, [(query, views[query.window]) for query in queries], classes)
    handed.write()
    return handed


def copy_images(folder: Path, raw: RawDataset, case: str) -> None:
    """Copy the images of a case."""
    ending = raw.description.file_ending
    for channel, file in enumerate(raw.cases[case].images):
        # nnU-Net reads the spacing of TIFF from a file beside it
        for source, end in ((file, ending), (file.with_name(f"{file.name.removesuffix(ending)}.json"), ".json")):
            target = folder / IMAGES / f"{case}_{channel:04d}{end}"
            if source.is_file() and not target.is_file():
                copy_file(source, target)


def initial_label(
    shape: tuple[int, ...],
    ignore: int,
    windows: list[Window],
    predicted: np.ndarray | None,
    annotated: np.ndarray | None,
) -> np.ndarray:
    """Return the label (*spatial) that annotators start from, on a scan of ``shape``.

    It holds what is ``annotated`` already and, in the rest of the ``windows``, the prediction or background without
    one. Elsewhere it is ``ignore``. The label of the case in the dataset is not read: it may be hidden.
    """
    label = np.full(shape, ignore, np.uint8 if ignore < 256 else np.uint16)
    for window in windows:
        label[window.inside] = 0 if predicted is None else predicted[window.inside]
    return label if annotated is None else np.where(annotated == ignore, label, annotated).astype(label.dtype)


class View:
    """The slice through the middle of a window (rows, columns): first channel, prediction and entropy.

    Without a model the last two are None. ``aspect`` is the spacing of rows over that of columns; ``frame`` are first
    column and row of the window, its columns and its rows.
    """

    def __init__(
        self,
        window: Window,
        image: np.ndarray,
        label: np.ndarray | None,
        entropy: np.ndarray | None,
        spacing: Sequence[float],
        axis: int,
    ) -> None:
        """Cut the slice across ``axis`` out of arrays of the scan (*spatial)."""

        def cut(array: np.ndarray) -> np.ndarray:
            return np.take(array, window.start[axis] + window.size[axis] // 2, axis).copy()

        self.image = cut(image)
        self.label, self.entropy = (None if array is None else cut(array) for array in (label, entropy))
        rows, columns = (one for one in range(3) if one != axis)
        self.aspect = spacing[rows] / spacing[columns]
        self.frame = (window.start[columns] - 0.5, window.start[rows] - 0.5), window.size[columns], window.size[rows]


def write_pictures(folder: Path, title: str, views: list[tuple[Query, View]], classes: dict[str, list[int]]) -> None:
    """Write ``montage.png`` with the first queries and ``index.html`` with all of them."""
    from nnunet_limited.report.page import render

    with replacing(folder / "montage.png") as temporary:
        save_png(_montage(views[:MONTAGE], classes), temporary, DPI)
    rows = []
    for query, view in views:
        last = np.add(query.window.start, query.window.size) - 1
        place = f"voxels {_xyz(query.window.start)} to {_xyz(last)}"
        rows.append({"query": query, "place": place, "picture": picture(_panels(view, classes), dpi=DPI)})
    minutes = sum(query.minutes or 0.0 for query, _ in views)
    content = {"title": title, "rows": rows, "minutes": minutes, "classes": list(classes)}
    page = render("queries.html", predicted=views[0][1].label is not None, **content)
    replace_text(folder / "index.html", page)


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
