"""Train the folds that are missing, resume those that were interrupted, and compare with the supervised baseline."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nnunet_limited.errors import LimitedError
from nnunet_limited.host.evaluation import merge_folds
from nnunet_limited.runs.launch import prepare
from nnunet_limited.runs.request import TrainRequest
from nnunet_limited.runs.scores import (
    DICE,
    can_measure_distances,
    find_baseline,
    read_scores,
    worse_in_most_folds,
)
from nnunet_limited.util.files import one_at_a_time, read_object, write_json


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


def crossvalidate(
    request: TrainRequest, folds: Sequence[int], log: Callable[[str], None], dice_only: bool = False
) -> dict[str, Any]:
    """Complete the folds and return, and write to ``crossval.json``, the metrics per class against the baseline.

    They are Dice and, unless ``dice_only``, HD95 and NSD, where MONAI is installed to measure them.
    """
    train_folds(request, folds, log)
    base = request.results
    distances = not dice_only and can_measure_distances()
    if not dice_only and not distances:
        log("HD95 and NSD are not measured; they need pip install 'nnunet-limited[study]'")
    scores = read_scores(request, base, folds, distances)
    assert scores is not None
    baseline = find_baseline(request, folds, distances)
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
        difference = scores.differences(baseline)
        result["difference"] = difference.pop(DICE)
        result |= {f"{metric}_difference": values for metric, values in difference.items()}
        result["setbacks"] = worse_in_most_folds(scores, baseline)
    write_json(base / "crossval.json", result)
    return result
