"""What a training is asked for: the arguments of nnU-Net's command, and the settings that go into plans."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

import nnunet_limited.trainers as ours
from nnunet_limited.engine.run import Run
from nnunet_limited.engine.settings import parse_assignments
from nnunet_limited.engine.split_trainer import SplitTrainer
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.discovery import EXT_TRAINER, is_users, users_class
from nnunet_limited.host.folders import dataset_name, preprocessed_folder, results_folder
from nnunet_limited.planners.planned import PlannedData
from nnunet_limited.runs.variants import Variant, make_variant
from nnunet_limited.trainers.catalogue import trainer_names
from nnunet_limited.util.modules import import_failure
from nnunet_limited.util.request import Request


class TrainRequest(Request):
    """The arguments of ``nnUNetv2_train``; ``variant`` are plans with other settings, which are not written yet."""

    dataset: str = Field(description="Number or name of the dataset.")
    configuration: str = Field(description="Configuration of the plans: 2d, 3d_fullres, 3d_lowres.")
    fold: str = Field(default="0", description="Number of the fold, or all.")
    trainer: str = Field(default="LimitedMeanTeacherTrainer", description="Name of the trainer.")
    plans: str = Field(default="nnUNetPlans", description="Name of the plans.")
    flags: tuple[str, ...] = Field(default=(), description="Further flags of nnUNetv2_train.")
    variant: Variant | None = None
    redo: bool = Field(default=False, description="Whether runs on other data are moved aside and trained again.")

    @cached_property
    def folder(self) -> Path:
        """The preprocessed folder of the dataset."""
        return preprocessed_folder(dataset_name(self.dataset))

    @cached_property
    def planned(self) -> PlannedData:
        """The planned dataset; its plans are not on disk yet if the request brings settings."""
        if self.variant is not None:
            return PlannedData(self.folder, self.variant.content)
        return PlannedData.load(self.folder, self.plans)

    @property
    def results(self) -> Path:
        """The folder of the trainer's folds."""
        return results_folder(self.folder.name) / f"{self.trainer}__{self.plans}__{self.configuration}"

    def with_settings(self, assignments: Sequence[str]) -> TrainRequest:
        """Return the request with plans that carry the settings; they are written once all is checked."""
        settings = parse_assignments(assignments)
        if not settings:
            return self
        find_trainer(self.trainer)  # a trainer of the user's own brings settings of its own
        variant = make_variant(self.folder, self.plans, settings, redo=self.redo)
        return self.changed(plans=variant.name, variant=variant)

    @property
    def gpus(self) -> int:
        """The number of GPUs to train on."""
        return int(self.value_of("-num_gpus") or 1)

    def value_of(self, flag: str) -> str | None:
        """Return what follows ``flag``, if it was given."""
        if flag not in self.flags:
            return None
        position = self.flags.index(flag) + 1
        return self.flags[position] if position < len(self.flags) else None

    def write_plans(self) -> None:
        """Write the plans that carry the settings, if there are any."""
        if self.variant is not None:
            self.variant.write()


def find_trainer(name: str, flag: str = "-tr") -> Any:
    """Return the trainer class ``name``, which ``flag`` gave, as nnU-Net finds it."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    names = [*trainer_names(), *ours.ALIASES]
    if name in names:
        if (file := users_class(name)) is not None:
            raise LimitedError(
                f"{flag} {name}: {file} defines a class of this name too, but nnunet-limited trains its own; rename "
                f"the class, or remove its folder from {EXT_TRAINER}"
            )
        return getattr(ours, name)
    unknown = LimitedError(f"{flag} {name}: no such trainer; ours are {', '.join(names)}")
    if name in ours.__all__:
        raise unknown
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net prints where it searches
            return recursive_find_trainer_class_by_name(name)
    except (Exception, SystemExit) as error:  # nnU-Net imports every module in the user's folders
        if is_users(error):
            raise LimitedError(
                f"{flag} {name}: a module in {EXT_TRAINER} cannot be imported ({import_failure(error)}); correct that "
                f"file, or remove its folder from {EXT_TRAINER}"
            ) from error
        raise unknown from error


def is_ours(trainer: Any) -> bool:
    """Return whether a trainer keeps to splits and keeps a record of the labels that it learns."""
    return isinstance(trainer, type) and issubclass(trainer, SplitTrainer)


def run_of(request: TrainRequest, fold: int | str) -> tuple[Run, Any]:
    """Return a run of a trainer of ours and its resolved settings; refuse a folder that holds one of other settings."""
    found: tuple[Run, Any] = find_trainer(request.trainer).open_run(request.planned, request.configuration, fold)
    return found
