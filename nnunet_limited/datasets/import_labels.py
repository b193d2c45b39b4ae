"""Bring sparse labels that people made into a view of their dataset."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from nnunet_limited.annotations.annotation import Annotation, Box, box_codes, classes
from nnunet_limited.annotations.files import ENDINGS, FILL, Coordinates, read_image, read_labels, read_table, to_voxel
from nnunet_limited.annotations.objects import ball, from_boxes
from nnunet_limited.datasets.derived import box_file, ignore_of, write_view
from nnunet_limited.datasets.raw import Case, RawDataset
from nnunet_limited.errors import LimitedError

POINT_COLUMNS = ("case", "class", "x", "y", "z")
BOX_COLUMNS = ("case", "class", "x0", "y0", "z0", "x1", "y1", "z1")


@dataclass(frozen=True)
class ImportRequest:
    """What ``nnunet-limited import-labels`` is asked for: one of ``labels``, ``boxes`` and ``points``."""

    dataset: str
    name: str
    labels: Path | None = None
    unlabeled: int | None = None
    background: int = 0
    boxes: Path | None = None
    points: Path | None = None
    coordinates: Coordinates = "voxel"
    radius: float = 2.0


def import_labels(request: ImportRequest, processes: int) -> dict[str, Any]:
    """Make the view ``request.name`` and return its record."""
    given = [source for source in (request.labels, request.boxes, request.points) if source is not None]
    if len(given) != 1:
        raise LimitedError(f"{len(given)} of --labels, --boxes and --points are given; give one")
    dataset = RawDataset.load(request.dataset)
    ending = dataset.description.file_ending
    if ending not in ENDINGS:
        raise LimitedError(
            f"{dataset.folder} has {ending} images; labels can be brought in for {', '.join(ENDINGS[1:])}"
        )
    origin: dict[str, Any] = {"kind": "labels", "source": str(given[0])}
    values = set(dataset.description.label_values) - {ignore_of(dataset)}
    if request.labels is not None:
        sources = label_files(request.labels, dataset)
        numbers = _numbers(request, dataset)
        tasks: dict[str, Any] = {case: (file, numbers, dataset.description.labels) for case, file in sources.items()}
        origin |= {"unlabeled": request.unlabeled, "background": request.background}
        return _write(request, dataset, tasks, from_labels, origin, values, processes)
    boxes = request.boxes is not None
    rows = read_table(given[0], BOX_COLUMNS if boxes else POINT_COLUMNS)
    by_case: dict[str, list[dict[str, Any]]] = {}
    for line, row in enumerate(rows, 1):
        row["class"] = _class_of(row["class"], dataset, f"{given[0]}, row {line}")
        if row["case"] not in dataset.cases:
            raise LimitedError(f"{given[0]}, row {line}: {dataset.folder} has no case {row['case']!r}; correct it")
        if boxes and not row["class"]:
            raise LimitedError(f"{given[0]}, row {line}: a box of background says nothing; remove it")
        by_case.setdefault(row["case"], []).append({**row, "where": f"{given[0]}, row {line}"})
    origin |= {"kind": "boxes" if boxes else "points", "coordinates": request.coordinates}
    tasks = {case: (rows, request.coordinates, request.radius) for case, rows in by_case.items()}
    if boxes:
        return _write(request, dataset, tasks, from_box_rows, origin, values - {0}, processes)
    return _write(request, dataset, tasks, from_points, origin, values, processes)


def _write(
    request: ImportRequest,
    dataset: RawDataset,
    tasks: dict[str, Any],
    annotate: Any,
    origin: dict[str, Any],
    required: set[int],
    processes: int,
) -> dict[str, Any]:
    def drawn_everywhere(cases: dict[str, dict[str, Any]]) -> None:
        drawn = {value for about in cases.values() for value in about["classes"]}
        names = {value: name for name, value in dataset.description.labels.items() if isinstance(value, int)}
        for value in sorted(required - drawn):
            raise LimitedError(
                f"{origin['source']}: label {value} ({names.get(value, 'of a region')}) is drawn in no case; draw it "
                "at least once, or the network cannot learn it"
            )

    return write_view(dataset, request.name, tasks, annotate, origin, processes, drawn_everywhere)


def label_files(folder: Path, dataset: RawDataset) -> dict[str, Path]:
    """Return the label file of each case that has one in ``folder``; refuse files that belong to none."""
    if not folder.is_dir():
        raise LimitedError(f"--labels {folder} is not a folder; give the one that holds a label file for each case")
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        ending = next((ending for ending in ENDINGS if file.name.endswith(ending)), None)
        if ending is None:
            continue
        case = file.name.removesuffix(ending)
        if case not in dataset.cases:
            raise LimitedError(
                f"label {file} belongs to no case of {dataset.folder}; name it after its case, or remove it"
            )
        if case in found:
            raise LimitedError(f"case {case} has two labels, {found[case].name} and {file.name}; remove one")
        found[case] = file
    if not found:
        raise LimitedError(f"--labels {folder} holds no label file ({', '.join(ENDINGS)}); put some there")
    return found


def _numbers(request: ImportRequest, dataset: RawDataset) -> dict[int, int]:
    """Return what each number in the label files stands for in the view."""
    if request.unlabeled is None:
        raise LimitedError("--labels needs --unlabeled, the value of voxels that nobody annotated; give e.g. 255")
    if request.unlabeled == request.background:
        raise LimitedError(
            f"--unlabeled {request.unlabeled} is the value of the background too; draw the background with a label of "
            "its own and give --background"
        )
    ignore = ignore_of(dataset)
    numbers = {value: value for value in dataset.description.label_values if value}
    if request.background in numbers and request.background != ignore:
        raise LimitedError(
            f"--background {request.background} is a class of {dataset.folder}; draw it with another value"
        )
    if request.unlabeled in numbers and request.unlabeled != ignore:
        raise LimitedError(
            f"--unlabeled {request.unlabeled} is a class of {dataset.folder}; give the value of the rest"
        )
    return {**numbers, request.background: 0, request.unlabeled: ignore}


def _class_of(given: Any, dataset: RawDataset, where: str) -> int:
    labels = dataset.description.labels
    value = labels.get(given, given)
    single = {int(v) for v in dataset.description.label_values} - {ignore_of(dataset)}
    if not str(value).isdecimal() or int(value) not in single:
        raise LimitedError(f"{where}: class {given!r} is none of {', '.join(map(str, sorted(single)))}; correct it")
    return int(value)


def _image(case: Case) -> Any:
    return read_image(case.images[0], "image")


def _write_array(array: np.ndarray, image: Any, target: Path) -> None:
    made = sitk.GetImageFromArray(array.astype(np.int16))
    made.CopyInformation(image)
    sitk.WriteImage(made, str(target), useCompression=True)


def _save(made: Annotation, image: Any, target: Path, ignore: int) -> dict[str, Any]:
    """Write a label on the grid of ``image``; return what is to be recorded of it."""
    _write_array(made.label, image, target)
    about: dict[str, Any] = {**made.cost(ignore, 0.0), "classes": classes(made.label, ignore)}
    del about["minutes"]
    if made.boxes:
        _write_array(box_codes(made.label.shape, made.boxes), image, box_file(target))
        about |= {"boxes": [list(box) for box in made.boxes], "classes": sorted({box.value for box in made.boxes})}
    return about


def from_labels(
    case: Case,
    target: Path,
    reader_class: Any,
    ignore: int,
    file: Path,
    numbers: dict[int, int],
    names: dict[str, Any],
) -> dict[str, Any]:
    """Write the label drawn in ``file`` with the view's ``numbers``; what is not drawn is ignored."""
    image = _image(case)
    background = next(number for number, value in numbers.items() if value == 0)
    known = {name: background if value == 0 else value for name, value in names.items() if isinstance(value, int)}
    drawn = read_labels(file, image, known)
    unknown = sorted(set(np.unique(drawn).tolist()) - {*numbers, FILL})
    if unknown:
        raise LimitedError(
            f"label {file} has the value {unknown[0]}, which is neither a class nor the value of voxels without label "
            f"(known are {', '.join(map(str, sorted(numbers)))}); correct it, or --unlabeled"
        )
    label = np.full(drawn.shape, ignore, np.int16)
    for number, value in numbers.items():
        label[drawn == number] = value
    if (label == ignore).all():
        raise LimitedError(f"label {file} has no annotated voxel; draw something, or remove the file")
    in_plane = np.zeros((3, 3, 3))  # people draw in slices
    in_plane[1] = 1
    volume = label.reshape(-1, *label.shape[-2:])
    marks = sum(ndimage.label(volume == value, in_plane)[1] for value in classes(label, ignore))
    planes = int((volume != ignore).any(axis=(1, 2)).sum())
    return _save(Annotation(label, marks, planes), image, target, ignore)


def from_box_rows(
    case: Case,
    target: Path,
    reader_class: Any,
    ignore: int,
    rows: list[dict[str, Any]],
    coordinates: Coordinates,
    *_: Any,
) -> dict[str, Any]:
    """Write background outside of all boxes of a case."""
    image = _image(case)
    shape = image.GetSize()[::-1]
    found = []
    for row in rows:
        corners = np.stack([to_voxel([row[f"{axis}{end}"] for axis in "xyz"], coordinates, image) for end in "01"])
        start, stop = np.ceil(corners.min(0) - 0.5).astype(int), np.floor(corners.max(0) + 0.5).astype(int) + 1
        if (start < 0).any() or (stop > shape).any():
            raise LimitedError(
                f"{row['where']}: the box covers the voxels {start[::-1].tolist()} to {(stop - 1)[::-1].tolist()}, the "
                f"image of {case.identifier} has {list(shape[::-1])}; correct it, or --coordinates {coordinates}"
            )
        found.append(Box(row["class"], tuple(start.tolist()), tuple(stop.tolist())))
    return _save(from_boxes(np.zeros(shape, np.int16), ignore, found), image, target, ignore)


def from_points(
    case: Case,
    target: Path,
    reader_class: Any,
    ignore: int,
    rows: list[dict[str, Any]],
    coordinates: Coordinates,
    radius: float,
) -> dict[str, Any]:
    """Write a ball of the class around each point of a case; where two classes meet nothing is known."""
    image = _image(case)
    label = np.full(image.GetSize()[::-1], ignore, np.int16)
    spacing = np.array(image.GetSpacing()[::-1])
    for value, middle in _middles(rows, coordinates, image, case):
        near = np.zeros(label.shape, bool)
        ball(near, np.ones(label.shape, bool), middle, radius * spacing.min(), spacing)
        clash = near & (label != ignore) & (label != value)
        label[near] = value
        label[clash] = ignore
    planes = int((label.reshape(-1, *label.shape[-2:]) != ignore).any(axis=(1, 2)).sum())
    return _save(Annotation(label, len(rows), planes), image, target, ignore)


def _middles(
    rows: list[dict[str, Any]], coordinates: Coordinates, image: Any, case: Case
) -> Iterable[tuple[int, np.ndarray]]:
    for row in rows:
        middle = np.rint(to_voxel([row[axis] for axis in "xyz"], coordinates, image)).astype(int)
        if (middle < 0).any() or (middle >= image.GetSize()[::-1]).any():
            raise LimitedError(
                f"{row['where']}: the point is voxel {middle[::-1].tolist()}, the image of {case.identifier} has "
                f"{list(image.GetSize())}; correct it, or --coordinates {coordinates}"
            )
        yield row["class"], middle
