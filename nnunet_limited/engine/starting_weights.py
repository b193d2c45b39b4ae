"""Weights that a run starts from: recorded, and refused where they know labels that the run must not know."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_limited.engine.run import Run
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import preprocessed_folder
from nnunet_limited.splits import load_host_split, load_split
from nnunet_limited.util.files import file_hash
from nnunet_limited.util.provenance import read_record

FLAG = "-pretrained_weights"
UNKNOWN = "unknown"


class Learned(NamedTuple):
    """The cases of a dataset whose labels a model has learned; views of a dataset have its name."""

    dataset: str
    cases: frozenset[str]


def given_weights(arguments: Sequence[str] | None = None) -> Path | None:
    """Return the file that nnU-Net's command was given to start from; nnU-Net loads it without telling the trainer."""
    words = sys.argv if arguments is None else arguments
    for word, value in pairwise([*words, ""]):
        if word == FLAG and value:
            return Path(value)
        if word.startswith(f"{FLAG}="):
            return Path(word.removeprefix(f"{FLAG}="))
    return None


def weights_digest(file: Path | None) -> str | None:
    """Return the digest that the record of a run has of the weights in ``file``; None without a file."""
    return None if file is None else file_hash(file)


def check_weights_are_those(run: Run, file: Path | None) -> None:
    """Refuse a run that was begun from other weights than ``file``; earlier versions did not record them."""
    if file is not None and not file.is_file():
        return  # which is refused where the weights are read
    before, now = run.begun.get("weights", UNKNOWN), weights_digest(file)
    if before not in (UNKNOWN, now):
        raise LimitedError(
            f"{run.results} started from {'other' if before else 'no'} {FLAG} ({before}, now {now}); "
            f"{'give those' if before else 'leave them out'}, or give these runs plans of their own with 'configure'"
        )


def check_leak(file: Path, content: Any, run: Run) -> None:
    """Refuse the checkpoint ``content`` of ``file`` if it has learned a label that ``run`` hides or validates on."""
    learned = learned_cases(content)
    if learned is None or learned.dataset != origin_of(run.planned.dataset, run.planned.dataset_json):
        return
    forbidden = {*run.fold.unlabeled, *run.fold.val} - {*run.fold.train}
    leaked = sorted(learned.cases & forbidden)
    if leaked:
        raise LimitedError(
            f"{FLAG} {file} has learned the label of {leaked[0]!r}, which {run.results.name.replace('_', ' ')} "
            f"{'hides' if leaked[0] in run.fold.unlabeled else 'validates on'}; give weights of the same fold (in "
            "crossval, {fold} in their path stands for its number) or of another dataset"
        )


def learned_cases(content: Any) -> Learned | None:
    """Return what a checkpoint of nnU-Net or of ours has learned; None if that cannot be known."""
    try:
        arguments = content["init_args"]
        plans, fold, description = (arguments[key] for key in ("plans", "fold", "dataset_json"))
        dataset = str(plans["dataset_name"])
        ours = content.get("nnunet_limited", {}).get("record", {})
        cases = ours["labels"] if "labels" in ours else _cases_of(plans, dataset, fold)
    except (KeyError, TypeError, AttributeError, LimitedError):
        return None
    return Learned(origin_of(dataset, description), frozenset(cases))


def _cases_of(plans: dict[str, Any], dataset: str, fold: int | str) -> Sequence[str]:
    """Return the training cases of a fold of the split that the plans are bound to, or of nnU-Net's split."""
    folder, limited = preprocessed_folder(dataset), plans.get("limited") or {}
    if "split" not in limited:
        return load_host_split(folder, []).fold(fold).train
    split = load_split(folder, limited["split"])
    if split.hash != limited["split_hash"]:
        raise LimitedError(f"split {split.name} has changed")
    return split.fold(fold).train


def origin_of(dataset: str, description: dict[str, Any]) -> str:
    """Return the dataset whose cases ``dataset`` shows: itself, or that of which it is a view, as rounds of queries."""
    seen = [dataset]
    while isinstance(origin := description.get("view_of"), str) and origin not in seen:
        seen.append(origin)
        description = read_record(preprocessed_folder(origin) / "dataset.json") or {}
    return seen[-1]
