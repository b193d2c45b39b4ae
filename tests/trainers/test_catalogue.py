"""The list of trainers: complete, found by nnU-Net, and distinct from their short names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from step_time import write_cost
from typer.testing import CliRunner

from nnunet_limited import trainers
from nnunet_limited.cli.main import app
from nnunet_limited.errors import LimitedError
from nnunet_limited.runs.request import find_trainer
from nnunet_limited.trainers import ALIASES
from nnunet_limited.trainers.catalogue import COSTS, describe, learns_without_label, step_cost, trainer_names


@pytest.mark.parametrize("name", [*trainer_names(), *ALIASES])
def test_nnunet_finds_each_trainer_and_short_name(name: str) -> None:
    found = recursive_find_trainer_class_by_name(name)
    assert found is getattr(trainers, name) is find_trainer(name)
    assert found.__name__ == name  # what nnU-Net names the results folder after


def test_every_trainer_is_described() -> None:
    for name in trainer_names():
        card = describe(name)
        assert card["summary"].endswith(".")
        assert card["paper"] or name == "LimitedSupervisedTrainer"
        assert all(setting["description"] for setting in card["settings"].values())
        assert learns_without_label(name) or card["relative_time"] == card["relative_memory"] == 1
        assert card["relative_time"] is None or (card["relative_time"] > 1) == learns_without_label(name)
    assert describe("LimitedCPSTrainer")["name"] == "LimitedCrossPseudoSupervisionTrainer"


def test_costs_are_of_trainers_that_exist_and_the_benchmark_writes_them(tmp_path: Path) -> None:
    costs = json.loads(COSTS.read_text(encoding="utf-8"))
    assert set(costs) <= {name for name in trainer_names() if learns_without_label(name)}
    shutil.copy(COSTS, tmp_path / "costs.json")
    time, memory = costs["LimitedCrossPseudoSupervisionTrainer"].values()
    write_cost("LimitedCrossPseudoSupervisionTrainer", time + 0.04, memory - 0.04, tmp_path / "costs.json")
    assert (tmp_path / "costs.json").read_bytes() == COSTS.read_bytes()
    assert step_cost(trainers.LimitedCPSTrainer) == costs["LimitedCrossPseudoSupervisionTrainer"]


def test_short_names_train_the_same() -> None:
    assert ALIASES
    for alias, name in ALIASES.items():
        mine, theirs = getattr(trainers, alias), getattr(trainers, name)
        assert issubclass(mine, theirs)
        assert mine.Config is theirs.Config
        assert mine.unsupervised_loss is theirs.unsupervised_loss


def test_trainers_command() -> None:
    listed = json.loads(CliRunner().invoke(app, ["trainers", "--json"]).stdout)
    assert [card["name"] for card in listed] == trainer_names()
    shown = CliRunner().invoke(app, ["trainers", "LimitedUAMTTrainer"]).stdout
    assert "arXiv 1907.07034" in shown
    assert "stochastic_passes" in shown
    with pytest.raises(LimitedError, match="LimitedNopeTrainer: no such trainer; ours are"):
        describe("LimitedNopeTrainer")
