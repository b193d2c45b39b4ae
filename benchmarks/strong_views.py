"""How much do strong views differ from the weak ones that they are made of?

The dataset is planned for a split before. Printed for each value of ``strong_view``: the median of the root mean square
difference of a crop as a fraction of the standard deviation of its weak view, and how many crops are left as they are.

    python benchmarks/strong_views.py DATASET CONFIGURATION PLANS [--crops 1000] [--json] [--picture FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
from pathlib import Path
from typing import Any

KINDS = ("default", "strong")
SHOWN = 6  # crops, and strong views of each, in the picture


def started(dataset: str, configuration: str, plans: str, kind: str, crops: int) -> Any:
    """Return a mean teacher before its first step, whose strong views are of one ``kind``."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    device = torch.device("cpu")
    made = get_trainer_from_args(dataset, configuration, 0, "LimitedMeanTeacherTrainer", plans, device=device)
    made.config = made.config.model_copy(update={"strong_view": kind, "unlabeled_batch_size": crops, "seed": 0})
    made.initialize()
    made.dataloader_train, made.dataloader_val = made.get_dataloaders()
    return made


def next_batch(trainer: Any) -> dict[str, Any]:
    """Return a batch whose labelled crops are the unlabelled ones, so that no others are loaded."""
    unlabeled = next(trainer.unlabeled_loader.unlabeled)
    image = unlabeled["data"][:, : trainer.num_input_channels]
    return {"data": image, "target": unlabeled["target"], "unlabeled": unlabeled}


def differences(crops: Any) -> list[float]:
    """Return the difference of each crop's strong view from its weak one; crops of one value are left out."""
    pairs = zip(crops.weak.float(), crops.strong.float(), strict=True)
    return [float((weak - strong).square().mean().sqrt() / weak.std()) for weak, strong in pairs if weak.std() > 0]


def measure(trainer: Any, crops: int) -> dict[str, float]:
    """Return median, fraction below 5 % and fraction without any difference of ``crops`` crops."""
    import numpy as np

    found: list[float] = []
    while len(found) < crops:
        found += differences(trainer.crops(next_batch(trainer)))
    values = np.array(found[:crops])
    return {"median": np.median(values), "below_5_percent": (values < 0.05).mean(), "identical": (values == 0).mean()}


def draw(trainer: Any, file: Path) -> None:
    """Write a picture of some crops, each row with the weak view first; of volumes, the middle slice."""
    import torch
    from matplotlib.figure import Figure

    batch = next_batch(trainer)
    many = [trainer.crops(batch) for _ in range(SHOWN)]
    figure = Figure((2 * (SHOWN + 1), 2 * SHOWN))
    axes = figure.subplots(SHOWN, SHOWN + 1)
    for row, line in enumerate(axes):
        for axis, view in zip(line, [many[0].weak, *(crops.strong for crops in many)], strict=True):
            image = view[row, 0] if view.ndim == 4 else view[row, 0, view.shape[2] // 2]
            low, high = torch.quantile(image.flatten(), torch.tensor([0.01, 0.995]))
            axis.imshow(image, cmap="gray", vmin=low, vmax=high)
            axis.set_axis_off()
    figure.tight_layout()
    figure.savefig(file, dpi=60)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("configuration")
    parser.add_argument("plans")
    parser.add_argument("--crops", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--picture", type=Path, help="file to draw strong views to")
    arguments = parser.parse_args()
    found = {}
    for kind in KINDS:
        with contextlib.redirect_stdout(io.StringIO()):
            at_once = max(SHOWN, 8)
            trainer = started(arguments.dataset, arguments.configuration, arguments.plans, kind, at_once)
            found[kind] = {key: round(float(v), 3) for key, v in measure(trainer, arguments.crops).items()}
    if arguments.picture:
        draw(trainer, arguments.picture)
    if arguments.json:
        print(json.dumps(found))
    else:
        for kind, values in found.items():
            print(kind, *(f"{key} {value:.1%}" for key, value in values.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
