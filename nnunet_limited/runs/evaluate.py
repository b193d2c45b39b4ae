"""Compare a folder of predictions with a folder of labels, case by case and class by class."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nnunet_limited.annotations.grid import Words, check_label, check_values, turned
from nnunet_limited.datasets.description import DatasetDescription, check_description
from nnunet_limited.datasets.listing import one_file_by_case
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.images import grid_of, read_label, reader_for, refuse_no_spacing
from nnunet_limited.metrics.registry import METRICS, MaskPair, compare
from nnunet_limited.metrics.request import EvaluateRequest
from nnunet_limited.report.tables import csv_text, read_cell
from nnunet_limited.util.extras import require_extra
from nnunet_limited.util.files import read_object, replace_text
from nnunet_limited.util.parallel import run_all

DESCRIPTION = "dataset.json"
PREDICTION = Words("prediction", "its label", "give --grid-of-image")


def evaluate(request: EvaluateRequest) -> pd.DataFrame:
    """Return a row for each case that was predicted and each class.

    Its columns are ``case``, ``class`` and one for each metric; ``attrs["missing"]`` are the cases without prediction,
    which are only left out on request, and ``attrs["warnings"]`` tell of grids that are a little off. Raises
    LimitedError for a case without label, and where prediction and label do not belong together.
    """
    require_extra("study", "evaluate", "monai")
    for folder, what in ((request.predictions, "predictions"), (request.truth, "labels")):
        if not folder.is_dir():
            raise LimitedError(f"{folder} is not a folder of {what}; correct the path")
    description = find_description(request)
    content = read_object(description, "dataset description", "name another with --dataset-json")
    check_description(content, description)
    predicted, labels, missing = paired(request, content["file_ending"])
    aligned = request.grid_of_image or DatasetDescription(content).grid_of_image
    reader = reader_for(content, next(iter(labels.values())))  # as nnU-Net
    options = (reader, content, request.tolerance, request.voxels, aligned)
    tasks = [(predicted[case], labels[case], *options) for case in predicted]
    found = run_all(evaluate_case, tasks, request.processes, "evaluating")
    rows = [{"case": case, **row} for case, (rows, _) in zip(predicted, found, strict=True) for row in rows]
    made = pd.DataFrame(rows, columns=["case", "class", *METRICS])
    made.attrs |= {"missing": missing, "warnings": [warning for _, warning in found if warning]}
    return made


def paired(request: EvaluateRequest, ending: str) -> tuple[dict[str, Path], dict[str, Path], list[str]]:
    """Return the predictions and the labels by case, and the cases without prediction."""
    predicted = one_file_by_case(request.predictions, [ending], what="prediction")
    if request.allow_missing:  # other files there are no labels of predictions either
        labels = {file.name.removesuffix(ending): file for file in sorted(request.truth.glob(f"*{ending}"))}
    else:
        labels = one_file_by_case(request.truth, [ending], look=False)  # those with a prediction are read
    if not predicted:
        raise LimitedError(f"{request.predictions} holds no file *{ending}; predict into it, or correct the path")
    for case, file in predicted.items():
        if case not in labels:
            raise LimitedError(
                f"{request.truth / file.name} does not exist; add the label of {file}, or remove that prediction"
            )
    missing = sorted(set(labels) - set(predicted))
    if missing and not request.allow_missing:
        raise LimitedError(
            f"{request.predictions} has no prediction for {len(missing)} of {len(labels)} labels in {request.truth}, "
            f"e.g. {missing[0]}{ending}; predict them, or leave them out with --allow-missing"
        )
    return predicted, labels, missing


def find_description(request: EvaluateRequest) -> Path:
    """Return the dataset.json that was named, or the one beside the predictions or the labels."""
    predictions, truth = request.predictions, request.truth
    beside = (folder / DESCRIPTION for folder in (predictions, predictions.parent.parent, truth, truth.parent))
    found = request.dataset_json or next((file for file in beside if file.is_file()), None)
    if found is None:
        raise LimitedError(f"neither {predictions} nor {truth} has a {DESCRIPTION}; name it with --dataset-json")
    return found


def evaluate_case(
    predicted: Path,
    label: Path,
    reader_class: Any,
    description: dict[str, Any],
    tolerance: float,
    voxels: bool,
    aligned: bool,
) -> tuple[list[dict[str, Any]], str | None]:
    """Return the metrics of each class or region of one case, and a warning if the grids are a little off.

    Ignored voxels do not count. A prediction whose axes have another order or direction is turned; else it must lie on
    the grid of the label, unless the arrays are known to be ``aligned``.
    """
    reader, allowed = reader_class(), DatasetDescription(description).label_values
    prediction, about = read_label(reader, predicted, PREDICTION.what)
    truth, properties = read_label(reader, label)
    grid, place = grid_of(prediction.shape, about), grid_of(truth.shape, properties)
    if not aligned:
        prediction, grid = turned(prediction, grid, place)
    prediction, warning = check_label(predicted, prediction, grid, place, allowed, aligned, PREDICTION)
    truth = check_values(label, truth, allowed)
    if not voxels:
        refuse_no_spacing(label, properties, "label")
    millimetres = properties["spacing"] if place.spacing else about["spacing"]
    spacing = np.ones(truth.ndim) if voxels else np.asarray(millimetres, float)
    flat = sorted(range(truth.ndim), key=lambda axis: truth.shape[axis] == 1)  # an image of one slice is 2D
    axes = sorted(flat[: max(2, sum(size > 1 for size in truth.shape))])
    prediction, truth = (array.reshape([array.shape[axis] for axis in axes]) for array in (prediction, truth))
    ignore = DatasetDescription(description).ignore
    valid = np.ones(truth.shape, bool) if ignore is None else truth != ignore
    rows = []
    for name, values in DatasetDescription(description).classes.items():
        one, other = (np.isin(array, values) & valid for array in (prediction, truth))
        rows.append({"class": name, **compare(MaskPair(one, other, spacing[axes].tolist(), tolerance))})
    return rows, warning


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over cases of each metric (column) by class, and in the row ``mean`` that over classes.

    It is nnU-Net's ``foreground_mean``; a class that no case has is left out, where nnU-Net's mean is nan.
    """
    means = rows.groupby("class", sort=False)[list(METRICS)].mean()
    means.loc["mean"] = means.mean()
    return means


def write_rows(file: Path, rows: pd.DataFrame) -> None:
    """Write the rows as CSV."""
    replace_text(file, csv_text(rows, na_rep="nan"))


def read_rows(file: Path) -> pd.DataFrame:
    """Return the rows that :func:`write_rows` has written; cases and classes are text, whatever their names are."""
    nan = {metric: ["nan", ""] for metric in METRICS}
    rows = pd.read_csv(file, dtype={"case": str, "class": str}, keep_default_na=False, na_values=nan)
    return rows.assign(**{key: rows[key].map(read_cell) for key in ("case", "class") if key in rows})
