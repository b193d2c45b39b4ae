"""What a training is asked for: the arguments of nnU-Net's command, and the settings that go into plans."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nnunet_limited.trainers as ours
from nnunet_limited.engine.settings import parse_assignments
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import dataset_name, nnunet_folder
from nnunet_limited.planners.plan import load_plans
from nnunet_limited.runs.variants import Variant, make_variant
from nnunet_limited.trainers.catalogue import trainer_names
from nnunet_limited.util.files import read_object


@dataclass(frozen=True)
class TrainRequest:
    """The arguments of ``nnUNetv2_train``; ``flags`` are all that we do not look at ourselves."""

    dataset: str
    configuration: str
    fold: str
    trainer: str
    plans: str
    flags: tuple[str, ...] = ()
    variant: Variant | None = None

    @property
    def folder(self) -> Path:
        """Return the preprocessed folder of the dataset."""
        return nnunet_folder("nnUNet_preprocessed") / dataset_name(self.dataset)

    @property
    def results(self) -> Path:
        """Return the folder of the trainer's folds."""
        name = f"{self.trainer}__{self.plans}__{self.configuration}"
        return nnunet_folder("nnUNet_results") / self.folder.name / name

    def load_plans(self) -> dict[str, Any]:
        """Return the plans, which are not on disk yet if the request brings settings."""
        return self.variant.content if self.variant else load_plans(self.folder, self.plans)

    def dataset_json(self) -> dict[str, Any]:
        """Return the description of the preprocessed dataset."""
        return read_object(self.folder / "dataset.json", "dataset description", "run 'nnunet-limited plan'")

    def with_settings(self, assignments: list[str], epochs: int | None, iterations: int | None) -> TrainRequest:
        """Return the request with plans that carry the settings; they are written once all is checked."""
        settings = parse_assignments(assignments)
        for key, value in (("num_epochs", epochs), ("num_iterations_per_epoch", iterations)):
            if value is not None:
                settings[key] = value
        if not settings:
            return self
        find_trainer(self.trainer)  # a trainer of the user's own brings settings of its own
        variant = make_variant(self.folder, self.plans, settings)
        return replace(self, plans=variant.name, variant=variant)

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
    """Return the trainer class ``name``, which ``flag`` gave, as the host finds it."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    names = trainer_names()
    if name in [*names, *ours.ALIASES]:
        return getattr(ours, name)
    unknown = LimitedError(f"{flag} {name}: no such trainer; ours are {', '.join(names)}")
    if name in ours.__all__:
        raise unknown
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the host tells where it searches
            return recursive_find_trainer_class_by_name(name)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise unknown from error
