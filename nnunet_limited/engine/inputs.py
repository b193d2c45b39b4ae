"""What a fold learns from: whether that has changed since it was preprocessed, and since the run began."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import blosc2
import numpy as np

from nnunet_limited.engine.run import REDO, Run, StaleRun
from nnunet_limited.errors import LimitedError, StaleError
from nnunet_limited.host.images import image_digest, label_digest
from nnunet_limited.planners.case_record import CaseRecord, raw_root
from nnunet_limited.planners.preprocessing import DIGESTS
from nnunet_limited.util.provenance import DigestCache, array_digest, changes, digest_cache, stamp

STORED = "stored-"  # begins digests of preprocessed labels, where the raw ones are not known


def record_inputs(run: Run, uses_unlabeled: bool, remedy: str) -> None:
    """Record what the fold learns from; refuse data that are not those of their raw files.

    Raw files are compared where they are on this machine. Labels of cases that the fold hides are not.
    """
    digests = digest_cache(run.planned.folder / DIGESTS)
    reader = run.planned.managers(run.configuration)[0].image_reader_writer_class
    # Unlabelled cases of plans that are not bound are preprocessed again at the start of a run.
    unlabeled = run.fold.unlabeled if uses_unlabeled and run.planned.is_bound else ()
    labeled = {case: CaseRecord.read(run.labeled_folder, case) for case in sorted({*run.fold.train, *run.fold.val})}
    hidden = {case: CaseRecord.read(run.unlabeled_folder, case) for case in unlabeled}
    for case, record in (*labeled.items(), *hidden.items()):
        if record is not None:
            _check_raw_files(case, record, reader, digests, remedy)
    labels = {}
    for case in run.fold.train:
        record, stored = labeled[case], run.labeled_folder / f"{case}_seg.b2nd"
        if record is not None and "label" in record.digests:
            labels[case] = record.digests["label"]
        elif stored.is_file():
            labels[case] = _stored_label(stored, digests)
    learned = {case: labeled[case] for case in run.fold.train} | hidden
    images = {case: record.digests["image"] for case, record in learned.items() if record and record.digests}
    run.record.update({"fold": run.results.name.removeprefix("fold_"), "labels": labels, "images": images})


def check_same(results: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse a run whose record ``before`` has another fold, label or image than there are ``now``.

    What it does not have, as those of earlier versions, is not compared.
    """
    if before.get("fold", now["fold"]) != now["fold"]:
        raise LimitedError(f"{results} holds a run of fold {before['fold']}; move it back to fold_{before['fold']}")
    for kind in ("labels", "images"):
        different = changes(before[kind], now[kind]) if before.get(kind) else []
        different = [case for case in different if _comparable(before[kind].get(case), now[kind].get(case))]
        if different:
            more = f" and of {len(different) - 1} more" if len(different) > 1 else ""
            raise StaleRun(
                f"{results} was trained with another {kind[:-1]} of {different[0]}{more}; {REDO}, or restore the file "
                "and run 'nnunet-limited plan'"
            )


def _comparable(before: str | None, now: str | None) -> bool:
    return bool(before and now) and str(before).startswith(STORED) == str(now).startswith(STORED)


def truth_of(run: Run) -> dict[str, str]:
    """Return the digests of the labels that the fold is validated on, as they lie in ``gt_segmentations``."""
    digests = digest_cache(run.planned.folder / DIGESTS)
    reader = run.planned.managers(run.configuration)[0].image_reader_writer_class
    return {case: label_digest(file, reader, digests) for case, file in truth_files(run).items()}


def truth_files(run: Run) -> dict[str, Path]:
    """Return the files of the labels that the fold is validated on."""
    folder, ending = run.planned.folder / "gt_segmentations", run.planned.description.file_ending
    return {case: folder / f"{case}{ending}" for case in run.fold.val}


def _check_raw_files(case: str, record: CaseRecord, reader: Any, digests: DigestCache, remedy: str) -> None:
    for kind, sources in record.sources.items():
        files = [Path(raw_root(), file) for file in sources]
        if not all(file.is_file() for file in files) or [stamp(file) for file in files] == [*sources.values()]:
            continue
        now = image_digest(files, reader, digests) if kind == "image" else label_digest(files[0], reader, digests)
        if now != record.digests[kind]:
            raise StaleError(
                f"{files[0]}: the {'label' if kind == 'truth' else kind} of {case} has changed since it was "
                f"preprocessed; {remedy}"
            )


def _stored_label(file: Path, digests: DigestCache) -> str:
    """Return the digest of a preprocessed label, where nnU-Net or an earlier version has preprocessed the case."""
    found = digests.get([file])
    if found is None:
        found = f"{STORED}{array_digest(np.asarray(blosc2.open(str(file), mode='r')[:]))}"
        digests.add([file], found)
    return found
