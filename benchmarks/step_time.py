"""Is a training step as fast as the sum of its parts, and as small as a supervised one?

For each trainer, in one run and interleaved so that a busy machine disturbs both sides alike: the time of a whole step
against labelled forward+backward, unlabelled forward+backward, teacher forward, and the optimizer step, each measured
alone; and the peak of memory held by tensors during a step against the supervised trainer's.

    python benchmarks/step_time.py [--device cuda] [--configuration 2d|3d_fullres] [--size tiny|default]

Exit status 1 if a step takes more than 1.10 of its parts, or more than 1.15 of the supervised memory (networks besides
the student not counted).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

SEMI_SUPERVISED = ["LimitedMeanTeacherTrainer"]
SUPERVISED = "LimitedSupervisedTrainer"
TIME_LIMIT, MEMORY_LIMIT = 1.10, 1.15


def prepare(root: Path, configuration: str, size: str) -> tuple[str, str]:
    """Write the phantom, split and plan it; return dataset and plans."""
    for name in ("raw", "preprocessed", "results"):
        (root / name).mkdir()
        os.environ[f"nnUNet_{name}"] = str(root / name)
    os.environ["nnUNet_n_proc_DA"] = "0"
    from nnunet_limited.demo.phantom import write_phantom_dataset
    from nnunet_limited.host.dataset import RawDataset
    from nnunet_limited.planners.configure import configure
    from nnunet_limited.planners.plan import PlanRequest, make_plans
    from nnunet_limited.splits import SplitRequest, make_split, write_split
    from nnunet_limited.splits.classes import class_reader

    folder = write_phantom_dataset(root / "raw", training=8, test=0)
    raw = RawDataset.load(folder.name)
    preprocessed = root / "preprocessed" / raw.name
    write_split(preprocessed, *make_split(raw, preprocessed, SplitRequest("l3", "3"), class_reader(raw)))
    plans = make_plans(PlanRequest(raw.name, "l3", (configuration,), size=size, processes=1)).plans
    settings = {"seed": 0, "start_fraction": 0.0, "rampup_fraction": 0.0}
    return raw.name, configure(preprocessed, plans, settings, "benchmark")


class Bench:
    """One trainer with one batch, and its step taken apart."""

    def __init__(self, name: str, dataset: str, configuration: str, plans: str, device: str) -> None:
        import torch
        from nnunetv2.run.run_training import get_trainer_from_args

        self.device = torch.device(device)
        with contextlib.redirect_stdout(io.StringIO()):
            self.trainer = get_trainer_from_args(dataset, configuration, 0, name, plans, device=self.device)
            self.trainer.on_train_start()
            self.trainer.on_train_epoch_start()
        self.batch = next(self.trainer.dataloader_train)
        self.data = self.trainer._to_device(self.batch["data"])
        self.target = self.trainer._to_device(self.batch["target"])
        if self.trainer.uses_unlabeled:
            self.mask = self.trainer._to_device(self.batch["unlabeled"]["target"])
            self.weak, self.strong = self.trainer._to_device(self.batch["unlabeled"]["data"]).chunk(2, dim=1)

    def step(self) -> None:
        self.trainer.train_step(self.batch)

    def labelled(self) -> None:
        trainer = self.trainer
        trainer.optimizer.zero_grad(set_to_none=True)
        with trainer._autocast():
            loss = trainer.loss(trainer.network(self.data), self.target)
        trainer._backward(loss)
        loss.item()

    def teacher(self) -> None:
        """Every forward pass without gradient that a step makes."""
        import torch

        trainer = self.trainer
        with torch.no_grad(), trainer._autocast():
            for network in trainer.partners.values():
                network(self.weak)

    def unlabelled(self) -> None:
        """The student's part of the unlabelled pass: the teacher's output is that of a network that costs nothing."""
        trainer = self.trainer
        partners = trainer.partners
        trainer.partners = {name: _Remembered(net, self.weak) for name, net in partners.items()}
        with trainer._autocast():
            loss = trainer.unsupervised_loss(self.weak, self.strong, self.mask).loss
        trainer._backward(loss)
        trainer.partners = partners

    def update(self) -> None:
        self.trainer._optimizer_step()
        self.trainer.after_step()


class _Remembered:
    """A network that has computed its output already."""

    outputs: dict[int, object] = {}  # noqa: RUF012

    def __init__(self, network: object, data: object) -> None:
        import torch

        if id(network) not in self.outputs:
            with torch.no_grad():
                self.outputs[id(network)] = network(data)  # type: ignore[operator]
        self.output = self.outputs[id(network)]

    def __call__(self, data: object) -> object:
        return self.output


def timed(call, device) -> float:
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_memory(bench: Bench) -> float:
    """Return the peak MiB of tensors alive during a step, above what was alive before it."""
    import torch

    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        bench.step()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    with torch.profiler.profile(profile_memory=True, with_stack=False) as profile:
        bench.step()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--configuration", default="2d")
    parser.add_argument("--size", default="tiny", choices=["tiny", "default"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    failed = False
    with tempfile.TemporaryDirectory() as root, contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        dataset, plans = prepare(Path(root), arguments.configuration, arguments.size)
        baseline = Bench(SUPERVISED, dataset, arguments.configuration, plans, arguments.device)
        baseline.step()
        supervised_memory = peak_memory(baseline)
        print(f"{SUPERVISED}: memory of a step {supervised_memory:.1f} MiB")
        for name in SEMI_SUPERVISED:
            bench = Bench(name, dataset, arguments.configuration, plans, arguments.device)
            parts = {part: getattr(bench, part) for part in ("labelled", "teacher", "unlabelled", "update")}
            for call in (bench.step, *parts.values()):
                call()
            times: dict[str, list[float]] = {part: [] for part in ("step", *parts)}
            for _ in range(arguments.rounds):
                times["step"].append(timed(bench.step, bench.device))
                for part, call in parts.items():
                    times[part].append(timed(call, bench.device))
            medians = {part: statistics.median(values) for part, values in times.items()}
            ratio = medians["step"] / sum(value for part, value in medians.items() if part != "step")
            memory = peak_memory(bench) / supervised_memory
            print(f"{name}: " + ", ".join(f"{part} {1000 * value:.1f} ms" for part, value in medians.items()))
            print(f"{name}: step / parts {ratio:.3f} (limit {TIME_LIMIT}), memory / supervised {memory:.3f} (limit "
                  f"{MEMORY_LIMIT})")  # fmt: skip
            failed |= ratio > TIME_LIMIT or memory > MEMORY_LIMIT
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
