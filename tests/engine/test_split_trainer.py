"""What all trainers share: own trainers, memory layout, cores, runs of earlier versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers import DATASET, DEVICE, FROM_START

from nnunet_limited.engine.checkpoint import KEY
from nnunet_limited.engine.run import RECORD
from nnunet_limited.errors import LimitedError
from nnunet_limited.runs.launch import prepare
from nnunet_limited.runs.request import TrainRequest

MINE = """
from pydantic import Field
from nnunet_limited.trainers import LimitedMeanTeacherTrainer, LimitedTrainer
from nnunet_limited.trainers.semi_supervised.mean_teacher import MeanTeacherConfig

class MineConfig(MeanTeacherConfig):
    own_threshold: float = Field(0.1, ge=0, description="mine")

class LimitedMineTrainer(LimitedMeanTeacherTrainer):
    Config = MineConfig

class LimitedUnfinishedTrainer(LimitedTrainer):
    pass
"""


def test_a_trainer_of_the_users_own(workspaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    workspace = workspaces("2d")
    request = TrainRequest(
        dataset=DATASET, configuration="2d", fold="0", trainer="LimitedMineTrainer", plans=workspace.plans
    )
    ready = prepare(request.with_settings(["own_threshold=0.5"]))
    ready.write_plans()
    assert workspace.trainer(ready.trainer, ready.plans).config.own_threshold == 0.5
    with pytest.raises(LimitedError, match="LimitedUnfinishedTrainer: it has no unsupervised_loss"):
        workspace.trainer("LimitedUnfinishedTrainer", workspace.plans)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["2d", "3d"])
def test_channels_come_last_in_every_network_and_change_nothing_else(workspaces, variant: str) -> None:
    workspace, made = workspaces(variant), []
    for last in (False, True):
        plans = workspace.configure(f"last{last}", **FROM_START, channels_last=last)
        trainer = workspace.trainer("LimitedCPSTrainer", plans)
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        torch.manual_seed(0)
        made.append((trainer, [trainer.train_step(next(trainer.dataloader_train))["loss"] for _ in range(2)]))
    kinds = {4: torch.channels_last, 5: torch.channels_last_3d}
    for trainer, asked in zip((one for one, _ in made), (False, True), strict=True):
        for network in trainer.networks.values():
            kernels = [p for p in network.parameters() if p.dim() in kinds and min(p.shape[1], p[0, 0].numel()) > 1]
            assert kernels
            wanted = asked and trainer.device.type == "cpu"
            assert all(p.is_contiguous(memory_format=kinds[p.dim()]) == wanted for p in kernels)
    assert made[0][1] == pytest.approx(made[1][1], rel=1e-4)


def test_a_run_on_a_cpu_keeps_to_its_share_of_the_cores(workspaces, monkeypatch: pytest.MonkeyPatch) -> None:
    """nnU-Net's command takes all of them. On a GPU the number is left alone."""
    workspace, before = workspaces("2d"), torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    try:
        workspace.trainer("LimitedSupervisedTrainer", workspace.configure("cores")).initialize()
        assert torch.get_num_threads() == (2 if DEVICE.type == "cpu" else before)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("now", [False, True])
def test_a_run_from_before_a_setting_existed_had_its_default(workspaces, now: bool) -> None:
    workspace = workspaces("2d").activate("results_older")
    plans = workspace.configure("older", num_epochs=1, channels_last=False)
    first = workspace.trainer("LimitedSupervisedTrainer", plans)
    first.run_training()
    record = first.run.results / RECORD
    file = first.run.results / "checkpoint_final.pth"
    about, content = json.loads(record.read_text(encoding="utf-8")), torch.load(file, weights_only=False)
    for settings in (about["settings"], content[KEY]["record"]["settings"]):
        del settings["channels_last"]
    torch.save(content, file)
    record.write_text(json.dumps(about), encoding="utf-8")
    if now:
        stored = workspace.preprocessed / f"{plans}.json"
        changed = json.loads(stored.read_text(encoding="utf-8"))
        changed["limited"]["settings"]["channels_last"] = True
        stored.write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(LimitedError, match="channels_last=False, this one has channels_last=True"):
            workspace.trainer("LimitedSupervisedTrainer", plans, resume=True)
    else:
        assert workspace.trainer("LimitedSupervisedTrainer", plans, resume=True).current_epoch == 1
