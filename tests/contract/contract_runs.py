"""Runs of a few steps, and what holds of each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from helpers import FROM_START, Workspace, assert_same


def settings_for(**settings: Any) -> dict[str, Any]:
    """Return settings that a run of any trainer may be given: the unsupervised loss from the first step on."""
    return {**FROM_START, **settings}


def run(workspace: Workspace, trainer: str, name: str, fold: int | str = 0, **settings: Any) -> Any:
    """Train a few steps and return the trainer."""
    made = workspace.trainer(trainer, workspace.configure(name, **settings_for(**settings)), fold)
    made.run_training()
    return made


def started(workspace: Workspace, trainer: str, name: str, **settings: Any) -> Any:
    """Return a trainer before its first step."""
    made = workspace.trainer(trainer, workspace.configure(name, **settings_for(**settings)))
    made.on_train_start()
    made.on_train_epoch_start()
    return made


def assert_complete(made: Any) -> None:
    """Check a finished run: finite losses, every log written, checkpoints as nnU-Net expects and loads them."""
    log = made.logger.local_logger.my_fantastic_logging
    assert {len(values) for values in log.values()} == {made.num_epochs}
    assert all(math.isfinite(value) for value in log["train_losses"] + log["ema_fg_dice"])
    if type(made).uses_unlabeled:
        weighted = [v for v, w in zip(log["unsupervised_losses"], log["unsupervised_weights"], strict=True) if w]
        assert weighted
        assert all(math.isfinite(value) and value > 0 for value in weighted)
    folder = Path(made.output_folder)
    assert {f.name for f in folder.glob("checkpoint*")} == {"checkpoint_final.pth", "checkpoint_best.pth"}
    content = torch.load(folder / "checkpoint_final.pth", weights_only=False)
    fresh = type(made).build_network_architecture(
        made.plans_manager,
        made.configuration_manager,
        made.num_input_channels,
        made.label_manager.num_segmentation_heads,
        True,
    )
    fresh.load_state_dict(content["network_weights"])
    assert_same(dict(fresh.state_dict()), dict(made.networks[made.predictor_name].state_dict()))
