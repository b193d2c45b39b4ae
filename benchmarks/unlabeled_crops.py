"""How many unlabelled crops hold a small object in a large scan?

A made-up unlabelled scan of 256^3 voxels with one bright object of 12^3 at a random place, crops of 32^3, and trainers
whose networks see the object by a threshold. Printed for each trainer and setting of ``unlabeled_sampling``: the
fraction of the crops that hold half of the object or more, in the first steps and in as many steps after them.

    python benchmarks/unlabeled_crops.py [TRAINER ...] [--steps 200] [--seeds 3] [--sampling foreground] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

TRAINERS = (
    "LimitedSelfTrainingTrainer",
    "LimitedRecipeTrainer",
    "LimitedMeanTeacherTrainer",
    "LimitedFixMatchTrainer",
    "LimitedBCPTrainer",
    "LimitedCPSTrainer",
)
BRIGHT = 5.0  # of the object; noise around 0 has a standard deviation of 0.1
SAMPLING = ("uniform", "foreground")


class Scan:
    """A scan with one object, in nnU-Net's format of preprocessed cases below ``root``."""

    def __init__(self, root: Path, shape: tuple[int, ...], sides: tuple[int, ...], seed: int) -> None:
        from nnunet_limited.host.cases import LOCATIONS, PreprocessedCases, save_label, save_locations

        rng = np.random.default_rng(seed)
        corner = [rng.integers(0, size - side + 1) for size, side in zip(shape, sides, strict=True)]
        label = np.zeros(shape, np.int16)
        label[tuple(slice(low, low + side) for low, side in zip(corner, sides, strict=True))] = 1
        self.object = np.argwhere(label).T  # (3, n)
        image = rng.normal(0, 0.1, shape) + BRIGHT * label
        self.images, self.labels = root / "images", root / "labels"
        for folder in (self.images, self.labels):
            folder.mkdir(parents=True)
        mask = np.zeros((1, *shape), np.int8)
        PreprocessedCases.save_case(image[None].astype(np.float32), mask, {}, str(self.images / "scan"))
        save_label(label, self.labels / "scan.b2nd")
        save_locations(label[None], [(1,), (2,)], self.labels / f"scan{LOCATIONS}")

    def dataset(self, stored: bool) -> Any:
        """Return the scan as an unlabelled dataset, with its label if it is ``stored``."""
        from nnunet_limited.data.loaders import PseudoLabeledDataset, UnlabeledDataset

        if stored:
            return PseudoLabeledDataset(str(self.images), ["scan"], self.labels)
        return UnlabeledDataset(str(self.images), ["scan"])

    def held(self, loader: Any) -> list[bool]:
        """Return which crops of the latest batch of a loader hold half of the object or more."""
        found = []
        for corner, matrix in zip(loader.corners, loader.transforms.maps, strict=True):
            box = self.object - np.reshape(corner, (3, 1))
            places = np.linalg.solve(matrix[:3, :3], box - matrix[:3, 3:])
            inside = (places > -0.5) & (places < np.reshape(loader.final_patch_size, (3, 1)) - 0.5)
            found.append(bool(inside.all(0).mean() >= 0.5))
        return found


def see_by_threshold(network: Any, image: Any) -> None:
    """Let a network see class 1 where the first channel is bright; ``image`` is one that it can take."""
    from torch.nn import functional

    output, weight = network(image), next(network.parameters())
    several = isinstance(output, (list, tuple))
    sizes = [head.shape[2:] for head in (output if several else [output])]
    classes = (output[0] if several else output).shape[1]

    def forward(image: Any) -> Any:
        bright = 20 * (image[:, :1] / BRIGHT - 0.5) + 0 * weight.sum()
        logits = functional.pad(bright, (0, 0) * (image.ndim - 2) + (1, classes - 2), value=-99.0) - 0.0
        logits[:, :1] = -bright
        heads = [functional.interpolate(logits, size=size) for size in sizes]
        return heads if several else heads[0]

    network.forward = forward


def measure(trainer: Any, scan: Scan, steps: int) -> tuple[float, float]:
    """Return the fraction of crops that hold the object in the first ``steps`` of a trainer, and in as many more."""
    stored = type(trainer).learns_pseudo_labels != "none"
    trainer.unlabeled_dataset = lambda: scan.dataset(stored)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.on_train_start()
        trainer.on_train_epoch_start()
    image = next(trainer.dataloader_train)["data"]
    for network in (trainer.network, *trainer.partners.values()):
        see_by_threshold(network, image)
    held = []
    for _ in range(2 * steps):
        batch = next(trainer.dataloader_train)
        held.append(np.mean(scan.held(trainer.unlabeled_loader.unlabeled)))
        trainer.train_step(batch)
    return float(np.mean(held[:steps])), float(np.mean(held[steps:]))


def prepare(root: Path) -> tuple[str, str]:
    """Plan the phantom for crops of 32^3; return dataset and plans."""
    import step_time

    from nnunet_limited.host.folders import preprocessed_folder

    with contextlib.redirect_stdout(io.StringIO()):
        dataset, plans = step_time.prepare(root, "3d_fullres", "tiny")
    file = preprocessed_folder(dataset) / f"{plans}.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["configurations"]["3d_fullres"].update(patch_size=[32, 32, 32], batch_size=2)
    file.write_text(json.dumps(content), encoding="utf-8")
    return dataset, plans


def main() -> None:
    """Measure every trainer with both settings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trainers", nargs="*", default=TRAINERS)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3, help="places of the object")
    parser.add_argument("--sampling", nargs="+", choices=SAMPLING, default=SAMPLING)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        dataset, plans = prepare(root)
        import torch
        from nnunetv2.run.run_training import get_trainer_from_args

        from nnunet_limited.host.folders import preprocessed_folder
        from nnunet_limited.runs.variants import configure

        found: dict[str, dict[str, list[tuple[float, float]]]] = {}
        for seed in range(arguments.seeds):
            scan = Scan(root / f"scan_{seed}", (256, 256, 256), (12, 12, 12), seed)
            for name in arguments.trainers:
                for sampling in arguments.sampling:
                    settings = {"seed": seed, "unlabeled_sampling": sampling}
                    chosen = configure(preprocessed_folder(dataset), plans, settings, f"{sampling}{seed}")
                    with contextlib.redirect_stdout(io.StringIO()):
                        trainer = get_trainer_from_args(
                            dataset, "3d_fullres", 0, name, chosen, device=torch.device("cpu")
                        )
                    result = measure(trainer, scan, arguments.steps)
                    found.setdefault(name, {}).setdefault(sampling, []).append(result)
                    if not arguments.json:
                        print(f"{name} {sampling} object {seed}: {result[0]:.3f} {result[1]:.3f}", flush=True)
    if arguments.json:
        print(json.dumps(found))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
