"""Is a training step as fast as the sum of its parts, and as small as a supervised one?

For each trainer, in one run and interleaved so that a busy machine disturbs both sides alike: the time of a whole step
against labelled forward+backward (of every network that learns from labels), unlabelled forward+backward, passes
without gradient (of teachers and for pseudo-labels), and the optimizer step, each measured alone; and the time and the
peak of memory held by tensors during a step against the supervised trainer's.

    python benchmarks/step_time.py [TRAINER …] [--device cuda] [--configuration 2d|3d_fullres] [--size tiny|default]

With --write the ratios go to ``nnunet_limited/trainers/costs.json``, which ``nnunet-limited trainers`` shows.

Exit status 1 if a step takes more than 1.10 of its parts, or that of the mean teacher, which back-propagates through
one network at a time, more than 1.15 of the supervised memory (networks besides the student not counted).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ONE_AT_A_TIME = {"LimitedMeanTeacherTrainer"}
SUPERVISED = "LimitedSupervisedTrainer"
TIME_LIMIT, MEMORY_LIMIT = 1.10, 1.15


def prepare(root: Path, configuration: str, size: str, steps: int = 0) -> tuple[str, str]:
    """Write the phantom, split and plan it, train ``steps`` supervised ones for labels; return dataset and plans."""
    for name in ("raw", "preprocessed", "results"):
        (root / name).mkdir()
        os.environ[f"nnUNet_{name}"] = str(root / name)
    os.environ["nnUNet_n_proc_DA"] = "0"
    from nnunet_limited.datasets.phantom import write_phantom_dataset
    from nnunet_limited.datasets.raw import RawDataset
    from nnunet_limited.planners.plan import make_plans
    from nnunet_limited.planners.request import PlanRequest
    from nnunet_limited.runs.variants import configure
    from nnunet_limited.splits import SplitRequest
    from nnunet_limited.splits.make import class_reader, make_split, write_split

    folder = write_phantom_dataset(root / "raw", training=8, test=0)
    write_boxes(folder)
    raw = RawDataset.load(folder.name)
    preprocessed = root / "preprocessed" / raw.name
    write_split(preprocessed, *make_split(raw, preprocessed, SplitRequest(name="l3", labeled="3"), class_reader(raw)))
    request = PlanRequest(dataset=raw.name, split="l3", configurations=(configuration,), size=size, processes=1)
    plans = make_plans(request).plans
    settings = {"seed": 0, "start_fraction": 0.0, "rampup_fraction": 0.0}
    name = configure(preprocessed, plans, settings, "benchmark")
    write_pseudo_labels(raw.name, configuration, name, steps)
    return raw.name, name


def write_boxes(folder: Path) -> None:
    """Put boxes beside the labels of a raw dataset, for the trainer that learns them."""
    import numpy as np
    import SimpleITK as sitk

    from nnunet_limited.annotations.annotation import box_codes
    from nnunet_limited.annotations.objects import boxes

    (folder / "labelsBoxes").mkdir()
    for file in (folder / "labelsTr").iterdir():
        label = sitk.ReadImage(str(file))
        array = sitk.GetArrayFromImage(label)
        found = boxes(array, int(array.max()) + 1, np.random.default_rng(0)).boxes
        image = sitk.GetImageFromArray(box_codes(array.shape, found))
        image.CopyInformation(label)
        sitk.WriteImage(image, str(folder / "labelsBoxes" / file.name))


def write_pseudo_labels(dataset: str, configuration: str, plans: str, steps: int) -> None:
    """Write pseudo-labels for the self-training trainer: the predictions of a network trained for ``steps``."""
    from nnunet_limited.pseudo_labels.job import ModelLabeller, PseudoLabelJob
    from nnunet_limited.runs.predict import CHECKPOINT
    from nnunet_limited.runs.request import TrainRequest

    trainer = Bench(SUPERVISED, dataset, configuration, plans, "cpu").trainer
    for _ in range(steps):
        trainer.train_step(next(trainer.dataloader_train))
    trainer.save_checkpoint(str(Path(trainer.output_folder) / CHECKPOINT))
    model = TrainRequest(dataset=dataset, configuration=configuration, fold="0", trainer=SUPERVISED, plans=plans)
    job = PseudoLabelJob(ModelLabeller(model), "model")
    for labels in job.check([0]):
        job.make(labels, "cpu", iter)


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

    def step(self) -> None:
        self.trainer.train_step(self.batch)

    def prepare_parts(self) -> None:
        """Find out which passes without gradient a step makes, and remember what they return."""
        trainer = self.trainer
        self.crops = trainer.crops(self.batch)
        self.student, self.partners = trainer.network, trainer.partners
        self.passes: list[tuple[object, tuple]] = []
        self.remembering = {
            name: Remembering(network, self.passes) for name, network in [("", self.student), *self.partners.items()]
        }
        self.unlabelled()
        for network in self.remembering.values():
            network.recording = False

    def labelled(self) -> None:
        for network in (self.student, *(self.partners[name] for name in self.trainer.supervised_partners)):
            self.trainer._supervised_backward(network, self.crops, sync=True)

    def without_gradient(self) -> None:
        import torch

        with torch.no_grad(), self.trainer._autocast():
            for network, arguments in self.passes:
                network(*arguments)  # type: ignore[operator]

    def unlabelled(self) -> None:
        """The unlabelled part of a step, in which passes without gradient cost nothing."""
        trainer = self.trainer
        trainer.network = self.remembering[""]
        trainer.partners = {name: self.remembering[name] for name in self.partners}
        with trainer._autocast(cache=False):
            found = trainer.unsupervised_loss(self.crops)
        trainer._backward(found.loss if found.partner_loss is None else found.loss + found.partner_loss)
        trainer.network, trainer.partners = self.student, self.partners

    def update(self) -> None:
        self.trainer._optimizer_step()
        self.trainer.after_step()


class Remembering:
    """A network whose passes without gradient are computed while it is ``recording`` and remembered afterwards."""

    def __init__(self, network: object, passes: list) -> None:
        self.network, self.passes = network, passes
        self.outputs: dict = {}
        self.recording = True

    def __call__(self, *arguments: object) -> object:
        import torch

        if torch.is_grad_enabled():
            return self.network(*arguments)  # type: ignore[operator]
        key = tuple(getattr(argument, "shape", None) for argument in arguments)
        if self.recording:
            self.passes.append((self.network, arguments))
            self.outputs[key] = self.network(*arguments)  # type: ignore[operator]
        return self.outputs[key]

    def __getattr__(self, name: str) -> object:
        return getattr(self.network, name)


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


def write_cost(trainer: str, time: float, memory: float, file: Path | None = None) -> None:
    """Write the cost of a trainer's step relative to supervised training, to one decimal, beside those of others."""
    from nnunet_limited.trainers.catalogue import COSTS

    file = file or COSTS
    costs = json.loads(file.read_text(encoding="utf-8"))
    costs[trainer] = {"relative_time": round(time, 1), "relative_memory": round(memory, 1)}
    lines = [f"  {json.dumps(name)}: {json.dumps(cost)}" for name, cost in sorted(costs.items())]
    file.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trainers", nargs="*", help="default: all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--configuration", default="2d")
    parser.add_argument("--size", default="tiny", choices=["tiny", "default"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="write time and memory of a step to costs.json")
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    failed = False
    with tempfile.TemporaryDirectory() as root, contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        dataset, plans = prepare(Path(root), arguments.configuration, arguments.size)
        from nnunet_limited.trainers.catalogue import learns_without_label, trainer_names

        baseline = Bench(SUPERVISED, dataset, arguments.configuration, plans, arguments.device)
        baseline.step()
        supervised_memory = peak_memory(baseline)
        for name in arguments.trainers or [n for n in trainer_names() if learns_without_label(n)]:
            bench = Bench(name, dataset, arguments.configuration, plans, arguments.device)
            bench.prepare_parts()
            parts = {part: getattr(bench, part) for part in ("labelled", "without_gradient", "unlabelled", "update")}
            calls = {"supervised": baseline.step, "step": bench.step, **parts}
            for call in calls.values():
                call()
            times: dict[str, list[float]] = {part: [] for part in calls}
            for _ in range(arguments.rounds):
                for part, call in calls.items():
                    times[part].append(timed(call, bench.device))
            medians = {part: statistics.median(values) for part, values in times.items()}
            ratio = medians["step"] / sum(medians[part] for part in parts)
            memory = peak_memory(bench) / supervised_memory
            print(f"{name}: " + ", ".join(f"{part} {1000 * value:.1f} ms" for part, value in medians.items()))
            print(
                f"{name}: step / parts {ratio:.3f} (limit {TIME_LIMIT}), step / supervised "
                f"{medians['step'] / medians['supervised']:.2f}, memory / supervised {memory:.2f}",
                flush=True,
            )
            if arguments.write:
                write_cost(name, medians["step"] / medians["supervised"], memory)
            failed |= ratio > TIME_LIMIT or (name in ONE_AT_A_TIME and memory > MEMORY_LIMIT)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
