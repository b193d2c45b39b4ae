"""Import sparse labels that people made into a view of their dataset."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from nnunet_limited.annotations.annotation import Annotation, box_codes, classes
from nnunet_limited.annotations.importers.images import ENDINGS, from_label_image, read_image
from nnunet_limited.annotations.importers.tables import (
    BOX_COLUMNS,
    POINT_COLUMNS,
    from_box_rows,
    from_point_rows,
    read_table,
)
from nnunet_limited.datasets.derived import box_file, ignore_of, write_view
from nnunet_limited.datasets.raw import Case, RawDataset
from nnunet_limited.datasets.request import ImportRequest
from nnunet_limited.errors import LimitedError

Importer = Callable[..., Annotation]


def import_labels(request: ImportRequest, processes: int) -> dict[str, Any]:
    """Make the view ``request.out`` and return its record."""
    sources = [source for source in (request.labels, request.boxes, request.points) if source is not None]
    if len(sources) != 1:
        raise LimitedError(f"{len(sources)} of --labels, --boxes and --points are given; give one")
    dataset = RawDataset.load(request.dataset)
    ending = dataset.description.file_ending
    if ending not in ENDINGS:
        raise LimitedError(f"{dataset.folder} has {ending} images; labels can be imported for {', '.join(ENDINGS[1:])}")
    required = set(dataset.description.label_values) - {ignore_of(dataset)}
    tasks: dict[str, tuple[Importer, tuple[Any, ...]]]
    if request.labels is not None:
        files = label_files(request.labels, dataset)
        numbers, names = _numbers(request, dataset), dataset.description.labels
        tasks = {case: (from_label_image, (file, numbers, names)) for case, file in files.items()}
        about = {"kind": "labels", "unlabeled": request.unlabeled, "background": request.background}
    elif request.boxes is not None:
        rows = _rows(request.boxes, BOX_COLUMNS, dataset)
        tasks = {case: (from_box_rows, (found, request.coordinates)) for case, found in rows.items()}
        about = {"kind": "boxes", "coordinates": request.coordinates}
        required -= {0}
    else:
        rows = _rows(sources[0], POINT_COLUMNS, dataset)
        tasks = {case: (from_point_rows, (found, request.coordinates, request.radius)) for case, found in rows.items()}
        about = {"kind": "points", "coordinates": request.coordinates}

    def check_classes(cases: dict[str, dict[str, Any]]) -> None:
        drawn = {value for case in cases.values() for value in case["classes"]}
        names = {value: name for name, value in dataset.description.labels.items() if isinstance(value, int)}
        for value in sorted(required - drawn):
            raise LimitedError(
                f"{sources[0]}: label {value} ({names.get(value, 'of a region')}) is drawn in no case; draw it "
                "at least once, or the network cannot learn it"
            )

    origin = {"kind": about["kind"], "source": str(sources[0]), **about}
    return write_view(dataset, request.out, tasks, annotate, origin, processes, check_classes)


def annotate(
    case: Case, target: Path, reader_class: Any, ignore: int, importer: Importer, arguments: tuple[Any, ...]
) -> dict[str, Any]:
    """Write the imported label of one case to ``target`` on the grid of its image; return what to record of it."""
    image = read_image(case.images[0], "image")
    made = importer(image, ignore, *arguments)
    _write(made.label, image, target)
    about: dict[str, Any] = {**made.cost(ignore, 0.0), "classes": classes(made.label, ignore)}
    del about["minutes"]
    if made.boxes:
        _write(box_codes(made.label.shape, made.boxes), image, box_file(target))
        about |= {"boxes": [list(box) for box in made.boxes], "classes": sorted({box.value for box in made.boxes})}
    return about


def _write(array: np.ndarray, image: Any, target: Path) -> None:
    made = sitk.GetImageFromArray(array.astype(np.int16))
    made.CopyInformation(image)
    sitk.WriteImage(made, str(target), useCompression=True)


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
            raise LimitedError(f"label {file} fits no case of {dataset.folder}; name it after its case, or remove it")
        if case in found:
            raise LimitedError(f"case {case} has two labels, {found[case].name} and {file.name}; remove one")
        found[case] = file
    if not found:
        raise LimitedError(f"--labels {folder} holds no label file ({', '.join(ENDINGS)}); put some there")
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


def _rows(file: Path, columns: tuple[str, ...], dataset: RawDataset) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of a table by case, with the value of their class, and ``where`` they stand for messages."""
    by_case: dict[str, list[dict[str, Any]]] = {}
    for line, row in enumerate(read_table(file, columns), 1):
        where = f"{file}, row {line}"
        value = _class_of(row["class"], dataset, where)
        if row["case"] not in dataset.cases:
            raise LimitedError(f"{where}: {dataset.folder} has no case {row['case']!r}; correct it")
        if columns == BOX_COLUMNS and not value:
            raise LimitedError(f"{where}: a box cannot be of class background; remove it")
        by_case.setdefault(row["case"], []).append({**row, "class": value, "where": where})
    return by_case


def _class_of(name: Any, dataset: RawDataset, where: str) -> int:
    value = dataset.description.labels.get(name, name)
    single = {int(v) for v in dataset.description.label_values} - {ignore_of(dataset)}
    if not str(value).isdecimal() or int(value) not in single:
        raise LimitedError(f"{where}: class {name!r} is none of {', '.join(map(str, sorted(single)))}; correct it")
    return int(value)
