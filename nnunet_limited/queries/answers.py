"""Read the label files that annotators return."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.annotations.annotation import classes, outlines
from nnunet_limited.annotations.importers.images import ENDINGS, FILL, read_image, read_labels
from nnunet_limited.datasets.raw import Case
from nnunet_limited.errors import LimitedError
from nnunet_limited.queries.record import window_hash
from nnunet_limited.queries.windows import Granularity, Window


@dataclass(frozen=True)
class Answer:
    """The label file that annotators return for one case, and what is needed to read it.

    ``initial`` are the hashes of the ``windows`` in the initial label file, None to accept unchanged ones.
    ``previous`` is the label that the case had before, if any; ``labels`` are those of dataset.json, ``ending`` is its
    file ending.
    """

    case: Case
    file: Path
    windows: tuple[Window, ...]
    initial: tuple[str, ...] | None
    previous: Path | None
    labels: dict[str, Any]
    ignore: int
    reader: Any
    ending: str


@dataclass(frozen=True)
class Annotated:
    """An answer on its scan: the ``label`` (*spatial), and where the case was annotated ``before`` (*spatial).

    ``fractions`` is the annotated fraction of each window, ``unchanged`` whether it is as in the initial label file.
    """

    label: np.ndarray
    before: np.ndarray
    fractions: tuple[float, ...]
    unchanged: tuple[bool, ...]


def read_answer(answer: Answer) -> Annotated:
    """Read and check an answer; where it has no label, the case keeps the previous one.

    Inside a window, what no segment of 3D Slicer covers is background. Raises LimitedError for a label on another grid
    and for a value that is no class.
    """
    ignore = answer.ignore
    label = _on_scan(answer)
    if answer.file.name.endswith(".seg.nrrd"):
        for window in answer.windows:
            inside = label[window.inside]
            inside[inside == FILL] = 0
    label[label == FILL] = ignore
    values = {int(v) for value in answer.labels.values() for v in (value if isinstance(value, list) else [value])}
    foreign = sorted(set(np.unique(label).tolist()) - values - {ignore})
    if foreign:
        raise LimitedError(
            f"label {answer.file} has the value {foreign[0]:g}, which is no class (the labels are "
            f"{', '.join(map(str, sorted(values | {ignore})))}, of which {ignore} is the ignore label); correct it"
        )
    hashes = [window_hash(label, window) for window in answer.windows]
    initial = answer.initial or [""] * len(hashes)
    unchanged = tuple(new == old for new, old in zip(hashes, initial, strict=True))
    for window, same in zip(answer.windows, unchanged, strict=True):
        if same:
            label[window.inside] = ignore
    before = np.full(label.shape, ignore, np.int16)
    if answer.previous is not None:
        before = answer.reader().read_seg(str(answer.previous))[0][0].astype(np.int16)
        label = np.where(label == ignore, before, label)
    fractions = tuple(float((label[window.inside] != ignore).mean()) for window in answer.windows)
    return Annotated(label, before != ignore, fractions, unchanged)


def window_states(answer: Answer) -> list[tuple[float, bool]]:
    """Return the annotated fraction of each window, and whether it is unchanged."""
    annotated = read_answer(answer)
    return list(zip(annotated.fractions, annotated.unchanged, strict=True))


def write_answer(
    case: Case,
    target: Path,
    reader_class: Any,
    ignore: int,
    answer: Answer,
    granularity: Granularity,
    seconds: float,
) -> dict[str, Any]:
    """Write the label of an answer to ``target``; return what is newly annotated, and the minutes of its outlines."""
    annotated = read_answer(answer)
    label, reader = annotated.label, reader_class()
    _, properties = reader.read_images([str(one) for one in case.images])
    reader.write_seg(label, str(target), properties)
    new = np.zeros(label.shape, bool)
    for window in answer.windows:
        new[window.inside] = True
    new &= (label != ignore) & ~annotated.before
    marks, slices = outlines(label, new, ignore, granularity.plane_axis(properties["spacing"]))
    return {
        "voxels": int(new.sum()),
        "foreground_voxels": int((new & (label != 0)).sum()),
        "annotated_share": float((label != ignore).mean()),
        "classes": classes(label, ignore),
        "marks": marks,
        "slices": slices,
        "minutes": marks * seconds / 60,
    }


def _on_scan(answer: Answer) -> np.ndarray:
    """Return the values of an answer on the grid on which nnU-Net reads the scan (*spatial)."""
    file, reader = answer.file, answer.reader()
    by_simpleitk = type(reader).__name__ == "SimpleITKIO" and file.name.endswith(ENDINGS)
    if by_simpleitk:
        single = {name: int(value) for name, value in answer.labels.items() if not isinstance(value, list)}
        image = read_image(answer.case.images[0], "image")
        label = read_labels(file, image, {**single, "ignore": answer.ignore})
        return label[None] if image.GetDimension() == 2 else label  # nnU-Net adds an axis to 2D images
    if not file.name.endswith(answer.ending):
        raise LimitedError(
            f"label {file}: nnU-Net reads this dataset by {type(reader).__name__}; save it in the format of the images"
        )
    try:
        label = reader.read_seg(str(file))[0][0]
    except Exception as error:
        raise LimitedError(f"label {file} cannot be read ({error}); save it again") from error
    shape = reader.read_images([str(one) for one in answer.case.images])[0].shape[1:]
    if label.shape != shape:
        raise LimitedError(
            f"label {file} has the shape {list(label.shape)}, its image {list(shape)}; draw on the image"
        )
    return np.asarray(label, np.int16)
