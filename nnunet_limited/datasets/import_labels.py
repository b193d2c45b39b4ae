"""Import sparse labels that people made into a view of their dataset."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.annotations.annotation import Annotation, box_codes, classes
from nnunet_limited.annotations.importers.images import from_label_image
from nnunet_limited.annotations.importers.segments import ClassNames
from nnunet_limited.annotations.importers.tables import (
    BOX_COLUMNS,
    POINT_COLUMNS,
    from_box_rows,
    from_point_rows,
    read_table,
)
from nnunet_limited.datasets.derived import box_file, ignore_of, write_view
from nnunet_limited.datasets.drawings import class_names, drawing_endings, drawing_reader
from nnunet_limited.datasets.listing import one_file_by_case
from nnunet_limited.datasets.raw import Case, RawDataset
from nnunet_limited.datasets.request import ImportRequest
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.images import grid_of, read_label, read_scan, write_codes, write_label

Importer = Callable[..., Annotation]
Tasks = dict[str, tuple[Importer, tuple[Any, ...]]]


def import_labels(request: ImportRequest, processes: int) -> dict[str, Any]:
    """Make the view ``request.out`` and return its record."""
    sources = [source for source in (request.labels, request.boxes, request.points) if source is not None]
    if len(sources) != 1:
        raise LimitedError(f"{len(sources)} of --labels, --boxes and --points are given; give one")
    dataset = RawDataset.load(request.dataset)
    names = class_names(dataset.description, ignore_of(dataset))
    about: dict[str, Any] = {"kind": "points", "coordinates": request.coordinates}
    tasks: Tasks
    if request.labels is not None:
        reader = dataset.reader()
        files = label_files(request.labels, dataset, reader)
        numbers = _numbers(request, dataset)
        aligned = request.grid_of_image or dataset.description.grid_of_image
        more = (numbers, names, request.unlabeled)
        tasks = {
            case: (from_label_image, (file, *more, drawing_reader(reader, file), aligned))
            for case, file in files.items()
        }
        about = {"kind": "labels", "unlabeled": request.unlabeled, "background": request.background}
    elif request.boxes is not None:
        rows = _rows(request.boxes, BOX_COLUMNS, dataset, names)
        tasks = {case: (from_box_rows, (found, request.coordinates)) for case, found in rows.items()}
        about["kind"] = "boxes"
    else:
        rows = _rows(sources[0], POINT_COLUMNS, dataset, names)
        tasks = {case: (from_point_rows, (found, request.coordinates, request.radius)) for case, found in rows.items()}

    def check(cases: dict[str, dict[str, Any]]) -> None:
        if request.labels is not None:
            _check_open(request, cases)
        _check_classes(sources[0], dataset, cases, {0} if request.boxes is not None else set())

    origin = {"kind": about["kind"], "source": str(sources[0]), **about}
    return write_view(dataset, request.out, tasks, annotate, origin, processes, check)


def _check_open(request: ImportRequest, cases: dict[str, dict[str, Any]]) -> None:
    """Refuse label maps without the value of unannotated voxels: all that nobody drew would be background."""
    complete = [about["complete"] for about in cases.values() if "complete" in about]
    if complete and all(complete):
        raise LimitedError(
            f"--unlabeled {request.unlabeled}: no label file in {request.labels} has this value, so every voxel would "
            f"be annotated, those of value {request.background} as background; give the value of voxels that nobody "
            "drew, e.g. --unlabeled 0 --background 9, or put complete labels into labelsTr"
        )


def _check_classes(source: Path, dataset: RawDataset, cases: dict[str, dict[str, Any]], known: set[int]) -> None:
    """Refuse a class that neither the annotated ``cases`` nor those that keep their label teach, but for ``known``."""
    missing = set(dataset.description.label_values) - {ignore_of(dataset)} - known
    missing -= {value for case in cases.values() for value in case["classes"]}
    kept = [dataset.cases[case] for case in dataset.labeled if case not in cases]
    reader = dataset.reader()() if missing and kept else None
    for case in kept:
        if missing and case.label is not None:
            missing -= {int(value) for value in np.unique(read_label(reader, case.label)[0])}
    names = {value: name for name, value in dataset.description.labels.items() if isinstance(value, int)}
    for value in sorted(missing):
        others = f", and {len(kept)} cases that keep their label do not have it" if kept else ""
        raise LimitedError(
            f"{source}: label {value} ({names.get(value, 'of a region')}) is drawn in no case{others}; draw it at "
            "least once, or the network cannot learn it"
        )


def annotate(
    case: Case, target: Path, reader_class: Any, ignore: int, importer: Importer, arguments: tuple[Any, ...]
) -> dict[str, Any]:
    """Write the imported label of one case to ``target`` on the grid of its image; return what to record of it."""
    reader = reader_class()
    image, properties = read_scan(reader, case.images[:1])
    made = importer(grid_of(image.shape[1:], properties), ignore, *arguments)
    write_label(reader, made.label, target, properties)
    about: dict[str, Any] = {**made.cost(ignore, 0.0), "classes": classes(made.label, ignore)}
    del about["minutes"]
    about |= {"complete": made.complete} if made.complete is not None else {}
    about |= {"warning": made.warning} if made.warning else {}
    if made.boxes:
        write_codes(reader, box_codes(made.label.shape, made.boxes), box_file(target), properties)
        about |= {"boxes": [list(box) for box in made.boxes], "classes": sorted({box.value for box in made.boxes})}
    return about


def label_files(folder: Path, dataset: RawDataset, reader_class: Any) -> dict[str, Path]:
    """Return the label file of each case that has one in ``folder``; refuse files that belong to none."""
    if not folder.is_dir():
        raise LimitedError(f"--labels {folder} is not a folder; give the one that holds a label file for each case")
    endings = drawing_endings(reader_class, dataset.description.file_ending)
    found = one_file_by_case(folder, endings, dataset.cases)
    if not found:
        raise LimitedError(f"--labels {folder} holds no label file ({', '.join(endings)}); put some there")
    return found


def _numbers(request: ImportRequest, dataset: RawDataset) -> dict[int, int]:
    """Return the label value of the view for each value in the label files."""
    if request.unlabeled is None:
        raise LimitedError("--labels needs --unlabeled, the value of unannotated voxels; give e.g. 255")
    if request.unlabeled == request.background:
        raise LimitedError(
            f"--unlabeled {request.unlabeled} is the value of the background too; draw the background with a label of "
            "its own and give --background"
        )
    ignore = ignore_of(dataset)
    numbers = {value: value for value in dataset.description.label_values if value}
    for option, value in (("background", request.background), ("unlabeled", request.unlabeled)):
        if value in numbers and value != ignore:
            raise LimitedError(f"--{option} {value} is a class of {dataset.folder}; give a value that no class has")
    return {**numbers, request.background: 0, request.unlabeled: ignore}


def _rows(
    file: Path, columns: tuple[str, ...], dataset: RawDataset, names: ClassNames
) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of a table by case, with the value of their class, and ``where`` they stand for messages."""
    by_case: dict[str, list[dict[str, Any]]] = {}
    for line, row in enumerate(read_table(file, columns), 1):
        where = f"{file}, row {line}"
        value = _class_of(str(row["class"]), names, names.parts if columns == BOX_COLUMNS else (), where)
        if row["case"] not in dataset.cases:
            raise LimitedError(f"{where}: {dataset.folder} has no case {row['case']!r}; correct it")
        if columns == BOX_COLUMNS and not value:
            raise LimitedError(f"{where}: a box cannot be of class background; remove it")
        by_case.setdefault(row["case"], []).append({**row, "class": value, "where": where})
    return by_case


def _class_of(name: str, names: ClassNames, refused: Collection[int], where: str) -> int:
    """Return the value of a class; regions that are ``refused`` have several."""
    value = names.find(name)
    known = {one: number for one, number in names.values.items() if one != "ignore" and number not in refused}
    if value is None or value not in known.values():
        raise LimitedError(
            f"{where}: class {name!r} is none of {', '.join(known)} (or their numbers, "
            f"{', '.join(map(str, sorted(set(known.values()))))}); correct it"
        )
    return value
