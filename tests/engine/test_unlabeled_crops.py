"""Unlabelled crops lie where networks or pseudo-labels have foreground."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import CLASSES, FROM_START
from torch import distributed, multiprocessing
from unlabeled_crops import Scan, measure

from nnunet_limited.data.sightings import Sightings, origins
from nnunet_limited.engine.unlabeled_crops import record_foreground
from nnunet_limited.host.geometry import MAPS

STEPS = 30
SLOW = ("LimitedRecipeTrainer", "LimitedFixMatchTrainer", "LimitedBCPTrainer", "LimitedCPSTrainer")


@pytest.mark.parametrize(
    "name",
    [
        "LimitedSelfTrainingTrainer",
        "LimitedMeanTeacherTrainer",
        *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW),
    ],
)
def test_a_third_of_the_crops_hold_a_small_object(workspaces, tmp_path: Path, name: str) -> None:
    """Of 0.5 % by chance. The full size is in ``benchmarks/unlabeled_crops.py``."""
    workspace = workspaces("3d")
    scan = Scan(tmp_path, (40, 160, 160), (3, 12, 12), 0)
    made = workspace.trainer(name, workspace.configure("crops", **FROM_START, oversample_foreground_percent=0.33))
    first, later = measure(made, scan, STEPS)
    assert later >= 0.33
    if name == "LimitedSelfTrainingTrainer":
        assert first >= 0.33


def test_uniform_crops_are_a_setting(workspaces, tmp_path: Path) -> None:
    workspace = workspaces("3d")
    scan = Scan(tmp_path, (40, 160, 160), (3, 12, 12), 0)
    plans = workspace.configure("uniform", **FROM_START, unlabeled_sampling="uniform")
    made = workspace.trainer("LimitedSelfTrainingTrainer", plans)
    assert max(measure(made, scan, STEPS)) < 0.1
    assert made.buffers == {}


@pytest.mark.parametrize("known", [True, False])
def test_moves_that_hide_the_place_of_crops_are_named_in_the_log(workspaces, monkeypatch, known: bool) -> None:
    if not known:
        monkeypatch.delitem(MAPS, "MirrorTransform")
    workspace = workspaces("2d")
    made = workspace.trainer("LimitedMeanTeacherTrainer", workspace.configure(f"named-{known}", **FROM_START))
    made.on_train_start()
    line = "Foreground in unlabelled crops moved by MirrorTransform is not recorded"
    assert (line in Path(made.log_file).read_text(encoding="utf-8")) != known


@pytest.mark.parametrize("variant", ["2d", "regions", "anisotropic", "ignore"])
def test_recorded_voxels_are_where_the_network_sees_foreground(workspaces, variant: str) -> None:
    """In slices, regions, volumes whose slices move together, and unannotated parts of annotated cases."""
    workspace = workspaces(variant)
    plans = workspace.configure("recorded", **FROM_START, sparse_labels=variant == "ignore")
    made = workspace.trainer("LimitedMeanTeacherTrainer", plans)
    made.on_train_start()
    made.on_train_epoch_start()

    def teach(image: torch.Tensor) -> torch.Tensor:
        """Return class 1, or every region, where the image is bright."""
        inside = (image[:, :1] > 1).float()
        if made.labels.overlapping:
            return torch.cat([inside] * made.labels.channels, 1)
        return torch.cat([1 - inside, inside, *[0 * inside] * (made.labels.channels - 2)], 1)

    made.teach = teach
    for _ in range(20):
        made.train_step(next(made.dataloader_train))
    loader = made.unlabeled_loader.unlabeled
    found = 0
    for case in loader.sightings.index:
        image = np.asarray(loader._data.load_case(case)[0][0])
        voxels = loader.sightings.foreground(case)[0][:, 1:]
        assert (voxels < image.shape).all()
        found += len(voxels)
        if len(voxels):
            assert image[tuple(voxels.T)].mean() > image.mean() + 0.7
    assert found > 20


def record_on_two(rank: int, folder: Path) -> None:
    """Record one or two crops of a process of two, and write what it knows then."""
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    sightings = Sightings(["a", "b", "c"], 2)
    trainer = SimpleNamespace(
        unlabeled_loader=SimpleNamespace(unlabeled=SimpleNamespace(sightings=sightings)),
        labels=CLASSES,
        is_ddp=True,
        gpus=2,
        device=torch.device("cpu"),
        config=SimpleNamespace(unlabeled_batch_size=None),
        configuration_manager=SimpleNamespace(batch_size=3),
    )
    count = 2 - rank  # nnU-Net gives the first GPUs more crops
    target = torch.zeros(count, 3, 4, 4, 4)
    target[:, 1, rank, 1, 1] = 1
    origin = origins([rank, 2][:count], [(10, 0, 0)] * count, [np.eye(4)] * count)
    record_foreground(trainer, {"origin": origin}, target, torch.ones(count, 1, 4, 4, 4, dtype=torch.bool))
    torch.save(sightings.points.clone(), folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_several_gpus_know_the_same(tmp_path: Path) -> None:
    # A process that does not begin as a copy of this one imports for seconds.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    multiprocessing.start_processes(record_on_two, (tmp_path,), nprocs=2, start_method=method)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert torch.equal(first, second)
    assert first[:, 0, 0].tolist() == [[10, 1, 1], [11, 1, 1], [10, 1, 1]]
