"""Start nnU-Net's training command, after everything that can be refused has been."""

import os
import sys
from datetime import datetime
from pathlib import Path

from nnunet_limited.engine import checkpoint
from nnunet_limited.engine.holding import training_alone
from nnunet_limited.engine.inputs import truth_of
from nnunet_limited.engine.run import RECORD, StaleRun
from nnunet_limited.errors import LimitedError, StaleError
from nnunet_limited.host.folders import results_folder
from nnunet_limited.runs.request import TrainRequest, find_trainer, is_ours, run_of
from nnunet_limited.util.files import read_object
from nnunet_limited.util.provenance import changes


def prepare(request: TrainRequest) -> TrainRequest:
    """Check a request and complete it for this machine; nothing is written.

    With ``redo``, though, folds that were trained with former plans of the name are moved aside.

    Raises LimitedError for an unknown dataset, trainer, fold, plans or configuration, for data that are not
    preprocessed, for a checkpoint that cannot be continued, and for what the trainer itself refuses.
    """
    _check_flags(request)
    planned = request.planned
    _ = planned.dataset_json  # which nnU-Net reads too, after it has begun to write
    trainer = find_trainer(request.trainer)
    if request.fold != "all" and not request.fold.isdecimal():
        raise LimitedError(f"fold {request.fold!r} is neither a number nor 'all'; give one of them")
    planned.configuration(request.configuration)
    checkpoint_file = _checkpoint_file(request)
    weights = request.value_of("-pretrained_weights")
    if is_ours(trainer):
        if request.redo:
            move_former_aside(request)
        run, config = run_of(request, request.fold if request.fold == "all" else int(request.fold))
        try:
            trainer.check_start(run, config, request.gpus, trains="--val" not in request.flags)
        except StaleRun:
            if not request.redo:
                raise
            checkpoint_file = None
        if checkpoint_file is not None:
            checkpoint.check(checkpoint_file, trainer, run.record)
        if weights is not None:
            checkpoint.check_weights(Path(weights), trainer, run)
    elif not planned.cases(request.configuration).labeled.is_dir():
        raise LimitedError(
            f"{planned.cases(request.configuration).labeled} does not exist, so configuration "
            f"{request.configuration!r} is not preprocessed; run 'nnunet-limited plan' with -c {request.configuration}"
        )
    return _complete(request)


def why_stale(request: TrainRequest) -> str | None:
    """Return how the data of a fold that is complete differ from those that it learned or was validated on, if so.

    None too if that cannot be known, as where its preprocessed data are gone.
    """
    trainer = find_trainer(request.trainer)
    if not is_ours(trainer):
        return None
    try:
        run, config = run_of(request, int(request.fold))
        trainer.check_start(run, config, request.gpus, trains=True)
    except StaleError as error:
        return str(error)
    except LimitedError:
        return None
    validated = run.begun.get("validated")
    changed = changes(validated["truth"], truth_of(run)) if validated else []
    return f"{run.results} was validated on another label of {changed[0]}" if changed else None


def move_aside_if_stale(request: TrainRequest) -> Path | None:
    """Move a fold that was trained on something else into ``replaced/``, if that was asked for; return where it is."""
    trainer = find_trainer(request.trainer)
    folder = request.results / f"fold_{request.fold}"
    if not (request.redo and is_ours(trainer) and folder.is_dir()):
        return None
    run, config = run_of(request, request.fold if request.fold == "all" else int(request.fold))
    try:
        trainer.check_start(run, config, request.gpus, trains=True)
    except StaleRun:
        return _move_aside(folder)
    return None


def move_former_aside(request: TrainRequest) -> None:
    """Move folds aside that were trained with plans that had this name before a label or an image was changed.

    Raises LimitedError for one that another process trains.
    """
    for file in sorted(request.results.glob(f"fold_*/{RECORD}")):
        if read_object(file, "run record", "delete its folder").get("plans_hash") != request.planned.hash:
            with training_alone(file.parent):
                _move_aside(file.parent)


def _move_aside(folder: Path) -> Path:
    target = folder.parent / "replaced" / f"{folder.name}_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    target.parent.mkdir(exist_ok=True)
    return folder.rename(target)


def _checkpoint_file(request: TrainRequest) -> Path | None:
    """Return the checkpoint that nnU-Net will load for ``--c`` or ``--val``; None for a new run."""
    fold = request.results / f"fold_{request.fold}"
    if "--val" in request.flags:
        for name in ("final", "best") if "--val_best" in request.flags else ("final",):
            if not (fold / f"checkpoint_{name}.pth").is_file():
                raise LimitedError(f"--val: {fold / f'checkpoint_{name}.pth'} does not exist; finish training with --c")
        return fold / "checkpoint_final.pth"
    found = (fold / f"checkpoint_{name}.pth" for name in ("final", "latest", "best"))
    return next((file for file in found if file.is_file()), None) if "--c" in request.flags else None


def _check_flags(request: TrainRequest) -> None:
    weights = request.value_of("-pretrained_weights")
    if weights is not None and not Path(weights).is_file():
        raise LimitedError(f"-pretrained_weights {weights} does not exist; give a checkpoint file")
    for one, other, remedy in (
        ("--c", "--val", "--val alone validates a finished run"),
        ("--val_best", "--disable_checkpointing", "remove one of them"),
        ("--c", "-pretrained_weights", "weights are for the start of a training"),
    ):
        if {one, other} <= {*request.flags}:
            raise LimitedError(f"{one} and {other} exclude each other; {remedy}")
    known = {"--c", "--val", "--npz", "--val_best", "--disable_checkpointing"}
    takes_value = {"-device", "-pretrained_weights", "-num_gpus"}
    flags = iter(request.flags)
    for flag in flags:
        if flag in takes_value:
            next(flags, None)
        elif flag not in known:
            raise LimitedError(
                f"train: unknown argument {flag!r}; nnUNetv2_train knows {', '.join(sorted(known | takes_value))}"
            )


def choose_device(device: str | None) -> str:
    """Return the ``device`` asked for, which must be there, or the best there is."""
    import torch

    if device not in (None, "cpu", "cuda", "mps"):
        raise LimitedError(f"-device {device} is unknown; use cpu, cuda or mps")
    if device == "cuda" and not torch.cuda.is_available():
        raise LimitedError(
            "-device cuda: torch sees no GPU here; use -device cpu, install torch with CUDA, or repair the driver"
        )
    return device or ("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")


def _complete(request: TrainRequest) -> TrainRequest:
    """Name the device where the user did not, and load data in the main process on a CPU, where cores are few."""
    import torch

    flags = request.flags
    device = choose_device(request.value_of("-device"))
    if request.value_of("-device") is None:
        flags = (*flags, "-device", device)
    gpus = request.gpus
    usable = torch.cuda.device_count() if device == "cuda" else 0
    if gpus > max(1, usable):
        raise LimitedError(f"-num_gpus {gpus}: torch sees {usable} GPUs for -device {device}; ask for fewer")
    if device == "cpu":
        os.environ.setdefault("nnUNet_n_proc_DA", "0")
    return request.changed(dataset=request.folder.name, flags=flags)


def run_host_training(request: TrainRequest) -> None:
    """Check the request and run nnU-Net's own entry point on it."""
    from nnunetv2.run.run_training import run_training_entry

    ready = prepare(request)
    with training_alone(ready.results / f"fold_{ready.fold}"):
        ready.write_plans()
        move_aside_if_stale(request)
    sys.argv = ["nnUNetv2_train", ready.dataset, ready.configuration, ready.fold, "-tr", ready.trainer]
    sys.argv += ["-p", ready.plans, *ready.flags]
    run_training_entry()


def train_here(dataset: str, configuration: str, fold: int, trainer: str, plans: str) -> None:
    """Train one fold to its end on the CPU in this process, from its latest checkpoint if there is one."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

    torch.set_num_threads(os.cpu_count() or 1)
    results = results_folder(dataset) / f"{trainer}__{plans}__{configuration}"
    begun = (results / f"fold_{fold}" / "checkpoint_latest.pth").is_file()
    made = get_trainer_from_args(dataset, configuration, fold, trainer, plans, begun, torch.device("cpu"))
    maybe_load_checkpoint(made, begun, False)
    made.run_training()
