"""Is the averaged teacher as good as its student, from the start of the unsupervised loss to the end of the run?

Trains a mean teacher for each length and seed and compares the pseudo-Dice of both networks on the same validation
batches, as the log has them. Prints the lowest mean of (teacher - student) over five epochs in a row, all lengths and
seeds in one table; exit status 1 if it is below -0.01 in a run of at most 1,000 iterations.

    python benchmarks/teacher_window.py RAW/Dataset004_Hippocampus --labeled 4 --work /tmp/work
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from semi_supervised import nnunet_limited, open_work, prepare

TRAINER, EPOCHS, ALLOWED = "LimitedMeanTeacherTrainer", 20, 0.01


def train(arguments: argparse.Namespace, plans: str, seed: int, iterations: int) -> dict[str, list[float]]:
    """Train one run, unless it is complete, and return its log."""
    settings = [f"seed={seed}", f"num_epochs={EPOCHS}", f"num_iterations_per_epoch={iterations // EPOCHS}"]
    settings += ["num_val_iterations_per_epoch=20", *arguments.set]
    options = [option for setting in settings for option in ("--set", setting)]
    words = [arguments.dataset.name, arguments.configuration, "-p", plans, "-tr", TRAINER, "--folds", "0", *options]
    result = json.loads(nnunet_limited("crossval", *words, "--json"))
    model = f"{result['trainer']}__{result['plans']}__{result['configuration']}"
    file = Path(os.environ["nnUNet_results"]) / result["dataset"] / model / "fold_0" / "checkpoint_final.pth"
    logged: dict[str, list[float]] = torch.load(file, map_location="cpu", weights_only=False)["logging"]
    return logged


def lead(log: dict[str, list[float]]) -> np.ndarray:
    """Return teacher - student, the mean of five epochs, from the first epoch with the unsupervised loss on."""
    first = int(np.argmax(np.array(log["unsupervised_weights"]) > 0))
    difference = np.subtract(log["mean_fg_dice"], log["student_dice"])[first:]
    return np.convolve(difference, np.ones(5) / 5, "valid")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="raw dataset folder")
    parser.add_argument("--labeled", default="4", help="number of labelled cases or groups")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--iterations", nargs="+", type=int, default=[300, 1000, 4000])
    parser.add_argument("--set", nargs="+", default=[], help="settings of every run")
    parser.add_argument("--configuration", default="2d")
    parser.add_argument("--size", default="tiny", help="'' for the full network")
    parser.add_argument("--group-by")
    parser.add_argument("--work", type=Path, required=True, help="folder for preprocessed data and models")
    arguments = parser.parse_args()
    arguments.published, arguments.patch, arguments.jobs = None, None, 1
    open_work(arguments)
    worst = 0.0
    for iterations in arguments.iterations:
        for seed in arguments.seeds:
            log = train(arguments, prepare(arguments, arguments.labeled, seed), seed, iterations)
            found = lead(log)
            print(
                f"{iterations} iterations, seed {seed}: teacher - student {found.min():+.4f} at the lowest, "
                f"{found[-1]:+.4f} at the end",
                flush=True,
            )
            worst = min(worst, found.min()) if iterations <= 1000 else worst
    return int(worst < -ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
