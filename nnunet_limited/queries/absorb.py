"""Take back what annotators made of a round: check it, and make of it the dataset and the split of the next round."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.annotations.annotation import classes, outlines
from nnunet_limited.annotations.importers.images import ENDINGS, FILL, read_image, read_labels
from nnunet_limited.datasets.derived import ignore_of, view_folder, write_view
from nnunet_limited.datasets.raw import Case, RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import preprocessed_folder, raw_folder
from nnunet_limited.host.images import write_label
from nnunet_limited.queries.record import LABELS, ORIGIN, Round, load_round, window_hash
from nnunet_limited.queries.windows import Granularity, Window
from nnunet_limited.splits import Fold, Split, SplitRequest, load_split, make_split, write_split
from nnunet_limited.splits.check import split_name
from nnunet_limited.splits.classes import class_reader
from nnunet_limited.util.files import file_hash, write_json
from nnunet_limited.util.parallel import run_all


@dataclass(frozen=True)
class AbsorbRequest:
    """What ``nnunet-limited absorb`` is asked for: the round's ``folder``, and the names of dataset and split to make.

    ``oracle`` is a folder of dense labels that answers every query, for simulations. A window that is still as it was
    handed out counts as not answered, unless ``accept_unchanged``. ``group_by`` keeps patients together in the folds
    that are made after a cold start.
    """

    folder: Path
    name: str
    split: str | None = None
    accept_unchanged: bool = False
    oracle: Path | None = None
    group_by: str | None = None


@dataclass(frozen=True)
class Answer:
    """An annotator's file for one case, and what is needed to read it.

    ``handed`` are the hashes of its ``windows`` as they were handed out, None if unchanged ones are answers too;
    ``previous`` is the label that the case had before, if any; ``ending`` that of the dataset's files.
    """

    case: Case
    file: Path
    windows: tuple[Window, ...]
    handed: tuple[str, ...] | None
    previous: Path | None
    names: dict[str, Any]
    ignore: int
    reader: Any
    ending: str


def absorb(request: AbsorbRequest, processes: int) -> dict[str, Any]:
    """Make dataset and split of what came back, and return a record of it; the round and its dataset stay as they are.

    Raises LimitedError for a label on another grid or with a value that is no class, and if nothing came back.
    """
    asked = load_round(request.folder)
    raw = RawDataset.load(asked.origin["dataset"])
    view_folder(request.name)
    name = split_name(request.split or f"r{asked.origin['round']}")
    preprocessed = preprocessed_folder(request.name)
    for old in sorted(preprocessed.glob("splits_*.json")):
        raise LimitedError(
            f"{old} is of an earlier {request.name}; delete {preprocessed} with it, or give another --out"
        )
    before = _split_of(asked, raw)
    if before is not None and request.group_by is not None:
        raise LimitedError(f"--group-by {request.group_by} is for a cold start; split {before.name!r} has its folds")
    if request.oracle is not None:
        answer(asked, raw, request.oracle)
    visible = set(raw.labeled) if before is None else {*before.labeled, *before.validation}
    answers = _answers(asked, raw, request, visible)
    shares = dict(
        zip(answers, run_all(shares_of, [(one,) for one in answers.values()], processes, "Checking"), strict=True)
    )
    states = _states(asked, shares)
    answered = [case for case in answers if any(share and not unchanged for share, unchanged in shares[case])]
    if not answered:
        raise LimitedError(
            f"{request.folder / LABELS} answers none of {len(asked.queries)} queries: the files are missing, empty or "
            "still as they were handed out; annotate some, or give --accept-unchanged if the predictions are right"
        )
    kind, axis, size = asked.origin["granularity"]
    made = {case: (answers[case], Granularity(kind, axis, tuple(size)), asked.origin["seconds"]) for case in answered}
    hidden = set(raw.cases) - visible | set(answered)
    origin = {key: asked.origin[key] for key in ORIGIN if key not in ("dataset", "split", "split_hash", "folds")}
    origin |= {"kind": "queries", "folder": str(request.folder), "queries": states}
    record = write_view(raw, request.name, made, write_answer, origin, processes, None, hidden)
    try:
        split = _write_split(RawDataset.load(request.name), name, before, asked, answered, request.group_by)
    except LimitedError:
        shutil.rmtree(raw_folder(request.name))
        raise
    return {**record, "split": split.name}


def _answers(asked: Round, raw: RawDataset, request: AbsorbRequest, visible: set[str]) -> dict[str, Answer]:
    """Return the answers that are there, by case."""
    answers, reader = {}, raw.reader()
    for case in asked.cases:
        file = _file_of(asked, raw, case)
        if file is not None:
            accepted = request.accept_unchanged or request.oracle is not None
            handed = None if accepted else tuple(asked.prefilled[case]["regions"])
            previous = raw.cases[case].label if case in visible else None
            known = (raw.description.labels, ignore_of(raw), reader, raw.description.file_ending)
            answers[case] = Answer(raw.cases[case], file, tuple(asked.of(case)), handed, previous, *known)
    return answers


def _split_of(asked: Round, raw: RawDataset) -> Split | None:
    """Return the split of the round, with the folds that took part; refuse one that has changed."""
    if asked.origin["split"] is None:
        return None
    split = load_split(preprocessed_folder(raw.name), asked.origin["split"])
    if split.hash != asked.origin["split_hash"]:
        raise LimitedError(
            f"split {split.name!r} of {raw.name} has changed since {asked.folder} was asked (hash {split.hash}, then "
            f"{asked.origin['split_hash']}); make the split as it was, or ask again"
        )
    return Split(split.name, split.dataset, tuple(split.fold(k) for k in asked.origin["folds"]), split.info)


def answer(asked: Round, raw: RawDataset, labels: Path) -> None:
    """Write the label files of a round as an annotator would who knows the dense ``labels`` of a folder."""
    ending, reader = raw.description.file_ending, raw.reader()()
    for case in asked.cases:
        truth, file = labels / f"{case}{ending}", asked.folder / LABELS / f"{case}{ending}"
        if not truth.is_file():
            raise LimitedError(f"--oracle {labels} has no {truth.name}; put the dense label of every case there")
        dense, properties = reader.read_seg(str(truth))
        label = reader.read_seg(str(file))[0][0]
        for window in asked.of(case):
            label[window.inside] = dense[0][window.inside]
        write_label(reader, label, file, properties, ending)


def _file_of(asked: Round, raw: RawDataset, case: str) -> Path | None:
    """Return the file with the answer to the queries in a case; beside others, the one that was handed out is none."""
    endings = dict.fromkeys((raw.description.file_ending, *ENDINGS))
    found = [file for ending in endings if (file := asked.folder / LABELS / f"{case}{ending}").is_file()]
    if len(found) > 1:
        found = [file for file in found if file_hash(file) != asked.prefilled[case]["file"]]
    if len(found) > 1:
        raise LimitedError(f"case {case} has two answers, {found[0].name} and {found[1].name}; remove one")
    return found[0] if found else None


def read_answer(answer: Answer) -> tuple[np.ndarray, list[tuple[float, bool]], np.ndarray]:
    """Return the label of a case (*spatial), how much of each window is annotated and whether it is as handed out,
    and where it was annotated before.

    In a window, what no segment of 3D Slicer covers is background. What the answer leaves open keeps the label it had.
    Raises LimitedError for another grid and for a value that is no class.
    """
    ignore, names = answer.ignore, answer.names
    label = _on_scan(answer)
    if answer.file.name.endswith(".seg.nrrd"):
        for window in answer.windows:
            inside = label[window.inside]
            inside[inside == FILL] = 0
    label[label == FILL] = ignore
    known = {int(v) for value in names.values() for v in (value if isinstance(value, list) else [value])} | {ignore}
    unknown = sorted(set(np.unique(label).tolist()) - known)
    if unknown:
        raise LimitedError(
            f"label {answer.file} has the value {unknown[0]:g}, which is no class (known are "
            f"{', '.join(map(str, sorted(known)))}, of which {ignore} says nothing); correct it"
        )
    unchanged = [window_hash(label, window) for window in answer.windows]
    as_handed = [h == u for h, u in zip(answer.handed or [""] * len(unchanged), unchanged, strict=True)]
    for window, same in zip(answer.windows, as_handed, strict=True):
        if same:
            label[window.inside] = ignore
    before = np.full(label.shape, ignore, np.int16)
    if answer.previous is not None:
        before = answer.reader().read_seg(str(answer.previous))[0][0].astype(np.int16)
        label = np.where(label == ignore, before, label)
    shares = [float((label[window.inside] != ignore).mean()) for window in answer.windows]
    return label, list(zip(shares, as_handed, strict=True)), before != ignore


def _on_scan(answer: Answer) -> np.ndarray:
    """Return the values of an answer on the grid on which the host reads the scan."""
    file, reader = answer.file, answer.reader()
    by_simpleitk = type(reader).__name__ == "SimpleITKIO" and file.name.endswith(ENDINGS)
    if by_simpleitk:
        single = {name: int(value) for name, value in answer.names.items() if not isinstance(value, list)}
        image = read_image(answer.case.images[0], "image")
        label = read_labels(file, image, {**single, "ignore": answer.ignore})
        return label[None] if image.GetDimension() == 2 else label  # as the host has it
    if not file.name.endswith(answer.ending):
        raise LimitedError(
            f"label {file}: nnU-Net reads this dataset by {type(reader).__name__}; save it like its images"
        )
    try:
        label = reader.read_seg(str(file))[0][0]
    except Exception as error:
        raise LimitedError(f"label {file} cannot be read ({error}); save it anew") from error
    shape = reader.read_images([str(one) for one in answer.case.images])[0].shape[1:]
    if label.shape != shape:
        raise LimitedError(
            f"label {file} has the shape {list(label.shape)}, its image {list(shape)}; draw on the image"
        )
    return np.asarray(label, np.int16)


def shares_of(answer: Answer) -> list[tuple[float, bool]]:
    """Return which share of each window of a case is annotated, and whether it is as it was handed out."""
    return read_answer(answer)[1]


def write_answer(
    case: Case,
    target: Path,
    reader_class: Any,
    ignore: int,
    answer: Answer,
    granularity: Granularity,
    seconds: float,
) -> dict[str, Any]:
    """Write the label of an answer to ``target``; return what is annotated anew and what it cost."""
    label, _, before = read_answer(answer)
    reader = reader_class()
    _, properties = reader.read_images([str(one) for one in case.images])
    reader.write_seg(label, str(target), properties)
    new = np.zeros(label.shape, bool)
    for window in answer.windows:
        new[window.inside] = True
    new &= (label != ignore) & ~before
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


def _states(asked: Round, shares: dict[str, list[tuple[float, bool]]]) -> list[dict[str, Any]]:
    """Return every query with the share of it that was annotated, and whether it is as it was handed out."""
    left = {case: iter(share) for case, share in shares.items()}
    states = []
    for query in asked.queries:
        share, unchanged = next(left[query.window.case]) if query.window.case in left else (0.0, False)
        states.append({**query.as_dict(), "annotated": share, "unchanged": unchanged})
    return states


def _write_split(
    raw: RawDataset, name: str, before: Split | None, asked: Round, answered: list[str], group_by: str | None
) -> Split:
    """Write the split of the next round.

    What was asked for is learnt from in every fold and never validated on: it was chosen for being hard, so that it
    tells little of other cases, and models of earlier rounds stay comparable. After a cold start there are no folds
    yet; they are made over all that is annotated.
    """
    folder = preprocessed_folder(raw.name)
    if before is None:
        made = SplitRequest(name=name, protocol="deployment", group_by=group_by)
        split, partition = make_split(raw, folder, made, class_reader(raw))
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
    info = {"dataset": raw.name, "protocol": "active", "seed": asked.origin["seed"], "hash": split.hash}
    info |= {"group_by": group_by}
    info |= {"round": asked.origin["round"], "rounds": asked.origin["rounds"], "queried": answered}
    split = Split(split.name, split.dataset, split.folds, info)
    write_split(folder, split, partition)
    return split
