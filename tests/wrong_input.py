"""A small world of nnU-Net folders that each case of ``test_wrong_input.py`` spoils in its own way."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunet_limited.cli.main import main
from nnunet_limited.splits import load_split

NAME = "Dataset990_Tiny"
CASES = [f"p{patient}_{scan}" for patient in range(3) for scan in "ab"]
PLANS = "nnUNetPlans_few_tiny"
TEACHER, SUPERVISED = "LimitedMeanTeacherTrainer", "LimitedSupervisedTrainer"
TRAIN = f"train 990 2d 0 -p {PLANS} -device cpu"
CROSSVAL = f"crossval 990 2d -p {PLANS} -device cpu"
PLAN = "plan 990 --split few -c 2d --size tiny -np 1"
RUN = f"{TEACHER}__{PLANS}__2d"
# Name, command, what the error line must name, and how the world is spoilt before.
Row = tuple[str, str, tuple[str, ...], Callable[["World"], Any]]


@dataclass
class World:
    """nnU-Net's three folders below ``root``, with one dataset, its split ``few`` and its plans; free to be spoilt."""

    root: Path
    env: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.env = {f"nnUNet_{name}": str(self.root / name) for name in ("raw", "preprocessed", "results")}
        self.raw = self.root / "raw" / NAME
        self.preprocessed = self.root / "preprocessed" / NAME
        self.results = self.root / "results" / NAME

    def listing(self) -> dict[str, str]:
        files = [f for name in ("raw", "preprocessed", "results") for f in (self.root / name).rglob("*")]
        files = [file for file in files if not file.name.endswith(".lock")]  # which hold nothing
        return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() if f.is_file() else "" for f in files}

    def run(self, command: str) -> int:
        """Run a command in this process and return its exit status."""
        environment, arguments = dict(os.environ), sys.argv
        try:
            for name, value in self.env.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})
            sys.argv = ["nnunet-limited", *command.replace("{root}", str(self.root)).split()]
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            os.environ.clear()
            os.environ.update(environment)
            sys.argv = arguments
        return int(ended.value.code or 0)

    def edit(self, file: str, change: Callable[[Any], Any]) -> None:
        """Change the content of a JSON file of the preprocessed folder, in place or by returning another."""
        path = self.root / file
        content = json.loads(path.read_text(encoding="utf-8"))
        changed = change(content)
        path.write_text(json.dumps(content if changed is None else changed), encoding="utf-8")

    def plans(self, change: Callable[[Any], Any], name: str = PLANS) -> None:
        if name != PLANS:
            shutil.copy(self.preprocessed / f"{PLANS}.json", self.preprocessed / f"{name}.json")
        self.edit(f"preprocessed/{NAME}/{name}.json", change)

    def bind(self) -> None:
        """Let the plans take the split as it is now."""
        split = load_split(self.preprocessed, "few")
        self.plans(lambda plans: plans["limited"].update(split_hash=split.hash))

    def plain_plans(self) -> None:
        """Add plans as nnU-Net makes them."""
        self.plans(lambda p: (p.pop("limited"), p.update(plans_name="nnUNetPlans"))[1], "nnUNetPlans")

    def inherited(self) -> None:
        """Add a configuration that says only what differs from another."""
        self.plans(lambda p: p["configurations"].update({"2d_small": {"inherits_from": "2d", "batch_dice": False}}))

    def dataset_json(self, **changes: Any) -> None:
        self.edit(f"raw/{NAME}/dataset.json", lambda content: {**content, **changes})

    def without(self, key: str) -> None:
        self.edit(f"raw/{NAME}/dataset.json", lambda content: {k: v for k, v in content.items() if k != key})

    def fold(self, **changes: Any) -> None:
        """Write ``few`` anew by hand, one fold, without a sidecar."""
        fold: dict[str, Any] = {"train": CASES[:2], "val": CASES[2:4], "unlabeled": CASES[4:]}
        (self.preprocessed / "splits_few.info.json").unlink()
        self.text(f"preprocessed/{NAME}/splits_few.json", json.dumps([{**fold, **changes}]))

    def two_folds(self) -> None:
        """Write ``few`` anew by hand: what is labelled in one fold is unlabelled in the other."""
        (self.preprocessed / "splits_few.info.json").unlink()
        folds = [
            {"train": CASES[a:b], "val": CASES[2:4], "unlabeled": CASES[c:d]}
            for a, b, c, d in ((0, 2, 4, 6), (4, 6, 0, 2))
        ]
        self.text(f"preprocessed/{NAME}/splits_few.json", json.dumps(folds))

    def labelled(self) -> str:
        return json.loads((self.preprocessed / "splits_few.json").read_text(encoding="utf-8"))[0]["train"][0]

    def text(self, file: str, content: str | bytes) -> None:
        path = self.root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def image(self, case: str = CASES[3], array: Any = None, spacing: float = 1.0, channel: int = 1) -> None:
        array = np.ones((16, 16, 16)) if array is None else array
        write(self.raw / "imagesTr" / f"{case}_{channel:04d}.nii.gz", array.astype(np.float32), spacing)

    def label(self, case: str, value: int = 1, edge: int = 16, spacing: float = 1.0) -> None:
        array = np.full((edge, 16, 16), value)
        write(self.raw / "labelsTr" / f"{case}.nii.gz", array.astype(np.uint8), spacing)

    def spoil_label(self, *cases: str) -> None:
        for case in cases:
            self.text(f"raw/{NAME}/labelsTr/{case}.nii.gz", b"no label")

    def give_pretrained(self, content: Any) -> None:
        torch.save(content, self.root / "w.pth")

    def checkpoint(self, which: str, name: str = "latest", change: Callable[[Any], Any] | None = None) -> None:
        """Put a checkpoint into the mean teacher's fold 0."""
        file = self.results / RUN / "fold_0" / f"checkpoint_{name}.pth"
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.root / f"{which}.pth", file)
        if change is not None:
            content = torch.load(file, weights_only=False)
            torch.save(change(content) or content, file)

    def truncated(self) -> None:
        file = self.results / RUN / "fold_0" / "checkpoint_latest.pth"
        self.checkpoint(TEACHER)
        file.write_bytes(file.read_bytes()[:-2000])

    def record(self, **changes: Any) -> None:
        """Let fold 1 hold a run that differs from the one of the checkpoint."""
        record = torch.load(self.root / f"{TEACHER}.pth", weights_only=False)["nnunet_limited"]["record"]
        record["settings"].update(changes)
        self.text(f"results/{NAME}/{RUN}/fold_1/limited_run.json", json.dumps(record))


def write(file: Path, array: np.ndarray, spacing: float = 1.0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((spacing, 1.0, 1.0))
    sitk.WriteImage(image, str(file))


def make_world(root: Path) -> World:
    """Make the world that every case spoils a copy of: two channels, six labelled cases of three patients."""
    world = World(root)
    (world.root / "results").mkdir()
    random = np.random.RandomState(0)
    for case in CASES:
        label = np.zeros((16, 16, 16), np.uint8)
        label[4:12, 4:12, 4:12] = 1
        label[6:10, 6:10, 6:10] = 2
        for channel in range(2):
            world.image(case, 100 + 50 * label + random.normal(size=label.shape), channel=channel)
        write(world.raw / "labelsTr" / f"{case}.nii.gz", label)
    description = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "tumour": 1, "core": 2},
        "numTraining": len(CASES),
        "file_ending": ".nii.gz",
    }
    world.text(f"raw/{NAME}/dataset.json", json.dumps(description))
    assert world.run("split 990 --name few --labeled 2 --folds 3") == 0
    assert world.run(PLAN) == 0

    from nnunetv2.run.run_training import get_trainer_from_args

    with pytest.MonkeyPatch.context() as patch:
        for name, value in world.env.items():
            patch.setenv(name, str(value))
        for trainer in (TEACHER, SUPERVISED):
            made = get_trainer_from_args("990", "2d", 0, trainer, PLANS, device=torch.device("cpu"))
            made.initialize()
            made.save_checkpoint(str(world.root / f"{trainer}.pth"))
    shutil.rmtree(world.results)
    return world


def nothing(world: World) -> None:
    """Leave everything as it is: the command itself is wrong."""
