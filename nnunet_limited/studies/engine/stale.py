"""Runs of a study whose labels or images have changed since."""

import shutil
from pathlib import Path
from typing import Any

from nnunet_limited.errors import LimitedError
from nnunet_limited.runs.launch import why_stale
from nnunet_limited.runs.request import TrainRequest
from nnunet_limited.studies.engine.folder import RECORD, StudyFolder

REPLACED = "replaced"  # the folder of runs that were moved aside


def refuse_stale_runs(folder: StudyFolder) -> None:
    """Raise LimitedError if a run has learned, or was validated on, other data than there are now."""
    for run, why in stale_runs(folder):
        raise LimitedError(f"{run.identifier}: {why}; {folder.remedy_for_stale}, or restore the file")


def stale_runs(folder: StudyFolder) -> list[tuple[Any, str]]:
    """Return the trained runs whose data have changed, each with what has."""
    found = []
    with folder.active():
        for run, _, _ in folder.states():
            if (folder.run_folder(run) / RECORD).is_file():
                reasons = (why_stale(_request(Path(model))) for model in folder.record(run)["results"])
                why = next((reason for reason in reasons if reason), None)
                found += [(run, why.split(";")[0])] if why else []
    return found


def _request(fold: Path) -> TrainRequest:
    """Return what was trained in ``results/DATASET/TRAINER__PLANS__CONFIGURATION/fold_K``."""
    trainer, plans, configuration = fold.parent.name.split("__")
    names = {"dataset": fold.parents[1].name, "configuration": configuration, "plans": plans, "trainer": trainer}
    return TrainRequest(**names, fold=fold.name.removeprefix("fold_"))


def move_stale_runs_aside(folder: StudyFolder, number: int = 1) -> list[str]:
    """Move the results of runs whose data have changed aside, so that they are trained again; return their names.

    The folds themselves are moved aside when they are trained again.
    """
    stale = [run for run, _ in stale_runs(folder)]
    while (folder.path / REPLACED / str(number)).exists():
        number += 1
    for run in stale:
        target = folder.path / REPLACED / str(number) / run.identifier
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder.run_folder(run), target)
        folder.plan_again(run)
    return [run.identifier for run in stale]


def was_moved_aside(folder: StudyFolder, run: Any) -> bool:
    """Return whether a run was moved aside before, so that its folds may be."""
    return any((folder.path / REPLACED).glob(f"*/{run.identifier}"))
