"""A run killed while it writes is resumed with --c; two processes that train together hold the same weights."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import DATASET, FROM_START, Workspace, weights
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel
from trainer_sets import representatives

from nnunet_limited import trainers
from nnunet_limited.errors import LimitedError
from nnunet_limited.trainers.catalogue import trainer_names

ON_SEVERAL_GPUS = [name for name in trainer_names() if getattr(trainers, name).runs_on_several_gpus]
# Enough to have a teacher, networks that learn from labels, a step or data of their own; and a Transformer, which is
# another network in 3D.
FEW = [name for name in representatives(ON_SEVERAL_GPUS) if name in ON_SEVERAL_GPUS]
TOGETHER = {"2d": FEW, "3d": ["LimitedCrossTeachingTrainer"]}


def command(workspace: Workspace, plans: str, *flags: str) -> list[str]:
    configuration = workspace.variant.configuration
    start = [sys.executable, "-m", "nnunet_limited", "train", DATASET, configuration, "0", "-p", plans]
    return [*start, "-device", "cpu", *flags]


@pytest.mark.slow
def test_killed_run_continues(workspaces) -> None:
    """It is killed in the middle of writing a checkpoint."""
    workspace = workspaces("2d")
    plans = workspace.configure("killed", num_epochs=500, num_iterations_per_epoch=1, save_every=1, **FROM_START)
    folder = workspace.root / "results" / DATASET / f"LimitedMeanTeacherTrainer__{plans}__2d" / "fold_0"
    with (workspace.root / "killed.log").open("w", encoding="utf-8") as log:
        running = subprocess.Popen(command(workspace, plans), stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 240
            while not ((folder / "checkpoint_latest.pth").is_file() and list(folder.glob(".checkpoint_*.tmp"))):
                assert running.poll() is None, (workspace.root / "killed.log").read_text(encoding="utf-8")[-2000:]
                assert time.monotonic() < deadline
        finally:
            running.send_signal(signal.SIGKILL)
            running.wait()
    resumed = workspace.trainer("LimitedMeanTeacherTrainer", plans, resume=True)
    assert resumed.current_epoch > 0
    assert resumed.iteration == resumed.current_epoch
    resumed.num_epochs = resumed.current_epoch + 1
    resumed.run_training()
    assert {f.name for f in folder.glob("checkpoint*")} == {"checkpoint_best.pth", "checkpoint_final.pth"}


def train_together(
    rank: int, root: str, variant: str, plans: str, names: list[str], variables: dict[str, str], out: str
) -> None:
    os.environ.update(variables)
    torch.set_num_threads(1)
    from helpers import VARIANTS
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as host

    from nnunet_limited.engine import partners

    # nnU-Net takes CUDA for granted where there are several processes.
    host.DDP = partners.DistributedDataParallel = lambda network, device_ids: DistributedDataParallel(network)
    workspace = Workspace(Path(root), VARIANTS[variant])
    for name in names:
        dist.init_process_group("gloo", init_method=f"file://{out}/{name}", rank=rank, world_size=2)
        made = workspace.trainer(name, plans)
        made.device, made.grad_scaler = torch.device("cpu"), None
        made.disable_checkpointing = True
        made.on_train_start()
        assert made.batch_size == made.configuration_manager.batch_size // 2
        made.on_train_epoch_start()
        torch.manual_seed(rank)
        for _ in range(rank):  # other data on each rank
            next(made.dataloader_train)
        made.on_train_epoch_end([made.train_step(next(made.dataloader_train)) for _ in range(3)])
        torch.save({key: weights(network) for key, network in made.networks.items()}, f"{out}/{name}{rank}.pt")
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "names"),
    [
        *((variant, names) for variant, names in TOGETHER.items()),
        pytest.param("2d", sorted({*ON_SEVERAL_GPUS} - {*FEW}), marks=pytest.mark.full),
    ],
    ids=["2d", "3d", "others"],
)
def test_both_ranks_hold_the_same_networks(workspaces, tmp_path: Path, variant: str, names: list[str]) -> None:
    workspace = workspaces(variant)
    plans = workspace.configure("ddp", **{**FROM_START, "start_fraction": 0.2})  # the first two of the steps without
    variables = {k: v for k, v in os.environ.items() if k.startswith(("nnUNet", "OMP"))}
    mp.spawn(train_together, (str(workspace.root), variant, plans, names, variables, str(tmp_path)), nprocs=2)
    for name in names:
        mine, theirs = (torch.load(tmp_path / f"{name}{rank}.pt") for rank in (0, 1))
        assert mine.keys() == theirs.keys()
        for key in mine:
            assert all(torch.equal(a, b) for a, b in zip(mine[key], theirs[key], strict=True)), (name, key)
        if "teacher" in mine:
            assert any(not torch.equal(a, b) for a, b in zip(mine["student"], mine["teacher"], strict=True))


def test_others_are_refused_on_several_gpus(workspaces, monkeypatch) -> None:
    workspace = workspaces("2d")
    plans = workspace.configure("alone", **FROM_START)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    for name in set(trainer_names()) - set(ON_SEVERAL_GPUS):
        with pytest.raises(LimitedError, match="one GPU only"):
            workspace.trainer(name, plans)
