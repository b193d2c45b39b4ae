"""What trainers there are, and what each does, needs and costs."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import nnunet_limited.trainers as trainers
from nnunet_limited.errors import LimitedError


def trainer_names() -> list[str]:
    """Return the names of the trainers of this package, without short names and without the base, which is none."""
    base = trainers.LimitedTrainer.__name__
    return [n for n in trainers.__all__ if n.endswith("Trainer") and n != base and n not in trainers.ALIASES]


def learns_without_label(name: str) -> bool:
    """Tell whether the trainer ``name`` learns from voxels without label."""
    return bool(getattr(trainers, name).uses_unlabeled)


def is_for_sparse_labels(name: str) -> bool:
    """Tell whether the trainer ``name`` takes labels for sparse unless told otherwise."""
    return bool(getattr(trainers, name).Config().sparse_labels)


def describe(name: str) -> dict[str, Any]:
    """Return what there is to say of a trainer; raise LimitedError if there is none of that name."""
    full = trainers.ALIASES.get(name, name)
    if full not in trainer_names():
        raise LimitedError(f"{name}: no such trainer; there are {', '.join([*trainer_names(), *trainers.ALIASES])}")
    cls = getattr(trainers, full)
    summary, _, details = inspect.getdoc(cls).partition("\n\n")  # type: ignore[union-attr]
    paper = (sys.modules[cls.__module__].__doc__ or "").splitlines()[0]
    return {
        "name": full,
        "short_name": next((alias for alias, of in trainers.ALIASES.items() if of == full), None),
        "summary": " ".join(summary.split()),
        "details": " ".join(details.split()),
        "paper": paper if "(" in paper else None,
        "predicts_with": cls.predictor_name,
        "several_gpus": cls.runs_on_several_gpus,
        "relative_time": cls.relative_time,
        "relative_memory": cls.relative_memory,
        "settings": {
            key: {"default": field.default, "description": field.description}
            for key, field in cls.Config.model_fields.items()
        },
    }
