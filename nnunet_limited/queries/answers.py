"""Label files that annotators return, read on the grid of their scan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nnunet_limited.annotations.annotation import Annotation, classes, only, outlines
from nnunet_limited.annotations.importers.images import Drawing, read_drawing
from nnunet_limited.annotations.importers.segments import FILL
from nnunet_limited.datasets.description import DatasetDescription
from nnunet_limited.datasets.drawings import class_names, drawing_reader
from nnunet_limited.datasets.raw import Case
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.images import grid_of, read_label_on, read_scan, write_label
from nnunet_limited.queries.record import window_hash
from nnunet_limited.queries.windows import Granularity, Window

RENUMBERED = 0.9  # of the voxels that nobody was asked for; people do not draw one class there


@dataclass(frozen=True)
class Answer:
    """The label file that annotators return for one case, and what is needed to read it.

    ``initial`` are the hashes of the ``windows`` in the initial label file, None to accept unchanged ones.
    ``previous`` is the label that the case had before, if any; ``reader`` is nnU-Net's reader class.
    """

    case: Case
    file: Path
    windows: tuple[Window, ...]
    initial: tuple[str, ...] | None
    previous: Path | None
    description: DatasetDescription
    ignore: int
    reader: Any


class WindowState(NamedTuple):
    """What came back in a window: the annotated ``fraction``, and whether it is as in the initial label file."""

    fraction: float
    unchanged: bool


@dataclass(frozen=True)
class Annotated:
    """An answer on its scan: the ``label`` (*spatial), and where the case was annotated ``before`` (*spatial).

    ``not_taken`` counts the voxels of 0 outside of the windows, which are no annotation; ``warning`` is what is odd
    about the file, or "".
    """

    label: np.ndarray
    before: np.ndarray
    windows: list[WindowState]
    not_taken: int
    warning: str


def read_answer(answer: Answer) -> Annotated:
    """Read and check an answer; where it has no label, the case keeps the previous one.

    Inside a window, what no segment covers is background. Outside of the windows, 0 in a label map is no annotation:
    programs write it where somebody has deleted or hidden the ignore label. A segment "background" is one. Raises
    LimitedError for a label on another grid and for a value that is no class.
    """
    ignore = answer.ignore
    image, properties = read_scan(answer.reader(), answer.case.images[:1])
    grid = grid_of(image.shape[1:], properties)
    inside = np.zeros(grid.shape, bool)
    for window in answer.windows:
        check_window(window, grid.shape)
        inside[window.inside] = True
    values = {*answer.description.label_values, ignore}
    before = np.full(grid.shape, ignore, np.int16)
    if answer.previous is not None:
        before, _ = read_label_on(answer.reader(), answer.previous, grid, values, answer.description.grid_of_image)
    listed = ", ".join(map(str, sorted(values)))
    foreign = f"which is no class (the labels are {listed}, of which {ignore} is the ignore label); correct it"
    names, read = class_names(answer.description, ignore), drawing_reader(answer.reader, answer.file)
    aligned = answer.description.grid_of_image
    drawing = read_drawing(answer.file, grid, names, values, (0, ignore), foreign, read, aligned)
    label = drawing.values.astype(np.int16)
    not_taken = 0
    if drawing.segments:
        label[inside & (label == FILL)] = 0
    else:
        _refuse_renumbered(answer, label[~inside & (before == ignore)])
        outside = ~inside & (label == 0)
        not_taken = int((outside & (before != 0)).sum())
        label[outside] = ignore
    label[label == FILL] = ignore
    unchanged = _unchanged(answer, drawing, label)
    for window, same in zip(answer.windows, unchanged, strict=True):
        if same:
            label[window.inside] = ignore
    label = np.where(label == ignore, before, label)
    states = [
        WindowState(float((label[window.inside] != ignore).mean()), same)
        for window, same in zip(answer.windows, unchanged, strict=True)
    ]
    return Annotated(label, before != ignore, states, not_taken, drawing.warning)


def _unchanged(answer: Answer, drawing: Drawing, label: np.ndarray) -> list[bool]:
    """Return whether each window is as it was handed out. An empty segmentation is an answer: nothing is there."""
    if answer.initial is None or drawing.empty:
        return [False] * len(answer.windows)
    return [window_hash(label, window) == old for window, old in zip(answer.windows, answer.initial, strict=True)]


def _refuse_renumbered(answer: Answer, label: np.ndarray) -> None:
    """Refuse a ``label`` (n,) outside of the windows in which a class stands in place of the ignore label.

    Programs that export segments number them one after the other, so that a class without a voxel shifts the others.
    """
    values, counts = np.unique(label, return_counts=True)
    largest = int(values[counts.argmax()]) if len(label) else 0
    if answer.ignore not in values and largest > 0 and counts.max() > RENUMBERED * len(label):
        raise LimitedError(
            f"label {answer.file} has the value {largest} in {100 * counts.max() / len(label):.0f} % of the voxels "
            f"that had the ignore label {answer.ignore}, so its labels seem to have other numbers; save it with the "
            "numbers of the initial label file, or as .seg.nrrd with segments named as in dataset.json"
        )


def check_window(window: Window, shape: tuple[int, ...]) -> None:
    """Raise LimitedError for a window that is not inside a scan of ``shape`` (z, y, x)."""
    ends = [a + n for a, n in zip(window.start, window.size, strict=False)]
    if len(window.start) != len(shape) or any(end > n for end, n in zip(ends, shape, strict=False)):
        raise LimitedError(
            f"queries.json asks for the voxels from {list(window.start)} on, {list(window.size)} of them, of case "
            f"{window.case}, whose image has {list(shape)} (z, y, x); restore the file or the image, or query again"
        )


def answer_state(answer: Answer) -> tuple[list[WindowState], int, str]:
    """Return the state of each window, the number of voxels of 0 that are not taken, and the warning."""
    read = read_answer(answer)
    return read.windows, read.not_taken, read.warning


def write_answer(
    case: Case, target: Path, reader_class: Any, ignore: int, answer: Answer, granularity: Granularity, seconds: float
) -> dict[str, Any]:
    """Write the label of an answer to ``target``; return what is newly annotated, and the minutes of its outlines."""
    annotated = read_answer(answer)
    label, reader = annotated.label, reader_class()
    _, properties = read_scan(reader, case.images)
    write_label(reader, label, target, properties)
    new = np.zeros(label.shape, bool)
    for window in answer.windows:
        new[window.inside] = True
    new &= (label != ignore) & ~annotated.before
    marks, slices = outlines(label, new, ignore, granularity.plane_axis(properties["spacing"]))
    cost = Annotation(only(label, new, ignore), marks, slices).cost(ignore, seconds)
    about = {**cost, "annotated_share": float((label != ignore).mean()), "classes": classes(label, ignore)}
    about |= {"not_taken": annotated.not_taken} if annotated.not_taken else {}
    return about | ({"warning": annotated.warning} if annotated.warning else {})
