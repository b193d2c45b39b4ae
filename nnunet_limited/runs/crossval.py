"""Train the folds that are missing, resume those that were interrupted, and compare with the supervised baseline."""

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nnunet_limited.engine.holding import training_alone
from nnunet_limited.engine.inputs import truth_files, truth_of
from nnunet_limited.engine.run import FINAL, RECORD
from nnunet_limited.engine.starting_weights import FLAG, check_weights_are_those, given_weights
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.evaluation import merge_folds
from nnunet_limited.runs.launch import move_aside_if_stale, move_former_aside, prepare
from nnunet_limited.runs.request import TrainRequest, find_trainer, is_ours, run_of
from nnunet_limited.runs.scores import (
    DICE,
    can_measure_distances,
    find_baseline,
    read_scores,
    worse_in_most_folds,
)
from nnunet_limited.util.children import tied
from nnunet_limited.util.files import file_hash, read_object, write_json
from nnunet_limited.util.locks import one_at_a_time
from nnunet_limited.util.processes import python_module
from nnunet_limited.util.provenance import read_record, stamp


def default_folds(request: TrainRequest) -> list[int]:
    """Return all folds of the split that the plans are bound to, or of ``splits_final.json``."""
    return list(range(len(request.planned.split.folds)))


def missing_step(
    folder: Path, probabilities: bool, truth: dict[str, str] | None = None
) -> tuple[str, tuple[str, ...]] | None:
    """Return what is still to be done for the fold in ``folder``, with the flags for it; None when it is complete.

    ``probabilities`` (``--npz``) of every validation case belong to it if they are asked for. ``truth`` has the digests
    of the labels to validate on; None for trainers that record none.
    """
    final, summary = folder / "checkpoint_final.pth", folder / "validation" / "summary.json"
    if final.is_file():
        validated = summary.is_file() and _is_validation_of(final, summary, truth)
        if validated and probabilities:
            cases = read_object(summary, "validation result", "delete it")["metric_per_case"]
            validated = len(list(summary.parent.glob("*.npz"))) >= len(cases)
        return None if validated else ("validating", ("--val",))
    if any((folder / f"checkpoint_{name}.pth").is_file() for name in ("latest", "best")):
        return "resuming", ("--c",)
    return "training", ()


def _is_validation_of(final: Path, summary: Path, truth: dict[str, str] | None) -> bool:
    """Return whether the validation is that of the final checkpoint and, where they are recorded, of these labels."""
    about = (read_record(final.with_name(RECORD)) or {}).get("validated")
    if about is None:
        return summary.stat().st_mtime >= final.stat().st_mtime
    written, digest = about["checkpoint"]
    same = stamp(final) == written or file_hash(final) == digest
    return same and (truth is None or truth == about["truth"])


def train_folds(request: TrainRequest, folds: Sequence[int], log: Callable[[str], None]) -> None:
    """Complete every fold, one after the other, each in a process of its own.

    All folds are checked before the first one trains.
    """
    for flag in ("--c", "--val"):
        if flag in request.flags:
            raise LimitedError(f"crossval: {flag} is set for each fold by its checkpoints; remove it")
    base = request.results
    if request.redo:
        move_former_aside(request)
    for fold in folds:
        prepare(_of_fold(request, fold, _step(request, fold)))
    request.write_plans()
    for fold in folds:
        folder = base / f"fold_{fold}"
        with one_at_a_time(folder):  # another process may be at it, for which this one waits
            with training_alone(folder, wait=True):  # or nnU-Net's command; the process that trains takes the lock
                if moved := move_aside_if_stale(_of_fold(request, fold, None)):
                    log(f"fold {fold}: trained on other data; moved to {moved}")
                step = _step(request, fold)
            if step is None:
                log(f"fold {fold}: complete")
                continue
            log(f"fold {fold}: {step[0]}; log in {folder}")
            command = [*python_module("nnunet_limited"), "train", request.dataset, request.configuration]
            command += [str(fold), "-tr", request.trainer, "-p", request.plans, *_of_fold(request, fold, step).flags]
            status = subprocess.run(tied(command), stdout=subprocess.DEVNULL, check=False).returncode
        if status:
            raise LimitedError(
                f"fold {fold} of {base.name} ended with status {status}; see its error above and the newest "
                f"training_log in {folder}, then run the command again"
            )


def _step(request: TrainRequest, fold: int) -> tuple[str, tuple[str, ...]] | None:
    """Return what is still to be done for a fold, as :func:`missing_step`; refuse one that began with other weights."""
    folder, truth = request.results / f"fold_{fold}", None
    if is_ours(find_trainer(request.trainer)):
        run, _ = run_of(request, fold)
        check_weights_are_those(run, given_weights(_of_fold(request, fold, None).flags))
        if (folder / FINAL).is_file() and all(file.is_file() for file in truth_files(run).values()):
            truth = truth_of(run)
    return missing_step(folder, "--npz" in request.flags, truth)


def _of_fold(request: TrainRequest, fold: int, step: tuple[str, tuple[str, ...]] | None) -> TrainRequest:
    """Return the request for one fold and step; pretrained weights are for a fold that starts."""
    flags, further = list(request.flags), step[1] if step else ()
    if FLAG in flags:
        position = flags.index(FLAG)
        if further:
            del flags[position : position + 2]
        else:
            flags[position + 1] = flags[position + 1].replace("{fold}", str(fold))
    return request.changed(fold=str(fold), flags=(*flags, *further))


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
