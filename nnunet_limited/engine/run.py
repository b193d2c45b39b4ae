"""What a run is before it starts: its split, its settings, its results folder. Everything refusable is refused here."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import distributed

from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.engine.settings import TrainerConfig
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import nnunet_folder
from nnunet_limited.host.plans import with_inherited
from nnunet_limited.planners.preprocessing import data_folders, is_bound, is_current, preprocess, require_preprocessed
from nnunet_limited.splits import Fold, Split, load_host_split, load_split
from nnunet_limited.util.files import content_hash, read_object, unwritable, write_json
from nnunet_limited.util.parallel import default_processes

RECORD = "limited_run.json"


@dataclass(frozen=True)
class Run:
    """One trainer on one fold of one split with one set of plans."""

    split: Split
    fold: Fold
    labeled_folder: Path
    unlabeled_folder: Path
    results: Path
    record: dict[str, Any]
    is_bound: bool

    def write_record(self) -> None:
        """Record in the results folder what is trained there."""
        write_json(self.results / RECORD, self.record)

    def learns_from(self, what: str, content: str) -> None:
        """Record the hash of ``what`` this fold alone learns from; refuse a fold that has learnt from others."""
        self.record[what] = content
        file = self.results / RECORD
        before = read_object(file, "run record", "delete its folder").get(what, content) if file.is_file() else content
        if before != content:
            raise LimitedError(
                f"{self.results} was trained on other {what.replace('_', ' ')} (hash {before}, now {content}); delete "
                "that folder to train on the new ones"
            )


def resolve_run(
    trainer: str, plans: dict[str, Any], configuration: str, fold: int | str, settings: dict[str, Any]
) -> Run:
    """Find a run as :func:`find_run` does; refuse a results folder that is read-only or holds one of other settings."""
    run = find_run(trainer, plans, configuration, fold, settings)
    check_results_folder(run.results.parent, run.record)
    return run


def find_run(trainer: str, plans: dict[str, Any], configuration: str, fold: int | str, settings: dict[str, Any]) -> Run:
    """Find and check the split of a run; ``settings`` is the trainer's resolved configuration.

    Raises LimitedError when the split is missing, malformed, of another dataset or changed since planning.
    """
    chosen = planned_configuration(plans, configuration)
    if "previous_stage" in chosen:
        raise LimitedError(
            f"configuration {configuration!r} is a cascade, which would need predictions of every unlabelled case; use "
            f"{chosen.get('inherits_from', '3d_fullres')}"
        )
    split = load_run_split(plans)
    with_label, without_label = data_folders(plans, configuration)
    base = (
        nnunet_folder("nnUNet_results") / plans["dataset_name"] / f"{trainer}__{plans['plans_name']}__{configuration}"
    )
    record = {
        "trainer": trainer,
        "configuration": configuration,
        "split": split.name,
        "split_hash": split.hash,
        "plans_hash": plans_hash(plans),
        "settings": settings,
    }
    return Run(split, split.fold(fold), with_label, without_label, base / f"fold_{fold}", record, is_bound(plans))


def planned_configuration(plans: dict[str, Any], configuration: str) -> dict[str, Any]:
    """Return what ``plans`` say of a configuration, which they must have, with all that it inherits."""
    if configuration not in plans["configurations"]:
        raise LimitedError(
            f"configuration {configuration!r} is not in plans {plans['plans_name']}; use one of "
            f"{', '.join(plans['configurations'])}"
        )
    return with_inherited(plans, configuration)


def load_run_split(plans: dict[str, Any]) -> Split:
    """Load the split that ``plans`` are bound to or, for plans of the host, ``splits_final.json``."""
    preprocessed = nnunet_folder("nnUNet_preprocessed") / plans["dataset_name"]
    return load_bound_split(preprocessed, plans["limited"]) if is_bound(plans) else load_plain_split(preprocessed)


def load_bound_split(preprocessed: Path, limited: dict[str, Any]) -> Split:
    """Load the split that plans are bound to; refuse it if it is not the one they were made from."""
    split = load_split(preprocessed, limited["split"])
    if split.hash != limited["split_hash"]:
        raise LimitedError(
            f"split {split.name!r} in {preprocessed} has changed since these plans were made (hash {split.hash}, plans "
            f"say {limited['split_hash']}); run 'nnunet-limited plan' again"
        )
    return split


def load_plain_split(preprocessed: Path) -> Split:
    """Load ``splits_final.json`` for plans that are not ours."""
    images = RawDataset.load(preprocessed.name).without_label if has_raw(preprocessed.name) else []
    split = load_host_split(preprocessed, images)
    if not split.unlabeled:
        raise LimitedError(
            f"{preprocessed / 'splits_final.json'} has no key 'unlabeled' and no raw dataset with images without label "
            f"is in nnUNet_raw={os.environ.get('nnUNet_raw')}; add the key, put images into imagesUn/, or use "
            "'nnunet-limited split' and 'plan'"
        )
    return split


def has_raw(dataset: str) -> bool:
    """Tell whether the raw dataset is on this machine; it need not be where training runs."""
    return (Path(os.environ.get("nnUNet_raw") or "/nonexistent") / dataset).is_dir()


def plans_hash(plans: dict[str, Any]) -> str:
    """Hash plans without their name, their settings (recorded apart) and the version that made them."""
    limited = {key: value for key, value in plans.get("limited", {}).items() if key not in ("version", "settings")}
    content = {key: value for key, value in plans.items() if key not in ("continue_training", "plans_name")}
    return content_hash({**content, "limited": limited})


def check_results_folder(base: Path, record: dict[str, Any]) -> None:
    """Refuse a results folder in which a run with other settings, plans or split was recorded, or that is read-only."""
    existing = next((parent for parent in (base, *base.parents) if parent.exists()), base)
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise unwritable(base, OSError(None, "permission denied" if existing.is_dir() else f"{existing} is a file"))
    for file in sorted(base.glob(f"fold_*/{RECORD}")):
        other = with_defaults(read_object(file, "run record", "delete its folder"))
        differing = [key for key in record if other.get(key) != record[key]]
        if differing:
            key = differing[0]
            before, now = other.get(key), record[key]
            if key == "settings":
                known = other[key]
                key = next((name for name in now if known.get(name) != now[name]), key)
                before, now = known.get(key), now.get(key)
            raise LimitedError(
                f"{file.parent} holds a run with {key}={before}, this one has {key}={now}; give these settings a name "
                "of their own (--set or 'nnunet-limited configure'), or delete that folder"
            )


def with_defaults(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with the defaults of settings that trainers have got since it was written."""
    defaults = {key: field.default for key, field in TrainerConfig.model_fields.items()}
    return {**record, "settings": defaults | (record.get("settings") or {})}


def unlabeled_to_preprocess(run: Run, dataset_name: str) -> tuple[RawDataset | None, list[str]]:
    """Return the raw dataset and which of its unlabelled cases a run on plain host plans still has to preprocess."""
    folder = run.unlabeled_folder
    absent = [case for case in run.fold.unlabeled if not (folder / f"{case}.pkl").is_file()]
    if run.is_bound or not (absent or has_raw(dataset_name)):
        return None, []
    dataset = RawDataset.load(dataset_name)
    unknown = [case for case in absent if case not in dataset.cases]
    if unknown:
        raise LimitedError(
            f"{folder.with_name('splits_final.json')} lists the unlabelled case {unknown[0]!r}, which "
            f"{dataset.folder} does not have; correct the list"
        )
    cases = [dataset.cases[case] for case in run.fold.unlabeled if case in dataset.cases]
    return dataset, [c.identifier for c in cases if not is_current(folder / f"{c.identifier}.pkl", c, False)]


def check_unlabeled(run: Run, trainer: str, dataset_name: str) -> None:
    """Refuse a fold whose unlabelled cases are none, or neither preprocessed nor to be preprocessed at start."""
    if not run.fold.unlabeled:
        raise LimitedError(
            f"{run.results.name.replace('_', ' ')} of split {run.split.name!r} has no unlabelled case, which {trainer} "
            "needs; use LimitedSupervisedTrainer (LimitedSparseTrainer, where labels are sparse), or hide labels with "
            "'nnunet-limited split --labeled'"
        )
    if run.is_bound:
        require_preprocessed(run.unlabeled_folder, run.fold.unlabeled, "unlabelled", "run 'nnunet-limited plan'")
    else:
        unlabeled_to_preprocess(run, dataset_name)


def preprocess_unlabeled(run: Run, plans: dict[str, Any], configuration: str, log: Callable[[str], None]) -> None:
    """Preprocess what is missing of the unlabelled cases for plain host plans, from the images alone."""
    dataset, missing = unlabeled_to_preprocess(run, plans["dataset_name"])
    if dataset is None or not missing:
        return
    if (
        distributed.is_available() and distributed.is_initialized()
    ):  # other processes would give up waiting after minutes
        raise LimitedError(
            f"{len(missing)} unlabelled cases are not preprocessed in {run.unlabeled_folder}; start once with one GPU, "
            "which preprocesses them, or use 'nnunet-limited plan'"
        )
    log(f"Preprocessing {len(missing)} unlabelled cases into {run.unlabeled_folder}")
    preprocess(plans, configuration, dataset, (), missing, default_processes())
