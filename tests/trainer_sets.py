"""Which trainers there are, what each can do, and which of them are tried on what.

A new trainer joins by being in its folder of ``nnunet_limited.trainers``. What trainers share is tried with one for
each *capability*, on all kinds of data; each other trainer takes its turn with two kinds, whichever its name gives.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from nnunet_limited import trainers
from nnunet_limited.trainers.catalogue import is_for_sparse_labels, learns_without_label, trainer_names

TRAINERS = trainer_names()
SEMI_SUPERVISED = [name for name in TRAINERS if learns_without_label(name)]
TRAINERS_OF_THE_BASE = ["LimitedSupervisedTrainer", "LimitedMeanTeacherTrainer"]
TEACHERS = [name for name in TRAINERS if getattr(trainers, name).predictor_name == "teacher"]
# What a method overrides without touching which data it trains on; whatever else it overrides counts as a data hook.
NO_DATA_HOOKS = {
    "Config", "_build_loss", "after_step", "make_partner_optimizer", "make_partners", "mixes_crops",
    "perturbs_features", "predictor_name", "runs_on_several_gpus",
    "strong_views", "supervised_partners", "train_step", "unsuitable", "unsupervised_loss", "uses_unlabeled",
}  # fmt: skip


def data_hooks(name: str) -> list[str]:
    """Return ``Class.hook`` for each method of the base that decides on the data and that a trainer has of its own."""
    own = [cls for cls in getattr(trainers, name).__mro__ if cls.__module__.startswith(f"{trainers.__name__}.")]
    base = set(dir(trainers.LimitedTrainer))
    return [
        f"{cls.__name__}.{hook}"
        for cls in own
        for hook in sorted(vars(cls).keys() & base - NO_DATA_HOOKS)
        if not hook.startswith("__")
    ]


def capabilities(name: str) -> set[str]:
    """Return what a trainer can do that others cannot, as its class says."""
    cls = getattr(trainers, name)
    found = {
        "teacher": cls.predictor_name == "teacher",
        "second network": bool(getattr(cls, "supervised_partners", ())),
        "perturbed features": getattr(cls, "perturbs_features", False),
        "mixing": getattr(cls, "mixes_crops", False) or getattr(cls.Config(), "cutmix", False),
        "several views": getattr(cls, "strong_views", 1) > 1,
        "one GPU": not cls.runs_on_several_gpus,
        "sparse labels": is_for_sparse_labels(name),
    }
    return {key for key, has in found.items() if has} | set(data_hooks(name))


def representatives(names: Sequence[str]) -> list[str]:
    """Return few trainers that can together do all that ``names`` can: those with most that is new, first by name."""
    left, chosen = set().union(*map(capabilities, names)), list(TRAINERS_OF_THE_BASE)
    left -= set().union(*map(capabilities, chosen))
    while left:
        chosen.append(max(sorted(names), key=lambda name: len(capabilities(name) & left)))
        left -= capabilities(chosen[-1])
    return chosen


REPRESENTATIVES = representatives(TRAINERS)


def turn(name: str, kinds: Sequence[Any], count: int) -> list[Any]:
    """Return the ``count`` of ``kinds`` whose turn it is with a trainer, the same whatever other trainers there are."""
    start = zlib.crc32(name.encode())
    return [kinds[(start + index) % len(kinds)] for index in range(count)]


def combinations(names: Iterable[str], kinds: Sequence[Any], count: int) -> list[Any]:
    """Return parameters (trainer, kind): of representatives all, of others ``count``, and the rest marked ``full``."""
    made = []
    for name in names:
        now = kinds if name in REPRESENTATIVES else turn(name, kinds, count)
        for kind in kinds:
            values = (name, *kind) if isinstance(kind, tuple) else (name, kind)
            made.append(pytest.param(*values, marks=() if kind in now else pytest.mark.full))
    return made


def few(names: Iterable[str]) -> list[Any]:
    """Return trainers as parameters, all but the representatives marked ``full``."""
    return [pytest.param(name, marks=() if name in REPRESENTATIVES else pytest.mark.full) for name in names]
