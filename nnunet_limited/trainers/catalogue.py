"""List of the trainers, with the task, needs and cost of each."""

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import nnunet_limited.trainers as trainers
from nnunet_limited.engine.split_trainer import SplitTrainer
from nnunet_limited.errors import LimitedError

COSTS = Path(__file__).with_name("costs.json")


def trainer_names() -> list[str]:
    """Return the names of the trainers of this package, without short names and without the base, which is none."""
    base = trainers.LimitedTrainer.__name__
    return [n for n in trainers.__all__ if n.endswith("Trainer") and n != base and n not in trainers.ALIASES]


def learns_without_label(name: str) -> bool:
    """Return whether the trainer ``name`` learns from voxels without label."""
    return bool(getattr(trainers, name).uses_unlabeled)


def is_for_sparse_labels(name: str) -> bool:
    """Return whether the trainer ``name`` treats labels as sparse by default."""
    return bool(getattr(trainers, name).Config().sparse_labels)


def step_cost(trainer: type[SplitTrainer]) -> dict[str, float | None]:
    """Return time and memory of a step relative to supervised training; None for both where they are not measured.

    They are measured by ``benchmarks/step_time.py``. A subclass takes as much as its parent unless it has an entry.
    """
    measured: dict[str, dict[str, float | None]] = json.loads(COSTS.read_text(encoding="utf-8"))
    if not trainer.uses_unlabeled:
        return {"relative_time": 1.0, "relative_memory": 1.0}
    names = (cls.__name__ for cls in trainer.__mro__)
    return next(
        (measured[name] for name in names if name in measured), {"relative_time": None, "relative_memory": None}
    )


def describe(name: str) -> dict[str, Any]:
    """Return the description of a trainer; raise LimitedError if there is none of that name."""
    full = trainers.ALIASES.get(name, name)
    if full not in trainer_names():
        raise LimitedError(f"{name}: no such trainer; ours are {', '.join([*trainer_names(), *trainers.ALIASES])}")
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
        **step_cost(cls),
        "settings": {
            key: {"default": field.default, "description": field.description}
            for key, field in cls.Config.model_fields.items()
        },
    }
