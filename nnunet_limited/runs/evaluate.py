"""Compare a folder of predictions with a folder of labels, case by case and class by class."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nnunet_limited.datasets.description import DatasetDescription, check_description
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.images import reader_for
from nnunet_limited.metrics.registry import METRICS, MaskPair, compare
from nnunet_limited.metrics.request import EvaluateRequest
from nnunet_limited.util.extras import require_extra
from nnunet_limited.util.files import read_object, replace_text
from nnunet_limited.util.parallel import run_all

DESCRIPTION = "dataset.json"


def evaluate(request: EvaluateRequest) -> pd.DataFrame:
    """Return a row for each case that was predicted and each class.

    Its columns are ``case``, ``class`` and one for each metric. Raises LimitedError for a case without label, and where
    prediction and label have different shapes.
    """
    require_extra("study", "evaluate", "monai")
    for folder, what in ((request.predictions, "predictions"), (request.truth, "labels")):
        if not folder.is_dir():
            raise LimitedError(f"{folder} is not a folder of {what}; correct the path")
    description = find_description(request)
    content = read_object(description, "dataset description", "name another with --dataset-json")
    check_description(content, description)
    ending = content["file_ending"]
    labels = {file: request.truth / file.name for file in sorted(request.predictions.glob(f"*{ending}"))}
    if not labels:
        raise LimitedError(f"{request.predictions} holds no file *{ending}; predict into it, or correct the path")
    for file, label in labels.items():
        if not label.is_file():
            raise LimitedError(f"{label} does not exist; add the label of {file}, or remove that prediction")
    tasks = [(*pair, content, request.tolerance, request.voxels) for pair in labels.items()]
    found = run_all(evaluate_case, tasks, request.processes, "evaluating")
    cases = (file.name.removesuffix(ending) for file in labels)
    rows = [{"case": case, **row} for case, rows in zip(cases, found, strict=True) for row in rows]
    return pd.DataFrame(rows, columns=["case", "class", *METRICS])


def find_description(request: EvaluateRequest) -> Path:
    """Return the dataset.json that was named, or the one beside the predictions or the labels."""
    predictions, truth = request.predictions, request.truth
    beside = (folder / DESCRIPTION for folder in (predictions, predictions.parent.parent, truth, truth.parent))
    found = request.dataset_json or next((file for file in beside if file.is_file()), None)
    if found is None:
        raise LimitedError(f"neither {predictions} nor {truth} has a {DESCRIPTION}; name it with --dataset-json")
    return found


def evaluate_case(
    predicted: Path, label: Path, description: dict[str, Any], tolerance: float, voxels: bool
) -> list[dict[str, Any]]:
    """Return the metrics of each class or region of one case; ignored voxels do not count."""
    reader = reader_for(description, predicted)()
    (prediction, _), (truth, properties) = (reader.read_seg(str(file)) for file in (predicted, label))
    if prediction.shape != truth.shape:
        shapes = f"{predicted} has shape {prediction.shape[1:]}, {label} {truth.shape[1:]}"
        raise LimitedError(f"{shapes}; check that both belong to one image, or predict it again")
    spacing = np.ones(truth.ndim - 1) if voxels else np.asarray(properties["spacing"], float)
    axes = [axis for axis, size in enumerate(truth.shape[1:]) if size > 1]  # an image of one slice is 2D
    prediction, truth = (array.reshape([array.shape[1 + axis] for axis in axes]) for array in (prediction, truth))
    ignore = DatasetDescription(description).ignore
    valid = np.ones(truth.shape, bool) if ignore is None else truth != ignore
    rows = []
    for name, values in DatasetDescription(description).classes.items():
        one, other = (np.isin(array, values) & valid for array in (prediction, truth))
        rows.append({"class": name, **compare(MaskPair(one, other, spacing[axes].tolist(), tolerance))})
    return rows


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over cases of each metric (column) by class, and in the row ``mean`` that over classes.

    It is nnU-Net's ``foreground_mean``; a class that no case has is left out, where nnU-Net's mean is nan.
    """
    means = rows.groupby("class", sort=False)[list(METRICS)].mean()
    means.loc["mean"] = means.mean()
    return means


def write_rows(file: Path, rows: pd.DataFrame) -> None:
    """Write the rows as CSV."""
    replace_text(file, rows.to_csv(index=False, na_rep="nan"))
