"""A run killed while it writes is resumed with --c; two processes that train together hold the same weights."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from helpers import DATASET, FROM_START, VARIANTS, Workspace, weights
from nnunetv2.training.logging.nnunet_logger import LocalLogger
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel
from trainer_sets import representatives

from nnunet_limited import trainers
from nnunet_limited.cli.main import main
from nnunet_limited.engine.log import LimitedLogger
from nnunet_limited.errors import LimitedError
from nnunet_limited.trainers.catalogue import trainer_names

ON_SEVERAL_GPUS = [name for name in trainer_names() if getattr(trainers, name).runs_on_several_gpus]
# Enough to have a teacher, networks that learn from labels, a step or data of their own; and a Transformer, which is
# another network in 3D.
FEW = [name for name in representatives(ON_SEVERAL_GPUS) if name in ON_SEVERAL_GPUS]
TOGETHER = [*(("2d", name) for name in FEW), ("3d", "LimitedCrossTeachingTrainer")]


def train_until_killed(words: list[str], variables: dict[str, str]) -> None:
    """Run the command, and die in the middle of writing its latest checkpoint for the third time."""
    os.environ.update(variables)
    torch.set_num_threads(1)
    for logger in (LocalLogger, LimitedLogger):
        logger.plot_progress_png = lambda self, folder: None
    save, latest = torch.save, []

    def save_or_die(content, file) -> None:
        if isinstance(file, Path) and "checkpoint_latest.pth" in file.name:
            latest.append(file)
        save(content, file)
        if len(latest) == 3:
            os.truncate(latest[-1], latest[-1].stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = save_or_die
    sys.argv = ["nnunet-limited", *words]
    main()


@pytest.mark.slow
def test_killed_run_continues(workspaces) -> None:
    """It is killed in the middle of writing a checkpoint."""
    workspace = workspaces("2d")
    plans = workspace.configure("killed", num_epochs=9, num_iterations_per_epoch=1, save_every=1, **FROM_START)
    folder = workspace.root / "results" / DATASET / f"LimitedMeanTeacherTrainer__{plans}__2d" / "fold_0"
    words = ["train", DATASET, "2d", "0", "-p", plans, "-device", "cpu"]
    variables = {k: v for k, v in os.environ.items() if k.startswith(("nnUNet", "OMP"))}
    process = multiprocessing.get_context("spawn").Process(target=train_until_killed, args=(words, variables))
    process.start()
    process.join(240)
    assert process.exitcode == -signal.SIGKILL
    assert len(list(folder.glob(".checkpoint_latest.pth.*.tmp"))) == 1
    resumed = workspace.trainer("LimitedMeanTeacherTrainer", plans, resume=True)
    assert resumed.current_epoch == resumed.iteration == 2
    resumed.num_epochs = 3
    resumed.run_training()
    assert {f.name for f in folder.glob("checkpoint*")} == {"checkpoint_best.pth", "checkpoint_final.pth"}


def train_together(rank: int, jobs: list[tuple[str, str, str, str]], variables: dict[str, str], out: str) -> None:
    """Train each (folder, variant, plans, trainer) for three steps and keep the weights."""
    os.environ.update(variables)
    torch.set_num_threads(1)
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as host

    from nnunet_limited.engine import partners

    # nnU-Net takes CUDA for granted where there are several processes.
    host.DDP = partners.DistributedDataParallel = lambda network, device_ids: DistributedDataParallel(network)
    for root, variant, plans, name in jobs:
        workspace = Workspace(Path(root), VARIANTS[variant]).activate()
        dist.init_process_group("gloo", init_method=f"file://{out}/{variant}{name}", rank=rank, world_size=2)
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
        torch.save({key: weights(network) for key, network in made.networks.items()}, f"{out}/{variant}{name}{rank}.pt")
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen",
    [TOGETHER, pytest.param([("2d", name) for name in sorted({*ON_SEVERAL_GPUS} - {*FEW})], marks=pytest.mark.full)],
    ids=["few", "others"],
)
def test_both_ranks_hold_the_same_networks(workspaces, tmp_path: Path, chosen: list[tuple[str, str]]) -> None:
    """Two processes for all trainers, because their start takes longer than the steps."""
    jobs = []
    for variant, name in chosen:
        workspace = workspaces(variant)
        plans = workspace.configure("ddp", **{**FROM_START, "start_fraction": 0.2})  # the first two steps go without
        jobs.append((str(workspace.root), variant, plans, name))
    variables = {k: v for k, v in os.environ.items() if k.startswith(("nnUNet", "OMP"))}
    mp.spawn(train_together, (jobs, variables, str(tmp_path)), nprocs=2)
    for variant, name in chosen:
        mine, theirs = (torch.load(tmp_path / f"{variant}{name}{rank}.pt") for rank in (0, 1))
        assert mine.keys() == theirs.keys()
        for key in mine:
            assert all(torch.equal(a, b) for a, b in zip(mine[key], theirs[key], strict=True)), (variant, name, key)
        if "teacher" in mine:
            assert any(not torch.equal(a, b) for a, b in zip(mine["student"], mine["teacher"], strict=True))


def test_others_are_refused_on_several_gpus(workspaces, monkeypatch) -> None:
    workspace = workspaces("2d")
    plans = workspace.configure("alone", **FROM_START)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    for name in set(trainer_names()) - set(ON_SEVERAL_GPUS):
        with pytest.raises(LimitedError, match="one GPU only"):
            workspace.trainer(name, plans)
