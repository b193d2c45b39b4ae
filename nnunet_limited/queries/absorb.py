"""Read and check the answers of a round, and make the dataset and the split of the next round from them."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_limited.annotations.grid import DENSE
from nnunet_limited.datasets.derived import RECORD as MADE
from nnunet_limited.datasets.derived import ignore_of, making, view_folder, write_view
from nnunet_limited.datasets.drawings import drawing_endings
from nnunet_limited.datasets.listing import files_by_case, images_of_cases
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import preprocessed_folder, raw_folder
from nnunet_limited.host.images import grid_of, read_label, read_label_on, write_label
from nnunet_limited.planners.planned import PlannedData
from nnunet_limited.queries.answers import Answer, WindowState, answer_state, check_window, write_answer
from nnunet_limited.queries.record import IMAGES, LABELS, RECORD, Round, load_round
from nnunet_limited.queries.request import AbsorbRequest
from nnunet_limited.splits import Fold, Split, SplitRequest, load_split
from nnunet_limited.splits.check import split_file, split_name
from nnunet_limited.splits.make import class_reader, grouped, make_split, write_split
from nnunet_limited.util.files import file_hash, read_object, replace_text, write_json
from nnunet_limited.util.parallel import run_all
from nnunet_limited.util.provenance import read_record

# Fields of the record of a round that the record of the new dataset has too.
RECORDED = {*("round", "rounds", "strategy", "seed", "items", "minutes", "granularity", "seconds"), "model", "dice"}
QUERIED = "queried_hash"  # in the record of the new dataset: the hash of queries.json
States = dict[str, list[WindowState]]  # by case


def absorb(request: AbsorbRequest, processes: int) -> dict[str, Any]:
    """Make dataset and split from the answers of a round; return a record of it. Round and old dataset stay unchanged.

    The dataset appears when both are complete; for one that was made from these answers before, nothing is done. Raises
    LimitedError for a label on another grid or with a value that is no class, and if nothing was answered.
    """
    with making(request.out):
        return _absorb(request, processes)


def _absorb(request: AbsorbRequest, processes: int) -> dict[str, Any]:
    queried = load_round(request.folder)
    record = queried.record
    raw = RawDataset.load(record.dataset)
    split_before = _split_of(queried)
    name = _check_names(request, queried, split_before)
    _check_cases(queried, raw)
    if request.oracle is not None:
        answer_by_oracle(queried, raw, request.oracle)
    visible = {*split_before.labeled, *split_before.validation} if split_before else set(raw.labeled)
    answers = _answers(queried, raw, request.accept_unchanged or request.oracle is not None, visible)
    found = run_all(answer_state, [(answer,) for answer in answers.values()], processes, "Checking")
    states = {case: windows for case, (windows, _, _) in zip(answers, found, strict=True)}
    answered = [case for case in answers if any(one.fraction and not one.unchanged for one in states[case])]
    if not answered:
        raise LimitedError(
            f"{request.folder / LABELS} answers none of {len(queried.queries)} queries: the files are missing, "
            "empty or unchanged; annotate some, or give --accept-unchanged if the predictions are right"
        )
    arguments = {case: (answers[case], record.granularity, record.seconds) for case in answered}
    hidden = set(raw.cases) - visible | set(answered)
    origin = record.model_dump(mode="json", include=RECORDED)
    added = sorted(set(raw.cases) - set(raw.cases if record.cases is None else record.cases))
    offered = _without_validated(added, raw, split_before)
    origin |= {"kind": "queries", "folder": str(request.folder), "queries": _queries(queried, states)}
    origin |= {"added": added, "offered": offered}
    origin |= {"not_taken": {case: count for case, (_, count, _) in zip(answers, found, strict=True) if count}}
    origin |= {"warnings": [warning for _, _, warning in found if warning]}
    origin[QUERIED] = file_hash(queried.folder / RECORD)
    origin["answers"] = {case: file_hash(answer.file) for case, answer in answers.items()}
    if raw_folder(request.out).is_dir():
        return _made_before(request.out, name, origin)

    def split(view: RawDataset) -> None:
        replace_text(_mark(view.name), "")
        _write_split(view, name, split_before, queried, answered, offered, request.group_by)

    try:
        made = write_view(raw, request.out, arguments, write_answer, origin, processes, hidden=hidden, finish=split)
    except LimitedError:
        _remove_unfinished(request.out)
        raise
    _mark(request.out).unlink(missing_ok=True)
    return {**made, "split": name}


def _mark(out: str) -> Path:
    """Return the file that is there while the split of a dataset is, but the dataset itself is not."""
    return preprocessed_folder(out) / ".unfinished"


def _remove_unfinished(out: str) -> None:
    """Remove the split that a call which did not end has left without its dataset."""
    if _mark(out).is_file():
        for file in preprocessed_folder(out).glob("splits_*.json"):
            file.unlink()
        _mark(out).unlink()
        with contextlib.suppress(OSError):  # there is more in it
            preprocessed_folder(out).rmdir()


def _made_before(out: str, name: str, origin: dict[str, Any]) -> dict[str, Any]:
    """Return the record of the dataset ``out`` if it was made from the same answers; refuse it otherwise."""
    folder = raw_folder(out)
    record = read_object(folder / MADE, "record of annotations", "delete its dataset")
    now = json.loads(json.dumps({key: value for key, value in origin.items() if key != "folder"}))
    if {key: record.get(key) for key in now} != now or not split_file(preprocessed_folder(out), name).is_file():
        raise LimitedError(
            f"--out {out}: {folder} was made from other answers to this round; choose another number or remove it"
        )
    _mark(out).unlink(missing_ok=True)
    return {**record, "split": name}


def _check_names(request: AbsorbRequest, queried: Round, split_before: Split | None) -> str:
    """Refuse names that are invalid or in use but for those of this round; return the name of the split to make."""
    name = split_name(request.name or f"r{queried.record.round}")
    made = read_record(raw_folder(request.out) / MADE) or {}
    if made.get(QUERIED) != file_hash(queried.folder / RECORD):
        view_folder(request.out)
        _remove_unfinished(request.out)
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


def _check_cases(queried: Round, raw: RawDataset) -> None:
    """Refuse a round with a case that the dataset does not have."""
    for case in queried.cases:
        if case not in raw.cases:
            raise LimitedError(
                f"{queried.folder} asks for case {case!r}, which {raw.folder} does not have; restore its images, or "
                "query again"
            )


def _without_validated(cases: Sequence[str], raw: RawDataset, split: Split | None) -> list[str]:
    """Return the ``cases`` of patients that no fold of ``split`` validates on."""
    if split is None:
        return list(cases)
    unit = {
        case: name for name, members in grouped(list(raw.cases), split.info.get("group_by")).items() for case in members
    }
    validated = {unit.get(case) for case in split.validation}
    return [case for case in cases if unit[case] not in validated]


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
    ending, reader, values = (
        raw.description.file_ending,
        raw.reader()(),
        {*raw.description.label_values, ignore_of(raw)},
    )
    aligned = raw.description.grid_of_image
    files = {case: (labels / f"{case}{ending}", queried.folder / LABELS / f"{case}{ending}") for case in queried.cases}
    for truth, _ in files.values():
        if not truth.is_file():
            raise LimitedError(f"--oracle {labels} has no {truth.name}; put the dense label of every case there")
    for write in (False, True):  # nothing is written before all is checked
        for case, (truth, file) in files.items():
            label, properties = read_label(reader, file, "initial label")
            dense, _ = read_label_on(reader, truth, grid_of(label.shape, properties), values, aligned, DENSE)
            for window in queried.windows_of(case):
                check_window(window, label.shape)
                label[window.inside] = dense[window.inside]
            if write:
                write_label(reader, label, file, properties)


def _answers(queried: Round, raw: RawDataset, accept_unchanged: bool, visible: set[str]) -> dict[str, Answer]:
    """Return the answers in the folder of the round, by case."""
    dataset = (raw.description, ignore_of(raw), raw.reader())
    folder, answers = queried.folder / LABELS, {}
    endings = drawing_endings(raw.reader(), raw.description.file_ending)
    _check_places(queried, raw.description.file_ending)
    found = files_by_case(folder, endings, queried.cases, "answer") if folder.is_dir() else {}
    for name in queried.cases:
        case, file = raw.cases[name], _answer_file(queried, name, found.get(name, []))
        if file is not None:
            initial = None if accept_unchanged else queried.initial_labels[name].windows
            previous = case.label if name in visible else None
            answers[name] = Answer(case, file, tuple(queried.windows_of(name)), initial, previous, *dataset)
    return answers


def _check_places(queried: Round, ending: str) -> None:
    """Refuse answers that were saved beside the scans or into the folder of the round."""
    handed = [re.escape(case) for case in queried.cases]
    scan = re.compile(rf"(?:{'|'.join(handed)})_\d{{4}}{re.escape(ending)}")
    labels = queried.folder / LABELS
    initial = {one.file for one in queried.initial_labels.values()}

    def answers(folder: Path, case: str) -> list[Path]:
        files = images_of_cases(folder, [case], ending)
        return [file for file in files if file.is_file() and file_hash(file) not in initial]

    unanswered = [case for case in queried.cases if not answers(labels, case)]
    for folder in (one for one in sorted(labels.rglob("*")) if one.is_dir()):
        for file in (file for case in unanswered for file in answers(folder, case)):
            raise LimitedError(f"answer {file} is in a folder, which is not read; move it into {labels}, or elsewhere")
    for folder in (queried.folder, queried.folder / IMAGES):
        for file in images_of_cases(folder, queried.cases, ending):
            if folder == queried.folder or not scan.fullmatch(file.name):
                raise LimitedError(
                    f"answer {file} is not read, as it is not in {queried.folder / LABELS}; move it there, or elsewhere"
                )


def _answer_file(queried: Round, case: str, found: list[Path]) -> Path | None:
    """Return the one of the files ``found`` that answers a case, None if there is none; the initial one does not."""
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
        state = next(left[query.window.case]) if query.window.case in left else WindowState(0.0, False)
        queries.append({**query.as_dict(), "annotated": state.fraction, "unchanged": state.unchanged})
    return queries


def _write_split(
    raw: RawDataset,
    name: str,
    before: Split | None,
    queried: Round,
    answered: list[str],
    added: list[str],
    group_by: str | None,
) -> Split:
    """Write the split of the next round.

    Answered cases are training cases of every fold and never validation cases: they were chosen because they are hard,
    so a Dice on them is not informative for others, and models of earlier rounds stay comparable. After a cold start
    the folds are made from all annotated cases. Cases ``added`` since the query are unlabelled.
    """
    folder = preprocessed_folder(raw.name)
    if before is None:
        request = SplitRequest(name=name, protocol="deployment", group_by=group_by)
        split, partition = make_split(raw, folder, request, class_reader(raw))
    else:
        group_by = before.info.get("group_by")
        new = set(answered)
        folds = tuple(
            Fold(tuple(sorted({*fold.train, *new})), fold.val, tuple(sorted({*fold.unlabeled, *added} - new)))
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
