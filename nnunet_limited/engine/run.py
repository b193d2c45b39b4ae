"""What a run is before it starts: its split, its settings, its results folder. Everything refusable is refused here."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import distributed

from nnunet_limited.datasets.raw import Case, RawDataset
from nnunet_limited.engine.settings import TrainerConfig, recorded, with_current_names
from nnunet_limited.errors import LimitedError, StaleError
from nnunet_limited.host.folders import has_raw
from nnunet_limited.planners.case_record import CaseRecord, is_whole, stamps, why_not_current
from nnunet_limited.planners.planned import PlannedData
from nnunet_limited.planners.preprocessing import DIGESTS, preprocess, record_of, require_preprocessed
from nnunet_limited.splits import Fold, Split
from nnunet_limited.util.files import (
    file_hash,
    is_current,
    read_object,
    require_written,
    to_disk,
    unwritable,
    write_json,
)
from nnunet_limited.util.parallel import default_processes
from nnunet_limited.util.provenance import DigestCache, digest_cache, stamp

RECORD = "limited_run.json"
FINAL = "checkpoint_final.pth"
FORMAT = 2  # of the record of a run; those of earlier versions have none, which counts as 1
# What is recorded, but not part of what is trained: settings in the plans, and the format.
ABOUT = ("given", "format")
# What is recorded of one fold and need not be the same in others.
OF_FOLD = ("fold", "labels", "images", "weights", "validated")


REDO = "train again with --redo, which moves that folder aside"


class StaleRun(StaleError):
    """A run that was trained on something else than there is now."""


@dataclass(frozen=True)
class Run:
    """One trainer on one fold of one split with one set of plans."""

    planned: PlannedData
    configuration: str
    fold: Fold
    results: Path
    record: dict[str, Any]

    @property
    def split(self) -> Split:
        """The split of the run."""
        return self.planned.split

    @property
    def labeled_folder(self) -> Path:
        """The folder of the preprocessed cases with label."""
        return self.planned.cases(self.configuration).labeled

    @property
    def unlabeled_folder(self) -> Path:
        """The folder of the preprocessed cases without label."""
        return self.planned.cases(self.configuration).unlabeled

    def write_record(self) -> None:
        """Record in the results folder what is trained there."""
        kept = {key: value for key, value in self.begun.items() if key in OF_FOLD}
        write_json(self.results / RECORD, kept | self.record)

    @property
    def begun(self) -> dict[str, Any]:
        """Return what the results folder records of a run that was begun there; {} if none was."""
        file = self.results / RECORD
        return read_object(file, "run record", "delete its folder") if file.is_file() else {}

    def check_predictions(self) -> None:
        """Refuse predictions of which the disk took only a part, and the result that nnU-Net computed from them."""
        summary = self.results / "validation" / "summary.json"
        try:
            require_written(summary.parent)
        except LimitedError:
            summary.unlink(missing_ok=True)
            raise
        to_disk(summary)

    def record_validation(self, truth: dict[str, str]) -> None:
        """Record the digests of the labels that the final checkpoint was validated on, and that of the checkpoint."""
        checkpoint = self.results / FINAL
        about = {"checkpoint": [stamp(checkpoint), file_hash(checkpoint)], "truth": truth}
        self.record["validated"] = about
        write_json(self.results / RECORD, self.begun | {"validated": about})

    def record_input(self, what: str, content: str) -> None:
        """Record the hash of ``what`` this fold trains on; refuse a fold that was trained on others."""
        self.record[what] = content
        before = self.begun.get(what, content)
        if before != content:
            raise StaleRun(
                f"{self.results} was trained on other {what.replace('_', ' ')} (hash {before}, now {content}); {REDO}"
            )


def open_run(trainer: str, planned: PlannedData, configuration: str, fold: int | str, config: TrainerConfig) -> Run:
    """Return a run as :func:`describe_run` does; refuse a read-only results folder or one of other settings."""
    run = describe_run(trainer, planned, configuration, fold, config.model_dump(mode="json"))
    check_results_folder(run.results.parent, run.record, type(config))
    if run.results.exists() and not run.results.is_dir():
        raise unwritable(run.results, OSError(None, "it is a file"))
    return run


def recorded_settings(folder: Path, model: type[TrainerConfig]) -> dict[str, Any]:
    """Return the settings of ``model`` that the runs in ``folder`` had without being given them; {} if there are none.

    They are the same for all folds. Of records that do not list what was given, as those of format 1, they are all.
    """
    file = next(iter(sorted(folder.glob(f"fold_*/{RECORD}"))), None)
    record = read_object(file, "run record", "delete its folder") if file else {}
    if not record.get("settings"):
        return {}
    given = with_current_names(dict.fromkeys(record.get("given", ())))
    return {key: value for key, value in recorded(model, record["settings"]).items() if key not in given}


def first_format(folder: Path) -> int:
    """Return the lowest format of the records in ``folder``, and at most that of today."""
    return min([FORMAT, *(_format(file) for file in folder.glob(f"fold_*/{RECORD}"))])


def _format(file: Path) -> int:
    return int(read_object(file, "run record", "delete its folder").get("format", 1))


def describe_run(
    trainer: str, planned: PlannedData, configuration: str, fold: int | str, settings: dict[str, Any]
) -> Run:
    """Return what a run is; ``settings`` is the trainer's resolved configuration.

    Raises LimitedError when the split is missing, malformed, of another dataset or changed since planning.
    """
    chosen = planned.configuration(configuration)
    if "previous_stage" in chosen:
        raise LimitedError(
            f"configuration {configuration!r} is a cascade, which would need predictions of every unlabelled case; use "
            f"{chosen.get('inherits_from', '3d_fullres')}"
        )
    split = planned.split
    record: dict[str, Any] = {
        "trainer": trainer,
        "configuration": configuration,
        "split": split.name,
        "split_hash": split.hash,
        "plans_hash": planned.hash,
        "settings": settings,
        "given": sorted(settings.keys() & with_current_names(planned.settings).keys()),
    }
    results = planned.results(trainer, configuration) / f"fold_{fold}"
    record["format"] = _format(results / RECORD) if (results / RECORD).is_file() else FORMAT
    return Run(planned, configuration, split.fold(fold), results, record)


def check_results_folder(base: Path, record: dict[str, Any], model: type[TrainerConfig]) -> None:
    """Refuse a results folder in which a run with other settings, plans or split was recorded, or that is read-only."""
    existing = next((parent for parent in (base, *base.parents) if parent.exists()), base)
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise unwritable(base, OSError(None, "permission denied" if existing.is_dir() else f"{existing} is a file"))
    for file in sorted(base.glob(f"fold_*/{RECORD}")):
        other = with_defaults(read_object(file, "run record", "delete its folder"), model)
        differing = [key for key in record if key not in (*ABOUT, *OF_FOLD) and other.get(key) != record[key]]
        if differing == ["plans_hash"]:
            raise StaleRun(
                f"{file.parent} was trained with other plans of this name (plans_hash {other.get('plans_hash')}, now "
                f"{record['plans_hash']}), as they are after labels or images have changed; {REDO}"
            )
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


def with_defaults(record: dict[str, Any], model: type[TrainerConfig]) -> dict[str, Any]:
    """Return a record with all settings of ``model``, those that are newer than the record too."""
    return {**record, "settings": recorded(model, record.get("settings") or {})}


def unlabeled_to_preprocess(run: Run) -> tuple[RawDataset | None, list[str]]:
    """Return the raw dataset and which of its unlabelled cases a run on plain nnU-Net plans still has to preprocess."""
    folder, planned = run.unlabeled_folder, run.planned
    absent = [case for case in run.fold.unlabeled if not (folder / f"{case}.pkl").is_file()]
    if planned.is_bound or not (absent or has_raw(planned.dataset)):
        return None, []
    dataset = RawDataset.load(planned.dataset)
    unknown = [case for case in absent if case not in dataset.cases]
    if unknown:
        raise LimitedError(
            f"{folder.with_name('splits_final.json')} lists the unlabelled case {unknown[0]!r}, which "
            f"{dataset.folder} does not have; correct the list"
        )
    cases = [dataset.cases[case] for case in run.fold.unlabeled if case in dataset.cases]
    digests, reader = digest_cache(planned.folder / DIGESTS), dataset.reader()
    return dataset, [case.identifier for case in cases if not _has_current(folder, case, reader, digests)]


def _has_current(folder: Path, case: Case, reader: Any, digests: DigestCache) -> bool:
    """Return whether ``folder`` has an unlabelled case as its images are now; they are read only if they may differ."""
    record = CaseRecord.read(folder, case.identifier)
    if record is None:
        made = folder / f"{case.identifier}.pkl"
        return is_current(made, case.images) and is_whole(folder, case.identifier)
    if record.sources.get("image") == stamps(case.images):
        return record.fits(folder, case.identifier, closely=False)
    return why_not_current(folder, case.identifier, record_of(case, False, reader, digests)) is None


def check_unlabeled(run: Run, trainer: str) -> None:
    """Refuse a fold whose unlabelled cases are none, or neither preprocessed nor to be preprocessed at start."""
    if not run.fold.unlabeled:
        raise LimitedError(
            f"{run.results.name.replace('_', ' ')} of split {run.split.name!r} has no unlabelled case, which {trainer} "
            "needs; use LimitedSupervisedTrainer (LimitedSparseTrainer, where labels are sparse), or hide labels with "
            "'nnunet-limited split --labeled'"
        )
    if run.planned.is_bound:
        require_preprocessed(run.unlabeled_folder, run.fold.unlabeled, "unlabelled", "run 'nnunet-limited plan'")
    else:
        unlabeled_to_preprocess(run)


def preprocess_unlabeled(run: Run, log: Callable[[str], None] = lambda line: None) -> None:
    """Preprocess what is missing of the unlabelled cases for plain nnU-Net plans, from the images alone."""
    dataset, missing = unlabeled_to_preprocess(run)
    if dataset is None or not missing:
        return
    if distributed.is_available() and distributed.is_initialized():  # other processes would give up after minutes
        raise LimitedError(
            f"unlabelled cases are not preprocessed in {run.unlabeled_folder}: {len(missing)}; start once with one "
            "GPU, which preprocesses them, or use 'nnunet-limited plan'"
        )
    log(f"Preprocessing unlabelled cases into {run.unlabeled_folder}: {len(missing)}")
    for line in preprocess(run.planned.plans, run.configuration, dataset, (), missing, default_processes()):
        log(line)
