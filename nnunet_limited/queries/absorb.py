"""Take back what annotators made of a round: check it, and make of it the dataset and the split of the next round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.annotations.annotation import classes, outlines
from nnunet_limited.annotations.files import ENDINGS, FILL, read_image, read_labels
from nnunet_limited.annotations.view import ignore_of, view_folder, write_view
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.dataset import Case, RawDataset, nnunet_folder
from nnunet_limited.host.files import file_hash, replacing
from nnunet_limited.host.parallel import run_all
from nnunet_limited.queries.regions import Granularity, Region
from nnunet_limited.queries.rounds import LABELS, Round, load_round
from nnunet_limited.splits import Fold, Split, SplitRequest, load_split, make_split, write_split
from nnunet_limited.splits.check import split_name
from nnunet_limited.splits.classes import class_reader


@dataclass(frozen=True)
class AbsorbRequest:
    """What ``nnunet-limited absorb`` is asked for: the round's ``folder``, and the names of dataset and split to make.

    ``oracle`` is a folder of dense labels that answers every query, for simulations. A label file that is still as it
    was handed out counts as no answer, unless ``accept_unchanged``.
    """

    folder: Path
    name: str
    split: str | None = None
    accept_unchanged: bool = False
    oracle: Path | None = None


def absorb(request: AbsorbRequest, processes: int) -> dict[str, Any]:
    """Make dataset and split of what came back, and return a record of it; the round and its dataset stay as they are.

    Raises LimitedError for a label on another grid or with a value that is no class, and if nothing came back.
    """
    asked = load_round(request.folder)
    raw = RawDataset.load(asked.origin["dataset"])
    view_folder(request.name)
    name = split_name(request.split or f"r{asked.origin['round']}")
    before = _split_of(asked, raw)
    if request.oracle is not None:
        answer(asked, raw, request.oracle)
    files = {case: file for case in asked.cases if (file := _file_of(asked, raw, case, request)) is not None}
    missing = [case for case in asked.cases if case not in files]
    tasks: dict[str, tuple[Any, ...]] = {case: (file, asked.of(case)) for case, file in files.items()}
    reader = raw.reader()
    checks = [(raw.cases[case], reader, ignore_of(raw), raw.dataset_json["labels"], *tasks[case]) for case in tasks]
    shares = dict(zip(tasks, run_all(annotated_shares, checks, processes, "Checking"), strict=True))
    answered = [case for case, share in shares.items() if any(share)]
    missing += [case for case in shares if case not in answered]
    if not answered:
        raise LimitedError(
            f"{request.folder / LABELS} answers none of {len(asked.queries)} queries: the files are missing, empty or "
            "still as they were handed out; annotate some, or give --accept-unchanged if the predictions are right"
        )
    states = _states(asked, shares)
    granularity = asked.origin["granularity"]
    axis = Granularity(granularity[0], granularity[1], tuple(granularity[2]))
    more = (axis, raw.dataset_json["labels"], asked.origin["seconds"])
    made = {case: (*tasks[case], *more) for case in answered}
    visible = set(raw.labeled) if before is None else {*before.labeled, *before.validation}
    hidden = set(raw.cases) - visible | set(answered)
    origin = {
        "kind": "queries",
        **{
            key: asked.origin[key]
            for key in ("round", "rounds", "strategy", "seed", "items", "minutes", "model", "dice")
        },
        "folder": str(request.folder),
        "queries": states,
    }
    record = write_view(raw, request.name, made, write_answer, origin, processes, None, hidden)
    split = _write_split(RawDataset.load(request.name), name, before, asked, answered)
    untouched = [case for case in missing if case not in files and _candidates(asked, raw, case)]
    return {**record, "split": split.name, "unanswered": sorted(missing), "untouched": sorted(untouched)}


def _split_of(asked: Round, raw: RawDataset) -> Split | None:
    """Return the split of the round, with the folds that took part; refuse one that has changed."""
    if asked.origin["split"] is None:
        return None
    split = load_split(nnunet_folder("nnUNet_preprocessed") / raw.name, asked.origin["split"])
    if split.hash != asked.origin["split_hash"]:
        raise LimitedError(
            f"split {split.name!r} of {raw.name} has changed since {asked.folder} was asked (hash {split.hash}, then "
            f"{asked.origin['split_hash']}); make the split as it was, or ask again"
        )
    return Split(split.name, split.dataset, tuple(split.fold(k) for k in asked.origin["folds"]), split.info)


def answer(asked: Round, raw: RawDataset, labels: Path) -> None:
    """Write the label files of a round as an annotator would who knows the dense ``labels`` of a folder."""
    ending, reader = raw.dataset_json["file_ending"], raw.reader()()
    for case in asked.cases:
        truth, file = labels / f"{case}{ending}", asked.folder / LABELS / f"{case}{ending}"
        if not truth.is_file():
            raise LimitedError(f"--oracle {labels} has no {truth.name}; put the dense label of every case there")
        dense, properties = reader.read_seg(str(truth))
        label = reader.read_seg(str(file))[0][0]
        for region in asked.of(case):
            label[region.inside] = dense[0][region.inside]
        with replacing(file) as temporary:
            made = temporary.with_name(f"{temporary.name}{ending}")  # writers go by the ending
            reader.write_seg(label, str(made), properties)
            made.replace(temporary)


def _candidates(asked: Round, raw: RawDataset, case: str) -> list[Path]:
    """Return the label files of a case that are there."""
    endings = dict.fromkeys((raw.dataset_json["file_ending"], *ENDINGS))
    return [file for ending in endings if (file := asked.folder / LABELS / f"{case}{ending}").is_file()]


def _file_of(asked: Round, raw: RawDataset, case: str, request: AbsorbRequest) -> Path | None:
    """Return the file with the answer to the queries in a case; None if it is missing, or as it was handed out."""
    found = _candidates(asked, raw, case)
    changed = [file for file in found if file_hash(file) != asked.prefilled[case]]
    if len(changed) > 1:
        raise LimitedError(f"case {case} has two answers, {changed[0].name} and {changed[1].name}; remove one")
    if changed:
        return changed[0]
    return found[0] if found and (request.accept_unchanged or request.oracle is not None) else None


def read_answer(
    case: Case, reader_class: Any, ignore: int, names: dict[str, Any], file: Path, regions: Sequence[Region]
) -> np.ndarray:
    """Return the label (*spatial) in an annotator's file; in its regions, what no segment covers is background.

    Raises LimitedError for another grid and for a value that is no class.
    """
    if file.name.endswith(ENDINGS):
        image = read_image(case.images[0], "image")
        single = {name: int(value) for name, value in names.items() if not isinstance(value, list)}
        label = read_labels(file, image, {**single, "ignore": ignore})
    else:
        reader = reader_class()
        label = reader.read_seg(str(file))[0][0]
        shape = reader.read_images([str(one) for one in case.images])[0].shape[1:]
        if label.shape != shape:
            raise LimitedError(
                f"label {file} has the shape {list(label.shape)}, its image {list(shape)}; draw on the image"
            )
    for region in regions:
        inside = label[region.inside]
        inside[inside == FILL] = 0
    label[label == FILL] = ignore
    known = {int(v) for value in names.values() for v in (value if isinstance(value, list) else [value])} | {ignore}
    unknown = sorted(set(np.unique(label).tolist()) - known)
    if unknown:
        raise LimitedError(
            f"label {file} has the value {unknown[0]:g}, which is no class (known are "
            f"{', '.join(map(str, sorted(known)))}, of which {ignore} says nothing); correct it"
        )
    return np.asarray(label, np.int16)


def annotated_shares(
    case: Case,
    reader_class: Any,
    ignore: int,
    names: dict[str, Any],
    file: Path,
    regions: Sequence[Region],
) -> list[float]:
    """Return which share of each region of a case is annotated in ``file``."""
    label = read_answer(case, reader_class, ignore, names, file, regions)
    return [float((label[region.inside] != ignore).mean()) for region in regions]


def write_answer(
    case: Case,
    target: Path,
    reader_class: Any,
    ignore: int,
    file: Path,
    regions: Sequence[Region],
    granularity: Granularity,
    names: dict[str, Any],
    seconds: float,
) -> dict[str, Any]:
    """Write the label of an answer to ``target``; return what is annotated anew and what it cost."""
    label = read_answer(case, reader_class, ignore, names, file, regions)
    reader = reader_class()
    _, properties = reader.read_images([str(one) for one in case.images])
    reader.write_seg(label, str(target), properties)
    asked = np.zeros(label.shape, bool)
    for region in regions:
        asked[region.inside] = True
    asked &= label != ignore
    marks, slices = outlines(label, asked, ignore, granularity.plane_axis(properties["spacing"]))
    return {
        "voxels": int(asked.sum()),
        "foreground_voxels": int((asked & (label != 0)).sum()),
        "annotated_share": float((label != ignore).mean()),
        "classes": classes(label, ignore),
        "marks": marks,
        "slices": slices,
        "minutes": marks * seconds / 60,
    }


def _states(asked: Round, shares: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return every query with the share of it that was annotated."""
    left = {case: iter(share) for case, share in shares.items()}
    return [
        {**query.as_dict(), "annotated": next(left[query.region.case]) if query.region.case in left else 0.0}
        for query in asked.queries
    ]


def _write_split(raw: RawDataset, name: str, before: Split | None, asked: Round, answered: list[str]) -> Split:
    """Write the split of the next round.

    What was asked for is learnt from in every fold and never validated on: it was chosen for being hard, so that it
    tells little of other cases, and models of earlier rounds stay comparable. After a cold start there are no folds
    yet; they are made over all that is annotated.
    """
    folder = nnunet_folder("nnUNet_preprocessed") / raw.name
    if before is None:
        split, partition = make_split(raw, folder, SplitRequest(name, protocol="deployment"), class_reader(raw))
    else:
        new = set(answered)
        folds = tuple(
            Fold(tuple(sorted({*fold.train, *new})), fold.val, tuple(sorted(set(fold.unlabeled) - new)))
            for fold in before.folds
        )
        split = Split(name, raw.name, folds, {})
        partition = [list(fold.val) for fold in folds]
    info = {"dataset": raw.name, "protocol": "active", "seed": asked.origin["seed"], "hash": split.hash}
    info |= {"round": asked.origin["round"], "rounds": asked.origin["rounds"], "queried": answered}
    split = Split(split.name, split.dataset, split.folds, info)
    write_split(folder, split, partition)
    return split
