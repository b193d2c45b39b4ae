"""The scores of validated folds: Dice as nnU-Net has written it, and distances, which it does not measure."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nnunet_limited.datasets.description import DatasetDescription, values_of
from nnunet_limited.engine.run import RECORD
from nnunet_limited.host.evaluation import mean_dice
from nnunet_limited.metrics.registry import METRICS, SAFEGUARDS
from nnunet_limited.metrics.request import EvaluateRequest
from nnunet_limited.runs.evaluate import evaluate, read_rows, summarise, write_rows
from nnunet_limited.runs.request import TrainRequest
from nnunet_limited.util.files import is_current, read_object

BASELINE = "LimitedSupervisedTrainer"
MEAN = "mean"
DICE = "dice"
ByFold = dict[str, list[float]]


@dataclass(frozen=True)
class Scores:
    """Metrics per class and fold: ``values[metric][class]`` has one value a fold, the mean over its cases."""

    trainer: str
    plans: str
    values: dict[str, dict[str, list[float]]]

    def summary(self, metric: str = DICE) -> dict[str, dict[str, float]]:
        """Return mean and standard deviation over folds of each class (0 for a single fold)."""
        return {name: {"mean": _mean(v), "sd": _spread(v)} for name, v in self.values[metric].items()}

    def as_dict(self) -> dict[str, Any]:
        """Return the scores as ``crossval.json`` has them."""
        per_fold = {f"{metric}_per_fold": values for metric, values in self.values.items()}
        return {"trainer": self.trainer, "plans": self.plans, **{m: self.summary(m) for m in self.values}, **per_fold}

    def differences(self, other: "Scores") -> dict[str, dict[str, float]]:
        """Return the mean over folds of what each metric is more than that of ``other``, class by class."""
        return {
            metric: {name: _mean(np.subtract(v, other.values[metric][name])) for name, v in values.items()}
            for metric, values in self.values.items()
            if metric in other.values
        }


def _mean(values: Sequence[float] | np.ndarray) -> float:
    found = np.asarray(values, float)
    found = found[~np.isnan(found)]
    return float(found.mean()) if len(found) else float("nan")


def _spread(values: Sequence[float]) -> float:
    found = [value for value in values if not np.isnan(value)]
    return float(np.std(found, ddof=1)) if len(found) > 1 else 0.0


def can_measure_distances() -> bool:
    """Return whether the library that measures surface distances is installed."""
    return importlib.util.find_spec("monai") is not None


def class_names(description: DatasetDescription) -> dict[str, str]:
    """Return the name of each class or region by the key it has in nnU-Net's ``summary.json``."""
    groups = {name: values_of(value) for name, value in description.labels.items()}
    return {str(tuple(values) if len(values) > 1 else values[0]): name for name, values in groups.items()}


def read_scores(request: TrainRequest, base: Path, folds: Sequence[int], distances: bool) -> Scores | None:
    """Return the scores of the folds in ``base``; None if the validation of one is missing.

    ``distances`` are measured where they have not been before, and stored beside the predictions.
    """
    folders = [base / f"fold_{fold}" / "validation" for fold in folds]
    if not all((folder / "summary.json").is_file() for folder in folders):
        return None
    description = read_object(base / "dataset.json", "dataset description", "train a fold")
    names = class_names(DatasetDescription(description))
    values: dict[str, ByFold] = {DICE: {}, **({name: {} for name in SAFEGUARDS} if distances else {})}
    for folder in folders:
        content = read_object(folder / "summary.json", "validation result", "validate the fold again with --val")
        for key, scores in content["mean"].items():
            dice = float("nan") if scores["Dice"] is None else float(scores["Dice"])
            values[DICE].setdefault(names.get(key, key), []).append(dice)
        values[DICE].setdefault(MEAN, []).append(mean_dice(content))
        if distances:
            measured = _measured(folder, request.folder / "gt_segmentations", base / "dataset.json")
            for metric in SAFEGUARDS:
                for name in values[DICE]:
                    values[metric].setdefault(name, []).append(float(measured[metric][name]))
    trainer, plans, _ = base.name.split("__")
    return Scores(trainer, plans, values)


def _measured(predictions: Path, truth: Path, description: Path) -> pd.DataFrame:
    """Return the mean of each metric (column) for each class and their mean (row) of one fold's validation cases."""
    file = predictions / "metrics.csv"
    if not is_current(file, [predictions / "summary.json"]):
        folders = {"predictions": predictions, "truth": truth, "dataset_json": description}
        write_rows(file, evaluate(EvaluateRequest(**folders, allow_missing=True)))  # the truth is that of all folds
    return summarise(read_rows(file))


def find_baseline(request: TrainRequest, folds: Sequence[int], distances: bool) -> Scores | None:
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
            scores = read_scores(request, other, folds, distances)
            if scores is not None:
                return scores
    return None


def worse_in_most_folds(scores: Scores, baseline: Scores) -> list[str]:
    """Return in words which distances are worse than the baseline's in most folds, in the mean over classes."""
    found = []
    for name in SAFEGUARDS:
        if name in scores.values and name in baseline.values:
            gains = np.subtract(scores.values[name][MEAN], baseline.values[name][MEAN])
            worse = int(np.sum(gains < 0 if METRICS[name].higher_is_better else gains > 0))
            if 2 * worse > len(gains):
                found.append(f"{METRICS[name].title} is worse in {worse} of {len(gains)}")
    return found
