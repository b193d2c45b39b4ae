"""Start the host's training command, after everything that can be refused has been."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunet_limited.data.preprocessing import require
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.dataset import dataset_name, nnunet_folder
from nnunet_limited.host.files import read_json
from nnunet_limited.planners.configure import configure
from nnunet_limited.planners.plan import load_plans
from nnunet_limited.trainers.config import parse_assignments
from nnunet_limited.trainers.run import resolve_run


@dataclass(frozen=True)
class TrainRequest:
    """The arguments of ``nnUNetv2_train``; ``flags`` are all that we do not look at ourselves."""

    dataset: str
    configuration: str
    fold: str
    trainer: str
    plans: str
    flags: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Return the preprocessed folder of the dataset."""
        return nnunet_folder("nnUNet_preprocessed") / dataset_name(self.dataset)

    def with_settings(self, assignments: list[str], epochs: int | None, iterations: int | None) -> TrainRequest:
        """Return the request with plans that carry the settings, which are written on the way."""
        settings = parse_assignments(assignments)
        for key, value in (("num_epochs", epochs), ("num_iterations_per_epoch", iterations)):
            if value is not None:
                settings[key] = value
        if not settings:
            return self
        return replace(self, plans=configure(self.folder, self.plans, settings))

    def value_of(self, flag: str) -> str | None:
        """Return what follows ``flag``, if it was given."""
        if flag not in self.flags:
            return None
        position = self.flags.index(flag) + 1
        return self.flags[position] if position < len(self.flags) else None


def prepare(request: TrainRequest) -> TrainRequest:
    """Check a request and complete it for this machine; nothing is written.

    Raises LimitedError for an unknown dataset, trainer, fold, plans or configuration, for data that are not
    preprocessed, and for what the trainer itself refuses.
    """
    _check_flags(request)
    folder = request.folder
    plans = load_plans(folder, request.plans)
    read_json(folder / "dataset.json", "dataset description", "run 'nnunet-limited plan'")
    trainer = find_trainer(request.trainer)
    fold: int | str = request.fold
    if fold != "all":
        if not request.fold.isdigit():
            raise LimitedError(f"fold {request.fold!r} is neither a number nor 'all'; give one of them")
        fold = int(request.fold)
    if hasattr(trainer, "resolve_config"):
        settings = trainer.resolve_config(plans).model_dump(mode="json")
        run = resolve_run(trainer.__name__, plans, request.configuration, fold, settings)
        remedy = f"run 'nnunet-limited plan {folder.name} --split {run.split.name} -c {request.configuration}'"
        require(run.labeled_folder, {*run.fold.train, *run.fold.val}, "labelled", remedy)
        if trainer.uses_unlabeled and run.is_bound and "--val" not in request.flags:
            if not run.fold.unlabeled:
                raise LimitedError(
                    f"fold {fold} of split {run.split.name!r} has no unlabelled case, which {trainer.__name__} needs; "
                    "use LimitedSupervisedTrainer or hide labels with 'nnunet-limited split --labeled'"
                )
            require(run.unlabeled_folder, run.fold.unlabeled, "unlabelled", remedy)
        if "--val" in request.flags and not (run.results / "checkpoint_final.pth").is_file():
            raise LimitedError(
                f"--val: {run.results / 'checkpoint_final.pth'} does not exist; finish training with --c"
            )
    return _complete(request, folder)


def find_trainer(name: str) -> Any:
    """Return the trainer class ``name`` as the host finds it."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    import nnunet_limited.trainers as ours

    if name in ours.__all__:
        return getattr(ours, name)
    try:
        return recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        raise LimitedError(f"-tr {name}: no such trainer; ours are {', '.join(ours.__all__)}") from error


def _check_flags(request: TrainRequest) -> None:
    if "--c" in request.flags and "--val" in request.flags:
        raise LimitedError("--c and --val exclude each other; --val alone validates a finished run")
    device = request.value_of("-device")
    if device not in (None, "cpu", "cuda", "mps"):
        raise LimitedError(f"-device {device}: use cpu, cuda or mps")
    weights = request.value_of("-pretrained_weights")
    if weights is not None and not Path(weights).is_file():
        raise LimitedError(f"-pretrained_weights {weights} does not exist; give a checkpoint file")
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


def _complete(request: TrainRequest, folder: Path) -> TrainRequest:
    """Name the device where the user did not, and load data in the main process on a CPU, where cores are few."""
    import torch

    flags = request.flags
    device = request.value_of("-device")
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        flags = (*flags, "-device", device)
    elif device == "cuda" and not torch.cuda.is_available():
        raise LimitedError("-device cuda: torch sees no GPU here; use -device cpu, or mend the driver")
    if device == "cpu":
        os.environ.setdefault("nnUNet_n_proc_DA", "0")
    return replace(request, dataset=folder.name, flags=flags)


def run_host_training(request: TrainRequest) -> None:
    """Check the request and run the host's own entry point on it."""
    from nnunetv2.run.run_training import run_training_entry

    ready = prepare(request)
    sys.argv = ["nnUNetv2_train", ready.dataset, ready.configuration, ready.fold, "-tr", ready.trainer]
    sys.argv += ["-p", ready.plans, *ready.flags]
    run_training_entry()
