"""How strong is the unsupervised loss of each trainer, with its default weight?

Prints the norm of the student's gradient from the unsupervised part, divided by that from the supervised part: the
median over batches. All trainers start at one checkpoint: the phantom, seed 0, 500 supervised steps, 2D, ``--size
tiny``. Networks besides the student and its average are trained first, for as many steps; the student stays as it is.

    python benchmarks/gradient_ratio.py [TRAINER …] [--json]

A ratio far below 1 means supervised training at the price of an unlabelled stream. Of entropy minimisation it is meant
to be small, because a confident network is not a right one; the adversarial loss reaches the student through a
discriminator that gets better, so its ratio is that of one moment.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import math
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from step_time import SUPERVISED, Bench, prepare

STEPS, BATCHES = 500, 20


def ratio(name: str, dataset: str, plans: str, checkpoint: Path, batches: int, steps: int) -> float:
    """Return the median ratio of one trainer."""
    trainer = Bench(name, dataset, "2d", plans, "cpu").trainer
    weights = torch.load(checkpoint, map_location="cpu", weights_only=False)["network_weights"]

    def load() -> None:
        trainer.network.load_state_dict(weights)
        if "teacher" in trainer.partners:
            trainer.partners["teacher"].load_state_dict(weights)

    load()
    freeze(trainer.optimizer)
    if trainer.partner_optimizers:
        for _ in range(steps):
            trainer.train_step(next(trainer.dataloader_train))
    for optimizer, _ in trainer.partner_optimizers.values():
        freeze(optimizer)
    load()
    trainer.num_iterations_per_epoch = 1  # the ratio is measured in the last step of an epoch
    found = []
    for _ in range(batches):
        trainer.train_step(next(trainer.dataloader_train))
        found.append(trainer.gradient_ratio)
    return statistics.median(found)


def copy_labels(root: Path) -> None:
    """Give the model's pseudo-labels to the trainers that learn those of several sources, under their name."""
    for folder in root.rglob("pseudo_labels/*/model"):
        shutil.copytree(folder, folder.with_name("consensus"))


def freeze(optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer change nothing."""
    for group in optimizer.param_groups:
        group["lr"] = group["weight_decay"] = 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trainers", nargs="*", help="default: all that use unlabelled cases")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--batches", type=int, default=BATCHES)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    with tempfile.TemporaryDirectory() as root, contextlib.ExitStack() as stack:
        for redirect in (contextlib.redirect_stdout, contextlib.redirect_stderr):
            stack.enter_context(redirect(io.StringIO()))
        dataset, plans = prepare(Path(root), "2d", "tiny", arguments.steps)
        from nnunet_limited import trainers
        from nnunet_limited.trainers.catalogue import learns_without_label, trainer_names

        known = [name for name in trainer_names() if learns_without_label(name)]
        # SemiSAM is a mean teacher that needs the weights of a promptable model.
        known = [name for name in known if getattr(getattr(trainers, name).Config(), "prompter", "") is not None]
        copy_labels(Path(root))
        checkpoint = next(Path(root, "results").rglob(f"{SUPERVISED}__*/fold_0/checkpoint_final.pth"))
        for name in arguments.trainers or known:
            found[name] = ratio(name, dataset, plans, checkpoint, arguments.batches, arguments.steps)
            if not arguments.json:
                print(f"{name}: {found[name]:.3f}", file=sys.__stdout__, flush=True)
    if arguments.json:
        print(json.dumps({name: None if math.isnan(value) else round(value, 4) for name, value in found.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
