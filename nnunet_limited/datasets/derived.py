"""A raw nnU-Net dataset that shows the images of another one with sparse labels; the other is left as it is."""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunet_limited.datasets.raw import BOX_FOLDER, TRUTH_FOLDER, RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import preprocessed_folder, raw_folder
from nnunet_limited.util.files import copy_file, folder_to_disk, unwritable, write_json
from nnunet_limited.util.locks import alone
from nnunet_limited.util.parallel import run_all
from nnunet_limited.util.whole import check_file

NAME = re.compile(r"Dataset(\d{3})_[A-Za-z0-9_-]+")
SPARSE_FOLDER = "labelsSparse"
RECORD = "annotations.json"


def ignore_of(dataset: RawDataset) -> int:
    """Return the value of the ignore label in a view of ``dataset``: its own or, as nnU-Net asks, the next number."""
    description = dataset.description
    return max(description.label_values) + 1 if description.ignore is None else description.ignore


@contextmanager
def making(name: str) -> Iterator[None]:
    """Make the dataset ``name`` in the block; raise LimitedError if another process makes one of its number.

    Raises LimitedError for a name that nnU-Net cannot use.
    """
    if not NAME.fullmatch(name):
        raise LimitedError(f"--out {name}: a dataset is named like Dataset601_Heart; give such a name")
    with alone(raw_folder(name[:10])):
        yield


def view_folder(name: str) -> Path:
    """Return where the view ``name`` is to be made; refuse a name that is taken."""
    match = NAME.fullmatch(name)
    assert match is not None
    folder, preprocessed = raw_folder(name), preprocessed_folder(name)
    for other in (file for parent in (folder, preprocessed) for file in parent.parent.glob(f"Dataset{match[1]}_*")):
        if other != preprocessed:
            raise LimitedError(f"--out {name}: {other} exists; choose another number or remove it")
    return folder


def write_view(
    dataset: RawDataset,
    name: str,
    arguments: dict[str, tuple[Any, ...]],
    annotate: Callable[..., dict[str, Any]],
    origin: dict[str, Any],
    processes: int,
    check: Callable[[dict[str, dict[str, Any]]], None] | None = None,
    hidden: Collection[str] = (),
    finish: Callable[[RawDataset], None] = lambda view: None,
) -> dict[str, Any]:
    """Make the raw dataset ``name``, in which some cases have sparse labels; return its record.

    ``annotate(case, target, reader_class, ignore, *arguments[case])`` writes the sparse label of a case to ``target``
    and returns what is to be recorded of it; ``check`` may refuse what is recorded of all. All other cases keep the
    label they have, if any. Dense labels are copied to ``labelsVal/`` to validate on. The labels that ``hidden`` cases
    have in ``dataset`` are neither kept nor copied. The folder appears when it is complete and ``finish(view)`` has
    returned.
    """
    with making(name):
        folder = view_folder(name)
        cases = list(arguments)
        ignore, ending = ignore_of(dataset), dataset.description.file_ending
        scratch = folder.with_name(f".{name}.tmp")
        try:
            shutil.rmtree(scratch, ignore_errors=True)
            for sub in (SPARSE_FOLDER, TRUTH_FOLDER, BOX_FOLDER):
                (scratch / sub).mkdir(parents=True)
            reader = dataset.reader()
            tasks = [
                (dataset.cases[case], scratch / SPARSE_FOLDER / f"{case}{ending}", reader, ignore, *more)
                for case, more in arguments.items()
            ]
            about = dict(zip(cases, run_all(annotate, tasks, processes, "Annotating"), strict=True))
            if check is not None:
                check(about)
            kept = [case for case in dataset.labeled if case not in {*about, *hidden}]
            for case in (*(case for case in cases if case not in hidden), *kept):
                dense = dataset.cases[case].truth or (dataset.cases[case].label if case in about else None)
                if dense is not None:
                    check_file(dense, "label")
                    copy_file(dense, scratch / TRUTH_FOLDER / f"{case}{ending}")
                    spacing = dense.with_name(
                        f"{dense.name.removesuffix(ending)}.json"
                    )  # as nnU-Net has it beside TIFF
                    if spacing.is_file():
                        copy_file(spacing, scratch / TRUTH_FOLDER / f"{case}.json")
            record = {**origin, "dataset": dataset.name, "ignore": ignore, "kept": kept, "cases": about}
            for sub in (TRUTH_FOLDER, BOX_FOLDER):
                with contextlib.suppress(OSError):  # what it holds is why it is there
                    (scratch / sub).rmdir()
            write_json(scratch / RECORD, record)
            write_json(scratch / "dataset.json", _description(dataset, folder, about, kept))
            require_files(scratch, [target for _, target, *_ in tasks])
            finish(RawDataset.read(scratch, name))
            for made in (*scratch.iterdir(), scratch):
                if made.is_dir():
                    folder_to_disk(made)
            scratch.rename(folder)
            folder_to_disk(folder.parent)
        except OSError as error:
            raise unwritable(folder, error) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return record


def require_files(folder: Path, files: Iterable[Path]) -> None:
    """Raise LimitedError unless all ``files``, which were written into ``folder``, are there with content."""
    for file in files:
        if not file.is_file() or not file.stat().st_size:
            raise LimitedError(
                f"{file} is missing, which was written a moment ago; see whether other programs change "
                f"{folder.parent}, and run the command again"
            )


def _description(dataset: RawDataset, folder: Path, about: dict[str, Any], kept: Sequence[str]) -> dict[str, Any]:
    """Return the view's dataset.json, whose paths stay right if all raw datasets move together.

    It has an ignore label if any label is sparse or may be.
    """
    description = dataset.description
    sparse = description.ignore is not None or any(one.get("annotated_share", 0) < 1 for one in about.values())

    def relative(file: Path | None) -> str:
        return Path(os.path.relpath(str(file), folder)).as_posix()

    images = {case: {"images": [relative(file) for file in files.images]} for case, files in dataset.cases.items()}
    labels = {case: f"{SPARSE_FOLDER}/{case}{description.file_ending}" for case in about}
    labels |= {case: relative(dataset.cases[case].label) for case in kept}
    inherited = {key: value for key, value in dataset.dataset_json.items() if key not in ("dataset", "unlabeled")}
    return {
        **inherited,
        "view_of": dataset.name,
        "labels": {**description.labels, **({"ignore": ignore_of(dataset)} if sparse else {})},
        "numTraining": len(labels),
        "dataset": {case: {**images[case], "label": labels[case]} for case in sorted(labels)},
        "unlabeled": {case: files for case, files in images.items() if case not in labels},
    }


def box_file(label: Path) -> Path:
    """Return where the boxes of the case with the sparse ``label`` are written."""
    return label.parents[1] / BOX_FOLDER / label.name
