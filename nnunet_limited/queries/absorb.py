"""Read and check the answers of a round, and make the dataset and the split of the next round from them."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.annotations.annotation import Annotation, classes, only, outlines
from nnunet_limited.annotations.grid import check_grid, check_values, check_whole
from nnunet_limited.annotations.importers.images import ENDINGS, FILL, read_image, read_labels
from nnunet_limited.datasets.derived import ignore_of, view_folder, write_view
from nnunet_limited.datasets.description import values_of
from nnunet_limited.datasets.raw import Case, RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import preprocessed_folder, raw_folder
from nnunet_limited.host.images import grid_of, read_label, read_scan, write_label
from nnunet_limited.planners.planned import PlannedData
from nnunet_limited.queries.record import LABELS, Round, load_round, window_hash
from nnunet_limited.queries.request import AbsorbRequest
from nnunet_limited.queries.windows import Granularity, Window
from nnunet_limited.splits import Fold, Split, SplitRequest, load_split
from nnunet_limited.splits.check import split_name
from nnunet_limited.splits.make import class_reader, make_split, write_split
from nnunet_limited.util.files import file_hash, write_json
from nnunet_limited.util.parallel import run_all

# Fields of the record of a round that the record of the new dataset has too.
RECORDED = {*("round", "rounds", "strategy", "seed", "items", "minutes", "granularity", "seconds"), "model", "dice"}
States = dict[str, list[tuple[float, bool]]]  # by case, of each window: annotated fraction, whether it is unchanged


def absorb(request: AbsorbRequest, processes: int) -> dict[str, Any]:
    """Make dataset and split from the answers of a round; return a record of it. Round and old dataset stay unchanged.

    Raises LimitedError for a label on another grid or with a value that is no class, and if nothing was answered.
    """
    queried = load_round(request.folder)
    record = queried.record
    raw = RawDataset.load(record.dataset)
    split_before = _split_of(queried)
    name = _check_names(request, record.round, split_before)
    if request.oracle is not None:
        answer_by_oracle(queried, raw, request.oracle)
    visible = {*split_before.labeled, *split_before.validation} if split_before else set(raw.labeled)
    answers = _answers(queried, raw, request.accept_unchanged or request.oracle is not None, visible)
    found = run_all(window_states, [(answer,) for answer in answers.values()], processes, "Checking")
    states = dict(zip(answers, found, strict=True))
    answered = [case for case in answers if any(fraction and not unchanged for fraction, unchanged in states[case])]
    if not answered:
        raise LimitedError(
            f"{request.folder / LABELS} answers none of {len(queried.queries)} queries: the files are missing, "
            "empty or unchanged; annotate some, or give --accept-unchanged if the predictions are right"
        )
    arguments = {case: (answers[case], record.granularity, record.seconds) for case in answered}
    hidden = set(raw.cases) - visible | set(answered)
    origin = record.model_dump(mode="json", include=RECORDED)
    origin |= {"kind": "queries", "folder": str(request.folder), "queries": _queries(queried, states)}
    made = write_view(raw, request.out, arguments, write_answer, origin, processes, hidden=hidden)
    try:
        split = _write_split(RawDataset.load(request.out), name, split_before, queried, answered, request.group_by)
    except LimitedError:
        shutil.rmtree(raw_folder(request.out))
        raise
    return {**made, "split": split.name}


def _check_names(request: AbsorbRequest, number: int, split_before: Split | None) -> str:
    """Refuse names that are invalid or in use; return the name of the split to make."""
    view_folder(request.out)
    name = split_name(request.name or f"r{number}")
    preprocessed = preprocessed_folder(request.out)
    for old in sorted(preprocessed.glob("splits_*.json")):
        raise LimitedError(
            f"{old} is of an earlier {request.out}; delete {preprocessed} with it, or give another --out"
        )
    if split_before is not None and request.group_by is not None:
        raise LimitedError(
            f"--group-by {request.group_by} has no effect with split {split_before.name!r}, which has folds; remove it"
        )
    return name


def _split_of(queried: Round) -> Split | None:
    """Return the split of the round with the folds of its models; refuse one that has changed."""
    record = queried.record
    if record.split is None:
        return None
    split = load_split(preprocessed_folder(record.dataset), record.split)
    if split.hash != record.split_hash:
        raise LimitedError(
            f"split {split.name!r} of {record.dataset} has changed since {queried.folder} was made (hash {split.hash}, "
            f"then {record.split_hash}); restore the split, or query again"
        )
    return Split(split.name, split.dataset, tuple(split.fold(k) for k in record.folds), split.info)


def answer_by_oracle(queried: Round, raw: RawDataset, labels: Path) -> None:
    """Answer every query by the dense ``labels`` of a folder, in the label files of the round."""
    ending, reader = raw.description.file_ending, raw.reader()()
    for case in queried.cases:
        truth, file = labels / f"{case}{ending}", queried.folder / LABELS / f"{case}{ending}"
        if not truth.is_file():
            raise LimitedError(f"--oracle {labels} has no {truth.name}; put the dense label of every case there")
        dense, about = read_label(reader, truth)
        label, properties = read_label(reader, file)
        check_grid(truth, grid_of(dense.shape, about), grid_of(label.shape, properties))
        for window in queried.windows_of(case):
            label[window.inside] = dense[window.inside]
        write_label(reader, label, file, properties, ending)


def _answers(queried: Round, raw: RawDataset, accept_unchanged: bool, visible: set[str]) -> dict[str, Answer]:
    """Return the answers in the folder of the round, by case."""
    dataset = (raw.description.labels, ignore_of(raw), raw.reader(), raw.description.file_ending)
    answers = {}
    for name in queried.cases:
        case, file = raw.cases[name], _answer_file(queried, raw, name)
        if file is not None:
            initial = None if accept_unchanged else queried.initial_labels[name].windows
            previous = case.label if name in visible else None
            answers[name] = Answer(case, file, tuple(queried.windows_of(name)), initial, previous, *dataset)
    return answers


def _answer_file(queried: Round, raw: RawDataset, case: str) -> Path | None:
    """Return the label file of a case, None if there is none; of two files the initial one does not count."""
    endings = dict.fromkeys((raw.description.file_ending, *ENDINGS))
    found = [file for ending in endings if (file := queried.folder / LABELS / f"{case}{ending}").is_file()]
    if len(found) > 1:
        found = [file for file in found if file_hash(file) != queried.initial_labels[case].file]
    if len(found) > 1:
        raise LimitedError(f"case {case} has two answers, {found[0].name} and {found[1].name}; remove one")
    return found[0] if found else None


def _queries(queried: Round, states: States) -> list[dict[str, Any]]:
    """Return every query with the annotated fraction of its window and whether it is unchanged, for the record."""
    left = {case: iter(windows) for case, windows in states.items()}
    queries = []
    for query in queried.queries:
        fraction, unchanged = next(left[query.window.case]) if query.window.case in left else (0.0, False)
        queries.append({**query.as_dict(), "annotated": fraction, "unchanged": unchanged})
    return queries


def _write_split(
    raw: RawDataset, name: str, before: Split | None, queried: Round, answered: list[str], group_by: str | None
) -> Split:
    """Write the split of the next round.

    Answered cases are training cases of every fold and never validation cases: they were chosen because they are hard,
    so a Dice on them is not informative for others, and models of earlier rounds stay comparable. After a cold start
    the folds are made from all annotated cases.
    """
    folder = preprocessed_folder(raw.name)
    if before is None:
        request = SplitRequest(name=name, protocol="deployment", group_by=group_by)
        split, partition = make_split(raw, folder, request, class_reader(raw))
    else:
        group_by = before.info.get("group_by")
        new = set(answered)
        folds = tuple(
            Fold(tuple(sorted({*fold.train, *new})), fold.val, tuple(sorted(set(fold.unlabeled) - new)))
            for fold in before.folds
        )
        split = Split(name, raw.name, folds, {})
        partition = [list(fold.val) for fold in folds]
        stock = [{"train": list(fold.train), "val": list(fold.val)} for fold in folds]
        write_json(folder / "splits_final.json", stock)
    record = queried.record
    info = {"dataset": raw.name, "protocol": "active", "seed": record.seed, "hash": split.hash, "group_by": group_by}
    info |= {"round": record.round, "rounds": record.rounds, "queried": answered}
    split = Split(split.name, split.dataset, split.folds, info)
    write_split(folder, split, partition)
    return split


def next_commands(out: str, record: dict[str, Any]) -> list[str]:
    """Return how to plan, train and query again, with the configuration and size of the model of the ``record``."""
    configuration, size = "3d_fullres", ""
    if record["model"] is not None:
        configuration, plans = record["model"]["configuration"], {}
        with contextlib.suppress(LimitedError):  # they may be deleted
            plans = PlannedData.load(preprocessed_folder(record["dataset"]), record["model"]["plans"]).plans
        size = " --size tiny" if plans.get("limited", {}).get("size") == "tiny" else ""
    what, axis, voxel = record["granularity"]
    again = f"--what {what}" + (f" --size {'x'.join(map(str, voxel))}" if voxel else "")
    again += f" --axis {axis}" if axis is not None else ""
    again += f" --items {record['items']}" if record["items"] else f" --minutes {record['minutes']:g}"
    if record["model"] is not None:  # after a cold start the default for models is better
        again += f" --strategy {record['strategy']}"
    again += f" --seconds {record['seconds']:g} --seed {record['seed']} --rounds {record['rounds']}"
    train, trainer = "self-train", "LimitedActiveTrainer"
    if not all(fold.unlabeled for fold in load_split(preprocessed_folder(out), record["split"]).folds):
        train, trainer = "crossval", "LimitedSparseTrainer"  # every scan is annotated in part
    model = f"{out} {configuration} -tr {trainer} -p PLANS"
    return [
        f"nnunet-limited plan {out} --split {record['split']} -c {configuration}{size}",
        f"nnunet-limited {train} {model}",
        f"nnunet-limited query {model} {again} --out round_{record['round'] + 1}",
    ]


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

    ``windows`` are the annotated fraction of each window, and whether it is as in the initial label file.
    """

    label: np.ndarray
    before: np.ndarray
    windows: list[tuple[float, bool]]


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
    values = {ignore, *(v for value in answer.labels.values() for v in values_of(value))}
    foreign = sorted(set(np.unique(label).tolist()) - values)
    if foreign:
        raise LimitedError(
            f"label {answer.file} has the value {foreign[0]:g}, which is no class (the labels are "
            f"{', '.join(map(str, sorted(values)))}, of which {ignore} is the ignore label); correct it"
        )
    initial = answer.initial or [""] * len(answer.windows)
    unchanged = [window_hash(label, window) == old for window, old in zip(answer.windows, initial, strict=True)]
    for window, same in zip(answer.windows, unchanged, strict=True):
        if same:
            label[window.inside] = ignore
    before = np.full(label.shape, ignore, np.int16)
    if answer.previous is not None:
        before = check_values(answer.previous, read_label(answer.reader(), answer.previous)[0], values)
        label = np.where(label == ignore, before, label)
    fractions = [float((label[window.inside] != ignore).mean()) for window in answer.windows]
    return Annotated(label, before != ignore, list(zip(fractions, unchanged, strict=True)))


def window_states(answer: Answer) -> list[tuple[float, bool]]:
    """Return the annotated fraction of each window, and whether it is unchanged."""
    return read_answer(answer).windows


def write_answer(
    case: Case, target: Path, reader_class: Any, ignore: int, answer: Answer, granularity: Granularity, seconds: float
) -> dict[str, Any]:
    """Write the label of an answer to ``target``; return what is newly annotated, and the minutes of its outlines."""
    annotated = read_answer(answer)
    label, reader = annotated.label, reader_class()
    _, properties = read_scan(reader, case.images)
    reader.write_seg(label, str(target), properties)
    new = np.zeros(label.shape, bool)
    for window in answer.windows:
        new[window.inside] = True
    new &= (label != ignore) & ~annotated.before
    marks, slices = outlines(label, new, ignore, granularity.plane_axis(properties["spacing"]))
    cost = Annotation(only(label, new, ignore), marks, slices).cost(ignore, seconds)
    return {**cost, "annotated_share": float((label != ignore).mean()), "classes": classes(label, ignore)}


def _on_scan(answer: Answer) -> np.ndarray:
    """Return the values of an answer on the grid on which nnU-Net reads the scan (*spatial)."""
    file, reader = answer.file, answer.reader()
    if type(reader).__name__ == "SimpleITKIO" and file.name.endswith(ENDINGS):
        single = {name: int(value) for name, value in answer.labels.items() if not isinstance(value, list)}
        image = read_image(answer.case.images[0], "image")
        label = read_labels(file, image, {**single, "ignore": answer.ignore})
        return label[None] if image.GetDimension() == 2 else label  # nnU-Net adds an axis to 2D images
    if not file.name.endswith(answer.ending):
        raise LimitedError(
            f"label {file}: nnU-Net reads this dataset by {type(reader).__name__}; save it in the format of the images"
        )
    label, about = read_label(reader, file)
    image, properties = read_scan(reader, answer.case.images)
    check_grid(file, grid_of(label.shape, about), grid_of(image.shape[1:], properties))
    check_whole(file, label)
    return label.astype(np.int16)
