"""nnU-Net's own evaluation."""

import contextlib
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_limited.util.locks import one_at_a_time


def merge_folds(results: Path, folds: Sequence[int]) -> Path | None:
    """Merge the folds' validation predictions; return their folder, or None where folds share validation cases."""
    from nnunetv2.evaluation.accumulate_cv_results import accumulate_cv_results
    from nnunetv2.utilities.file_path_utilities import folds_tuple_to_string

    merged = results / f"crossval_results_folds_{folds_tuple_to_string(tuple(folds))}"
    with one_at_a_time(merged):
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                accumulate_cv_results(str(results), str(merged), list(folds))
        except RuntimeError:  # nnU-Net's word for a case that two folds predicted
            return None
    return merged


def mean_dice(summary: Mapping[str, Any]) -> float:
    """Return the mean Dice of nnU-Net's ``summary.json``: of each class over its cases, then over the classes.

    It is ``foreground_mean``, but a class that no case has is left out, where that is nan; nan without any class.
    """
    found = [values["Dice"] for key, values in summary["mean"].items() if key != "0"]
    finite = [float(value) for value in found if value is not None and math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def dice_of_files(truth: Path, predicted: Path, values: Sequence[int]) -> list[float]:
    """Return the Dice of each of the label ``values`` in an image file that SimpleITK reads."""
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    metrics = compute_metrics(str(truth), str(predicted), SimpleITKIO(), list(values))["metrics"]
    return [float(metrics[value]["Dice"]) for value in values]
