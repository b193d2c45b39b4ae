"""Make small datasets, plan them, and run trainers on them in this process."""

from __future__ import annotations

import copy
import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hidden_labels import set_traps, spoil
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from shapes import TINY_SAM
from torch.nn import functional

from nnunet_limited.annotations.annotation import box_codes
from nnunet_limited.annotations.objects import boxes
from nnunet_limited.cli.main import main
from nnunet_limited.data.pseudo_label_store import open_set, set_folder
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.engine.split_trainer import HOST_SETTINGS
from nnunet_limited.host.loaders import without_benchmark
from nnunet_limited.losses.label_space import ClassLabels, RegionLabels
from nnunet_limited.planners.plan import make_plans
from nnunet_limited.planners.request import PlanRequest
from nnunet_limited.runs.variants import configure
from nnunet_limited.splits import Split, SplitRequest, load_split
from nnunet_limited.splits.make import class_reader, make_split, write_split
from nnunet_limited.util.random_state import seed_everything

DATASET = "Dataset990_Blobs"
DEVICE = torch.device(os.environ.get("NNUNET_LIMITED_TEST_DEVICE", "cpu"))
# CUDA sums a cross entropy in any order: of losses, unlike weights, the last digits differ from run to run.
TOLERANCES = (0.0, 0.0) if DEVICE.type == "cpu" else (1e-4, 1e-4)
# A run of a few steps. The unsupervised loss takes part from the first step unless a test says otherwise.
SHORT = {
    "num_epochs": 2,
    "num_iterations_per_epoch": 3,
    "num_val_iterations_per_epoch": 1,
    "save_every": 100,
    "cpu_autocast": False,  # references are computed in float32
    "ema_decay": 0.9,  # by default the teacher is the student in the first steps
    "seed": 7,
}
# Settings with which trainers of tiny plans are nnU-Net's.
LIKE_STOCK = {
    "consistency_weight": 0.0,
    "optimizer": "sgd",
    "initial_lr": 0.01,
    "channels_last": False,
    "sparse_labels": False,
}
STOCK_RUNS: dict[str, tuple[dict, list[torch.Tensor]]] = {}
FROM_START = {
    "start_fraction": 0.0,
    "rampup_fraction": 0.0,
    "prompter": f"sam:{TINY_SAM}",  # where a method asks one
    "prompter_every": 1,
}
LABELS = {"background": 0, "disc": 1, "core": 2}
CLASSES, REGIONS = ClassLabels(((0,), (1,), (2,)), 3), RegionLabels(((1, 2), (2,), (1,)), 3)


@dataclass(frozen=True)
class Variant:
    """A dataset and how it is split and planned."""

    configuration: str = "2d"
    shape: tuple[int, int, int] = (8, 32, 32)
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)  # x, y, z
    channels: int = 1
    labels: dict[str, Any] = field(default_factory=lambda: dict(LABELS))
    regions_class_order: list[int] | None = None
    cases: int = 8
    labeled: str = "3"
    protocol: str = "benchmark"
    channel_name: str = "MRI"
    ignored: float = 0.3  # part of the voxels, where there is an ignore label
    planes: tuple[int, ...] = ()  # or all voxels but those of the middle slices across these axes
    fold: int = 0  # whose unlabelled cases have hidden labels, where labels are hidden


VARIANTS = {
    "2d": Variant(),
    "3d": Variant("3d_fullres", (8, 32, 32)),
    "two_channels": Variant(channels=2),
    "regions": Variant(labels={"background": 0, "whole": [1, 2], "core": [2]}, regions_class_order=[1, 2]),
    "ignore": Variant(labels={**LABELS, "ignore": 3}),
    "all_annotated": Variant(labels={**LABELS, "ignore": 3}, ignored=0.0),
    "ignore_regions": Variant(
        labels={"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}, regions_class_order=[1, 2]
    ),
    "planes": Variant("3d_fullres", labels={**LABELS, "ignore": 3}, planes=(0, 1, 2)),
    "planes_2d": Variant(labels={**LABELS, "ignore": 3}, spacing=(1.0, 1.0, 4.0), planes=(0, 1)),
    "planes_regions": Variant(
        labels={"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}, regions_class_order=[1, 2], planes=(0, 2)
    ),
    "anisotropic": Variant("3d_fullres", (8, 32, 32), (1.0, 1.0, 5.0)),
    "one_labeled": Variant(labeled="1", fold=1),
    "deployment": Variant(protocol="deployment", channel_name="CT"),
}


def write_case(folder: Path, name: str, variant: Variant, seed: int, images: str = "imagesTr") -> None:
    """Write one scan: a bright disc with a brighter core at a random place, and its label."""
    rng = np.random.RandomState(seed)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in variant.shape], indexing="ij"))
    centre = np.array([n * rng.uniform(0.4, 0.6) for n in variant.shape])[:, None, None, None]
    size = np.array([max(n * 0.3, 2) for n in variant.shape])[:, None, None, None]
    distance = np.sqrt((((grid - centre) / size) ** 2).sum(0))
    label = (distance < 1).astype(np.uint8) + (distance < 0.5)
    for channel in range(variant.channels):
        image = 100 + 80 * label + rng.normal(0, 20, variant.shape)
        _write(folder / images / f"{name}_{channel:04d}.nii.gz", image.astype(np.float32), variant)
    if variant.planes:
        middle = [grid[axis] == variant.shape[axis] // 2 for axis in variant.planes]
        label[~np.any(middle, axis=0)] = variant.labels["ignore"]
    elif "ignore" in variant.labels:
        label[rng.uniform(size=label.shape) < variant.ignored] = variant.labels["ignore"]
    if images == "imagesTr":
        _write(folder / "labelsTr" / f"{name}.nii.gz", label.astype(np.uint8), variant)
        found = boxes(label, variant.labels.get("ignore", 99), rng).boxes
        _write(folder / "labelsBoxes" / f"{name}.nii.gz", box_codes(label.shape, found), variant)


def _write(file: Path, array: np.ndarray, variant: Variant) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(variant.spacing)
    sitk.WriteImage(image, str(file))


def write_dataset(raw: Path, variant: Variant) -> Path:
    """Write the variant's raw dataset."""
    folder = raw / DATASET
    for number in range(variant.cases):
        write_case(folder, f"case_{number:02d}", variant, number)
    content: dict[str, Any] = {
        "channel_names": {str(i): variant.channel_name for i in range(variant.channels)},
        "labels": variant.labels,
        "numTraining": variant.cases,
        "file_ending": ".nii.gz",
    }
    if variant.regions_class_order:
        content["regions_class_order"] = variant.regions_class_order
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def make_named_split(name: str, **request: Any) -> Any:
    """Make and write a split of the dataset in the current folders."""
    raw = RawDataset.load(DATASET)
    folder = Path(os.environ["nnUNet_preprocessed"]) / DATASET
    made, partition = make_split(raw, folder, SplitRequest(name=name, **request), class_reader(raw))
    write_split(folder, made, partition)
    return made


def plan(variant: Variant, split: str = "few") -> str:
    """Plan and preprocess for a network even smaller than tiny; return the plans' name."""
    request = PlanRequest(
        dataset=DATASET, split=split, configurations=(variant.configuration,), size="tiny", processes=1
    )
    name = make_plans(request).plans
    file = Path(os.environ["nnUNet_preprocessed"]) / DATASET / f"{name}.json"
    plans = json.loads(file.read_text(encoding="utf-8"))
    configuration = plans["configurations"][variant.configuration]
    network = configuration["architecture"]["arch_kwargs"]
    network["features_per_stage"] = [4 * 2**n for n in range(network["n_stages"])]
    for part in ("n_conv_per_stage", "n_conv_per_stage_decoder"):
        network[part] = [1] * len(network[part])
    configuration["batch_size"] = 4 if variant.configuration == "2d" else 2
    file.write_text(json.dumps(plans), encoding="utf-8")
    for kind in ("model", "consensus"):
        write_pseudo_labels(load_split(file.parent, split), kind)
    return name


def write_pseudo_labels(split: Split, name: str) -> None:
    """Write pseudo-labels for all folds: the scan by two thresholds, with confidences that say nothing."""
    raw, rng = RawDataset.load(DATASET), np.random.RandomState(0)
    folder = set_folder(Path(os.environ["nnUNet_preprocessed"]) / DATASET, split, name) / "ensemble"
    labels, reader = open_set(folder, ".nii.gz", {"source": "test", "split_hash": split.hash}), raw.reader()()
    for case in split.unlabeled:
        image, properties = reader.read_images([str(file) for file in raw.cases[case].images])
        label = (image[0] > 140).astype(np.uint8) + (image[0] > 220)
        about = {"confidence": 75.0, "stability": float(rng.uniform())}
        labels = labels.add(case, label, rng.uniform(0.5, 1, label.shape), properties, about, reader)


@dataclass
class Workspace:
    """A planned dataset below ``root``; ``results`` of different tests lie apart."""

    root: Path
    variant: Variant
    plans: str = ""

    @property
    def raw(self) -> Path:
        return self.root / "raw" / DATASET

    @property
    def preprocessed(self) -> Path:
        return self.root / "preprocessed" / DATASET

    @property
    def hidden(self) -> tuple[str, ...]:
        """Return the cases that are unlabelled in the variant's fold."""
        return load_split(self.preprocessed, "few").fold(self.variant.fold).unlabeled

    def activate(self, results: str = "results") -> Workspace:
        """Point nnU-Net's variables here."""
        for name in ("raw", "preprocessed"):
            os.environ[f"nnUNet_{name}"] = str(self.root / name)
        (self.root / results).mkdir(exist_ok=True)
        os.environ["nnUNet_results"] = str(self.root / results)
        return self

    def configure(self, name: str, **settings: Any) -> str:
        """Write a variant of the plans with settings."""
        return configure(self.preprocessed, self.plans, {**SHORT, **settings}, name)

    def trainer(self, trainer: str, plans: str, fold: int | str = 0, resume: bool = False) -> Any:
        """Return a trainer as nnU-Net's command would make it."""
        torch.backends.cudnn.benchmark = False  # which nnU-Net's predictor turns on
        made = get_trainer_from_args(DATASET, self.variant.configuration, fold, trainer, plans, resume, DEVICE)
        maybe_load_checkpoint(made, resume, False)
        return made

    def copy(self, root: Path) -> Workspace:
        """Copy the raw data and the split files, but nothing that was planned."""
        shutil.copytree(self.root / "raw", root / "raw")
        (root / "preprocessed" / DATASET).mkdir(parents=True)
        for file in self.preprocessed.glob("splits_*"):
            shutil.copy(file, root / "preprocessed" / DATASET)
        return Workspace(root, self.variant).activate()


def make_workspace(root: Path, variant: Variant, hide: bool = False) -> Workspace:
    """Write, split and plan a variant.

    With ``hide`` there are no hidden labels from the split on, but those that another fold trains on: while planning
    they are unreadable or, where another fold validates on them, gone. Afterwards there are traps for all.
    """
    workspace = Workspace(root, variant)
    for name in ("raw", "preprocessed"):
        (root / name).mkdir()
    workspace.activate()
    write_dataset(root / "raw", variant)
    split = make_named_split("few", labeled=variant.labeled, folds=3, protocol=variant.protocol)
    if hide:
        unlabeled = [case for case in workspace.hidden if case not in split.labeled]
        spoil(workspace, unlabeled, "garbage" if variant.protocol == "deployment" else "deleted")
    workspace.plans = plan(variant)
    if hide:
        set_traps(workspace)
    return workspace


class Stock(nnUNetTrainer):
    """nnU-Net's trainer on a given fold with given lengths and seed, and its blur made repeatable; nothing else."""

    run_fold: Any
    run_config: Any

    @classmethod
    def like(cls, limited: Any) -> Stock:
        """Return nnU-Net's trainer for what the trainer ``limited`` of ours is asked to train."""
        plans = copy.deepcopy({**limited.plans_manager.plans, "continue_training": False})
        made = cls(plans, limited.configuration_name, limited.fold, limited.dataset_json, DEVICE)
        made.run_fold, made.run_config = limited.run.fold, limited.config
        for name in HOST_SETTINGS:
            setattr(made, name, getattr(limited.config, name))
        return made

    def initialize(self) -> None:
        seed_everything(self.run_config.seed)
        super().initialize()

    def do_split(self) -> Any:
        return list(self.run_fold.train), list(self.run_fold.val)

    def get_dataloaders(self) -> Any:
        train, val = super().get_dataloaders()
        without_benchmark(train.data_loader.transforms)
        return train, val

    def on_train_start(self) -> None:
        fingerprint = Path(self.preprocessed_dataset_folder_base) / "dataset_fingerprint.json"
        fingerprint.write_text("{}", encoding="utf-8")
        super().on_train_start()
        fingerprint.unlink()


def losses(trainer: Any) -> dict[str, list[float]]:
    """Return the loss curves of a finished run, on a GPU to three decimals."""
    log, digits = trainer.logger.local_logger.my_fantastic_logging, 17 if DEVICE.type == "cpu" else 3
    return {key: [round(float(v), digits) for v in log[key]] for key in ("train_losses", "val_losses", "mean_fg_dice")}


def weights(network: torch.nn.Module) -> list[torch.Tensor]:
    """Return copies of all parameters, each once."""
    return [parameter.detach().clone() for parameter in network.parameters()]


def assert_same(a, b) -> None:
    """Compare nested containers of tensors and arrays to the bit."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a.cpu(), b.cpu())
    elif isinstance(a, np.ndarray):
        assert np.array_equal(a, b)
    else:
        assert a == b


def softmax(output: Any) -> torch.Tensor:
    """Return the probabilities of logits, or of the finest of several heads' logits."""
    return torch.softmax(output[0] if isinstance(output, list) else output, 1)


def segmentation_reference(logits, target, weight: torch.Tensor, inside: int, regions: bool = False) -> torch.Tensor:
    """Weighted CE divided by the voxels inside, plus 1 - mean Dice of weighted sums, the background's left out."""
    p, weight = (torch.sigmoid(logits) if regions else torch.softmax(logits, 1)), weight.float()
    if regions:
        ce = -torch.distributions.Bernoulli(p).log_prob(target).mean(1, keepdim=True)
    else:
        ce = functional.cross_entropy(logits, target.argmax(1), reduction="none")[:, None]
    dices = []
    for c in range(0 if regions else 1, logits.shape[1]):
        a, b, w = p[:, c], target[:, c], weight[:, 0]
        dices.append((2 * (w * a * b).sum() + 1e-5) / ((w * a).sum() + (w * b).sum() + 1e-5))
    return (weight * ce).sum() / inside + 1 - torch.stack(dices).mean()


def command(*arguments: str) -> int:
    """Run a command of the package in this process and return its exit status."""
    before, sys.argv = sys.argv, ["nnunet-limited", *arguments]
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = before
    return int(ended.value.code or 0)


def read(file: Path) -> np.ndarray:
    """Return the array of an image file."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def stock_run(variant: str, ours: Any) -> tuple[dict, list[torch.Tensor]]:
    """Losses and weights of nnU-Net's trainer on what ``ours`` trained on; the same for every trainer."""
    if variant not in STOCK_RUNS:
        stock = Stock.like(ours)
        stock.run_training()
        STOCK_RUNS[variant] = losses(stock), weights(stock.network)
    return STOCK_RUNS[variant]
