"""A run that was stopped and resumed equals one that never was; a run can be repeated to the bit."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import helpers
import numpy as np
import pytest
import torch
from contract_runs import assert_complete, run, settings_for
from helpers import Workspace, assert_same, losses
from trainer_sets import REPRESENTATIVES, TRAINERS, TRAINERS_OF_THE_BASE

from nnunet_limited.engine.checkpoint import KEY
from nnunet_limited.errors import LimitedError

LENGTH = {"num_epochs": 3, "save_every": 1, "start_fraction": 0.25, "rampup_fraction": 0.5}

pytestmark = pytest.mark.slow


class Stopped(Exception):
    pass


def copied_and_resumed(
    workspace: Workspace, trainer: str, monkeypatch: pytest.MonkeyPatch, name: str, **settings: Any
) -> tuple[Any, Any]:
    """Return a whole run, and one that was resumed from what the first had written before its third epoch."""
    workspace.activate("whole")
    plans = workspace.configure(name, **settings_for(**settings))
    whole = workspace.trainer(trainer, plans)
    begin, output = whole.on_epoch_start, Path(whole.output_folder)
    folder = workspace.root / "stopped" / output.relative_to(workspace.root / "whole")
    initial = []

    def copy_at_two() -> None:
        if whole.current_epoch == 0:
            initial.append(copy.deepcopy({name: network.state_dict() for name, network in whole.networks.items()}))
        if whole.current_epoch == 2:
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(output, folder)
        begin()

    monkeypatch.setattr(whole, "on_epoch_start", copy_at_two)
    whole.run_training()
    assert_complete(whole)
    workspace.activate("fresh")
    fresh = workspace.trainer(trainer, plans)
    fresh.initialize()
    assert_same({name: network.state_dict() for name, network in fresh.networks.items()}, initial[0])
    torch.rand(5), np.random.rand(5)
    workspace.activate("stopped")
    second = workspace.trainer(trainer, plans, resume=True)
    assert second.current_epoch == 2
    second.run_training()
    return whole, second


def assert_resumed(
    workspace: Workspace, trainer: str, monkeypatch: pytest.MonkeyPatch, name: str = "resume", **settings: Any
) -> None:
    whole, second = copied_and_resumed(workspace, trainer, monkeypatch, name, **settings)
    logs = [t.logger.local_logger.my_fantastic_logging for t in (second, whole)]
    for key in logs[0].keys() - {"epoch_start_timestamps", "epoch_end_timestamps"}:
        np.testing.assert_allclose(logs[0][key], logs[1][key], *helpers.TOLERANCES, err_msg=key)
    assert second.iteration == whole.iteration
    files = [Path(t.output_folder) / "checkpoint_final.pth" for t in (second, whole)]
    a, b = (torch.load(file, weights_only=False) for file in files)
    assert_same(a["network_weights"], b["network_weights"])
    assert_same(a["optimizer_state"], b["optimizer_state"])
    assert_same(a[KEY]["networks"], b[KEY]["networks"])
    for part in ("random_state", "streams", "optimizers", "buffers"):
        assert_same(a[KEY][part], b[KEY][part])
    assert a["_best_ema"] == pytest.approx(b["_best_ema"], *helpers.TOLERANCES)


@pytest.mark.parametrize(
    ("trainer", "variant"),
    [
        *((trainer, "2d") for trainer in TRAINERS),
        *((trainer, variant) for trainer in REPRESENTATIVES for variant in ("3d", "regions")),
    ],
)
def test_resumed_equals_never_stopped(workspaces, monkeypatch, trainer: str, variant: str) -> None:
    assert_resumed(workspaces(variant), trainer, monkeypatch, **LENGTH)


@pytest.mark.parametrize("trainer", ["LimitedMeanTeacherTrainer"])
def test_resumed_equals_never_stopped_with_hidden_labels_logged(untouched, monkeypatch, trainer: str) -> None:
    assert_resumed(untouched("2d"), trainer, monkeypatch, **LENGTH, log_pseudo_label_dice=True)


@pytest.mark.parametrize("trainer", TRAINERS_OF_THE_BASE)
def test_resumed_equals_never_stopped_in_bfloat16(workspaces, monkeypatch, trainer: str) -> None:
    assert_resumed(workspaces("2d"), trainer, monkeypatch, "bfloat16", **LENGTH, cpu_autocast=True)


@pytest.mark.parametrize("trainer", TRAINERS_OF_THE_BASE)  # that a run can be repeated is in the test above for all
def test_same_seed_same_run(workspaces, trainer: str) -> None:
    first = losses(run(workspaces("2d").activate("seed_a"), trainer, "seeded"))
    assert losses(run(workspaces("2d").activate("seed_b"), trainer, "seeded")) == first
    assert losses(run(workspaces("2d").activate("seed_c"), trainer, "reseeded", seed=8)) != first


@pytest.mark.parametrize("trainer", TRAINERS_OF_THE_BASE)
def test_interrupted_write_leaves_the_old_checkpoint(workspaces, monkeypatch, trainer: str) -> None:
    made = run(workspaces("2d"), trainer, "atomic")
    file = Path(made.output_folder) / "checkpoint_final.pth"
    before = file.read_bytes()
    made.iteration += 1

    def die(content, target, **kwargs):
        Path(target).write_bytes(b"half") if isinstance(target, (str, Path)) else real(content, target)
        if isinstance(target, (str, Path)):
            raise Stopped

    real = torch.save
    monkeypatch.setattr(torch, "save", die)
    with pytest.raises(Stopped):
        made.save_checkpoint(str(file))
    assert file.read_bytes() == before


@pytest.mark.parametrize("trainer", TRAINERS_OF_THE_BASE)
def test_other_settings_in_the_same_folder_are_refused(workspaces, trainer: str) -> None:
    workspace = workspaces("2d")
    made = run(workspace, trainer, f"mixed-{trainer}")
    file = workspace.preprocessed / f"{made.plans_manager.plans_name}.json"
    plans = json.loads(file.read_text(encoding="utf-8"))
    plans["limited"]["settings"]["initial_lr"] = 0.005
    file.write_text(json.dumps(plans), encoding="utf-8")
    with pytest.raises(LimitedError, match=r"initial_lr=0\.001.*initial_lr=0\.005"):
        workspace.trainer(trainer, made.plans_manager.plans_name)
