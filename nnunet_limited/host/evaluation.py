"""nnU-Net's own evaluation."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path


def folds_name(folds: Sequence[int]) -> str:
    """Return the name that the host gives to several folds, e.g. ``0_1_2``."""
    from nnunetv2.utilities.file_path_utilities import folds_tuple_to_string

    return str(folds_tuple_to_string(tuple(folds)))


def merge_folds(results: Path, merged: Path, folds: Sequence[int]) -> bool:
    """Merge the folds' validation predictions into ``merged``; return False where folds share validation cases."""
    from nnunetv2.evaluation.accumulate_cv_results import accumulate_cv_results

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            accumulate_cv_results(str(results), str(merged), list(folds))
    except RuntimeError:  # the host's word for a case that two folds predicted
        return False
    return True


def dice_of_files(truth: Path, predicted: Path, values: Sequence[int]) -> list[float]:
    """Return the Dice of each of the label ``values`` in an image file that SimpleITK reads."""
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    metrics = compute_metrics(str(truth), str(predicted), SimpleITKIO(), list(values))["metrics"]
    return [float(metrics[value]["Dice"]) for value in values]
