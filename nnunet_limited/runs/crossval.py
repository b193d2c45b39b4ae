"""Train the folds that are missing, resume those that were interrupted, and compare with the supervised baseline."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.datasets.description import DatasetDescription, values_of
from nnunet_limited.engine.run import RECORD
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.evaluation import mean_dice, merge_folds
from nnunet_limited.runs.launch import prepare
from nnunet_limited.runs.request import TrainRequest
from nnunet_limited.util.files import one_at_a_time, read_object, write_json

BASELINE = "LimitedSupervisedTrainer"
MEAN = "mean"


@dataclass(frozen=True)
class Scores:
    """Dice per class and fold: ``dice[class]`` has one value a fold, the mean over its cases."""

    trainer: str
    plans: str
    dice: dict[str, list[float]]

    def summary(self) -> dict[str, dict[str, float]]:
        """Return mean and standard deviation over folds of each class (0 for a single fold)."""
        spread = {name: float(np.nanstd(v, ddof=1)) if len(v) > 1 else 0.0 for name, v in self.dice.items()}
        return {name: {"mean": float(np.nanmean(v)), "sd": spread[name]} for name, v in self.dice.items()}

    def as_dict(self) -> dict[str, Any]:
        """Return the scores as ``crossval.json`` has them."""
        return {"trainer": self.trainer, "plans": self.plans, "dice": self.summary(), "dice_per_fold": self.dice}


def default_folds(request: TrainRequest) -> list[int]:
    """Return all folds of the split that the plans are bound to, or of ``splits_final.json``."""
    return list(range(len(request.planned.split.folds)))


def missing_step(folder: Path, probabilities: bool) -> tuple[str, tuple[str, ...]] | None:
    """Return what is still to be done for the fold in ``folder``, with the flags for it; None when it is complete.

    ``probabilities`` (``--npz``) of every validation case belong to it if they are asked for.
    """
    final, summary = folder / "checkpoint_final.pth", folder / "validation" / "summary.json"
    if final.is_file():
        validated = summary.is_file() and summary.stat().st_mtime >= final.stat().st_mtime
        if validated and probabilities:
            cases = read_object(summary, "validation result", "delete it")["metric_per_case"]
            validated = len(list(summary.parent.glob("*.npz"))) >= len(cases)
        return None if validated else ("validating", ("--val",))
    if any((folder / f"checkpoint_{name}.pth").is_file() for name in ("latest", "best")):
        return "resuming", ("--c",)
    return "training", ()


def train_folds(request: TrainRequest, folds: Sequence[int], log: Callable[[str], None]) -> None:
    """Complete every fold, one after the other, each in a process of its own.

    All folds are checked before the first one trains.
    """
    for flag in ("--c", "--val"):
        if flag in request.flags:
            raise LimitedError(f"crossval: {flag} is set for each fold by its checkpoints; remove it")
    base = request.results
    steps = {fold: missing_step(base / f"fold_{fold}", "--npz" in request.flags) for fold in folds}
    for fold, step in steps.items():
        prepare(request.changed(fold=str(fold), flags=_flags(request, step)))
    request.write_plans()
    for fold in folds:
        folder = base / f"fold_{fold}"
        with one_at_a_time(folder):  # another process may be at it, for which this one waits
            step = missing_step(folder, "--npz" in request.flags)
            if step is None:
                log(f"fold {fold}: complete")
                continue
            log(f"fold {fold}: {step[0]}; log in {folder}")
            command = [sys.executable, "-m", "nnunet_limited", "train", request.dataset, request.configuration]
            command += [str(fold), "-tr", request.trainer, "-p", request.plans, *_flags(request, step)]
            status = subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode
        if status:
            raise LimitedError(
                f"fold {fold} of {base.name} ended with status {status}; see its error above and the newest "
                f"training_log in {folder}, then run the command again"
            )


def _flags(request: TrainRequest, step: tuple[str, tuple[str, ...]] | None) -> tuple[str, ...]:
    """Return the flags for a step; pretrained weights are for a fold that starts."""
    if step is None or not step[1] or "-pretrained_weights" not in request.flags:
        return (*request.flags, *(step[1] if step else ()))
    position = request.flags.index("-pretrained_weights")
    return (*request.flags[:position], *request.flags[position + 2 :], *step[1])


def class_names(description: DatasetDescription) -> dict[str, str]:
    """Return the name of each class or region by the key it has in nnU-Net's ``summary.json``."""
    groups = {name: values_of(value) for name, value in description.labels.items()}
    return {str(tuple(values) if len(values) > 1 else values[0]): name for name, values in groups.items()}


def read_scores(base: Path, trainer: str, plans: str, folds: Sequence[int]) -> Scores | None:
    """Read the folds' validation results; None if one of them is missing."""
    files = [base / f"fold_{fold}" / "validation" / "summary.json" for fold in folds]
    if not all(file.is_file() for file in files):
        return None
    names = class_names(DatasetDescription(read_object(base / "dataset.json", "dataset description", "train a fold")))
    dice: dict[str, list[float]] = {}
    for file in files:
        content = read_object(file, "validation result", "validate the fold again with --val")
        classes = {names.get(key, key): values for key, values in content["mean"].items()}
        for name, values in classes.items():
            dice.setdefault(name, []).append(float("nan") if values["Dice"] is None else float(values["Dice"]))
        dice.setdefault(MEAN, []).append(mean_dice(content))
    return Scores(trainer, plans, dice)


def find_baseline(request: TrainRequest, folds: Sequence[int]) -> Scores | None:
    """Return the supervised baseline's scores: same split, plans, configuration and shared settings."""
    base = request.results
    record = base / f"fold_{folds[0]}" / RECORD
    if request.trainer == BASELINE or not record.is_file():
        return None
    mine = read_object(record, "run record", "train the fold again")
    for other in sorted(base.parent.glob(f"{BASELINE}__*__{request.configuration}")):
        file = other / f"fold_{folds[0]}" / RECORD
        if not file.is_file():
            continue
        theirs = read_object(file, "run record", "delete its folder")
        same = all(theirs.get(key) == mine.get(key) for key in ("plans_hash", "split_hash", "configuration"))
        if same and all(mine["settings"].get(key) == value for key, value in theirs["settings"].items()):
            scores = read_scores(other, BASELINE, other.name.split("__")[1], folds)
            if scores is not None:
                return scores
    return None


def crossvalidate(request: TrainRequest, folds: Sequence[int], log: Callable[[str], None]) -> dict[str, Any]:
    """Complete the folds and return, and write to ``crossval.json``, Dice per class against the baseline."""
    train_folds(request, folds, log)
    base = request.results
    scores = read_scores(base, request.trainer, request.plans, folds)
    assert scores is not None
    baseline = find_baseline(request, folds)
    merged = merge_folds(base, folds)
    result: dict[str, Any] = {
        "dataset": request.folder.name,
        **scores.as_dict(),
        "configuration": request.configuration,
        "folds": list(folds),
        "baseline": baseline and baseline.as_dict(),
        "merged": str(merged) if merged else None,
    }
    if baseline is not None:
        result["difference"] = {n: float(np.nanmean(np.subtract(v, baseline.dice[n]))) for n, v in scores.dice.items()}
    write_json(base / "crossval.json", result)
    return result
