"""Runs of a study that began with other defaults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunet_limited.engine.run import RECORD
from nnunet_limited.errors import LimitedError
from nnunet_limited.studies.engine.begun import former_defaults
from nnunet_limited.studies.engine.study_file import Method
from nnunet_limited.trainers import LimitedMeanTeacherTrainer, LimitedRecipeTrainer

PLANS = {"plans_name": "nnUNetPlans_l2", "limited": {"settings": {"optimizer": "adamw"}}}
FORMER = {"start_fraction": 0.4, "optimizer": "adamw", "seed": 0}


def record(folder: Path, trainer: type, **settings: object) -> None:
    config = {**trainer.Config().model_dump(mode="json"), **settings}  # type: ignore[attr-defined]
    fold = folder / f"{trainer.__name__}__nnUNetPlans_l2_set-1__2d" / "fold_0"
    fold.mkdir(parents=True)
    (fold / RECORD).write_text(json.dumps({"settings": config}), encoding="utf-8")


def test_remaining_runs_are_like_those_that_are_there(tmp_path: Path) -> None:
    method = Method(name="mt", trainer="LimitedMeanTeacherTrainer", settings={"cutmix": True})
    other = Method(name="other", trainer="LimitedMeanTeacherTrainer", settings={"cutmix": False})
    settings = {"seed": 1, "cutmix": True}
    assert former_defaults(method, tmp_path, "2d", PLANS, settings) == {}
    record(tmp_path, LimitedMeanTeacherTrainer, **FORMER, cutmix=True)
    assert former_defaults(method, tmp_path, "2d", PLANS, settings) == {"start_fraction": 0.4}
    assert former_defaults(method, tmp_path, "2d", PLANS, {**settings, "seed": 0}) == {}, "it has its own record"
    assert former_defaults(other, tmp_path, "2d", PLANS, settings) == {}
    assert former_defaults(method, tmp_path, "3d_fullres", PLANS, settings) == {}


def test_self_training_is_not_mixed(tmp_path: Path) -> None:
    record(tmp_path, LimitedRecipeTrainer, **FORMER)
    with pytest.raises(LimitedError, match=r"'recipe' .* other defaults \(start_fraction\)"):
        former_defaults(Method(name="recipe", trainer="LimitedRecipeTrainer"), tmp_path, "2d", PLANS, {"seed": 1})
