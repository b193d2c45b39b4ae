"""Compare a folder of predictions with a folder of labels, case by case and class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.datasets.raw import check_description, reader_for
from nnunet_limited.errors import LimitedError
from nnunet_limited.metrics.metrics import METRICS, metrics
from nnunet_limited.util.extras import need
from nnunet_limited.util.files import read_object, replacing
from nnunet_limited.util.parallel import run_all

DESCRIPTION = "dataset.json"
COLUMNS = ("case", "class", *METRICS)


@dataclass(frozen=True)
class EvaluateRequest:
    """What is compared; ``tolerance`` is that of the surface Dice, in mm, or in voxels with ``voxels``."""

    predictions: Path
    truth: Path
    description: Path | None = None
    tolerance: float = 1.0
    voxels: bool = False
    processes: int = 1


def evaluate(request: EvaluateRequest, cases: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Return a row for each case and class (see :data:`COLUMNS`) of ``cases``, by default all that were predicted.

    Raises LimitedError for a case without prediction or label, and where the two are on different grids.
    """
    need("study", "evaluate", "monai")
    for folder, what in ((request.predictions, "predictions"), (request.truth, "labels")):
        if not folder.is_dir():
            raise LimitedError(f"{folder} is not a folder of {what}; correct the path")
    description = find_description(request)
    content = read_object(description, "dataset description", "name another with --dataset-json")
    check_description(content, description)
    ending = content["file_ending"]
    predicted = {file.name.removesuffix(ending): file for file in sorted(request.predictions.glob(f"*{ending}"))}
    chosen = list(cases) if cases is not None else list(predicted)
    if not chosen:
        raise LimitedError(f"{request.predictions} holds no file *{ending}; predict into it, or correct the path")
    tasks = []
    for case in chosen:
        label = request.truth / f"{case}{ending}"
        if case not in predicted:
            raise LimitedError(f"{request.predictions / (case + ending)} does not exist; predict that case too")
        if not label.is_file():
            raise LimitedError(f"{label} does not exist; give the label of {predicted[case]}, or take that file away")
        tasks.append((predicted[case], label, content, request.tolerance, request.voxels))
    found = run_all(evaluate_case, tasks, request.processes, "evaluating")
    return [{"case": case, **row} for case, rows in zip(chosen, found, strict=True) for row in rows]


def find_description(request: EvaluateRequest) -> Path:
    """Return the dataset.json that was named, or the one beside the predictions or the labels."""
    if request.description is not None:
        return request.description
    beside = [folder / DESCRIPTION for folder in (request.predictions, request.predictions.parent.parent)]
    beside += [folder / DESCRIPTION for folder in (request.truth, request.truth.parent)]
    for file in beside:
        if file.is_file():
            return file
    raise LimitedError(
        f"neither {request.predictions} nor {request.truth} has a {DESCRIPTION}; name it with --dataset-json"
    )


def evaluate_case(
    predicted: Path, label: Path, description: dict[str, Any], tolerance: float, voxels: bool
) -> list[dict[str, Any]]:
    """Return a row for each class or region of one case; ignored voxels do not count."""
    reader = reader_for(description, predicted)()
    (prediction, _), (truth, properties) = (reader.read_seg(str(file)) for file in (predicted, label))
    if prediction.shape != truth.shape:
        raise LimitedError(
            f"{predicted} has shape {prediction.shape[1:]}, {label} {truth.shape[1:]}; predict the image of that label"
        )
    spacing = np.ones(truth.ndim - 1) if voxels else np.asarray(properties["spacing"], float)
    kept = [axis for axis, size in enumerate(truth.shape[1:]) if size > 1]  # an image of one slice is 2D
    prediction, truth = (array.reshape([array.shape[1 + axis] for axis in kept]) for array in (prediction, truth))
    labels = dict(description["labels"])
    counted = truth != labels.pop("ignore", -1)
    rows = []
    for name, value in labels.items():
        values = [int(v) for v in (value if isinstance(value, (list, tuple)) else [value])]
        if name != "background":
            one, other = (np.isin(array, values) & counted for array in (prediction, truth))
            rows.append({"class": name, **metrics(one, other, spacing[kept].tolist(), tolerance)})
    return rows


def summarise(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the mean over cases of each metric and class, and as ``mean`` that over classes, as nnU-Net does."""
    names = list(dict.fromkeys(row["class"] for row in rows))
    means = {
        name: {metric: _mean([row[metric] for row in rows if row["class"] == name]) for metric in METRICS}
        for name in names
    }
    return {**means, "mean": {metric: _mean([means[name][metric] for name in names]) for metric in METRICS}}


def _mean(values: Sequence[float]) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def write_rows(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the rows as CSV."""
    import csv

    with replacing(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
