"""The steps of a run. Each is a process that calls commands, logs them, and marks a failure."""

import json
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO, TypedDict

import numpy as np
from filelock import FileLock, Timeout

from nnunet_limited.engine.settings import parse_assignments
from nnunet_limited.errors import LimitedError
from nnunet_limited.studies.engine.begun import Training, former_defaults
from nnunet_limited.studies.engine.failures import failed_marker
from nnunet_limited.studies.engine.study_file import Method, StudyFile
from nnunet_limited.util.children import end_with_run, tied
from nnunet_limited.util.files import replace_text
from nnunet_limited.util.processes import python_module

PACKAGES = ("nnunet-limited", "nnunetv2", "torch", "numpy", "monai")
Call = Callable[..., str]


class TrainingRecord(TypedDict):
    """The record of a training. For self-training ``results`` and ``curves`` have an entry per round."""

    trainer: str
    plans: str
    results: list[str]  # folders of the fold, relative to the study's folder
    minutes: float
    curves: list[dict[str, list[float]]]  # one number per epoch
    memory_mb: float
    command: str
    finished: str
    machine: str
    versions: dict[str, str]


def do(log: Path, name: str, work: Callable[[Call], None]) -> int:
    """Do ``work`` with a function that calls commands and logs them; return the exit status.

    Work that fails leaves a marker beside its log; other jobs are not affected.
    """
    end_with_run()
    log.parent.mkdir(parents=True, exist_ok=True)
    failed_marker(log).unlink(missing_ok=True)
    with log.open("w", encoding="utf-8") as stream:
        try:
            work(lambda *words: _call(words, stream))
        except Exception as error:  # any error is a failed step, which the report shows
            if not isinstance(error, LimitedError):
                traceback.print_exc(file=stream)
            print(f"error: {error}", file=stream)
            replace_text(failed_marker(log), f"{error}\n")
            print(f"{name} failed, see {log}", file=sys.stderr)
            return 1
    return 0


def _call(words: tuple[str, ...], log: TextIO) -> str:
    """Run a command and return what it prints; its output and errors are in the log."""
    program, *others = words
    command = [shutil.which(program, path=str(Path(sys.executable).parent)) or program, *others]
    if program == "nnunet-limited":
        command[:1] = python_module("nnunet_limited")
    print(f"$ {shlex.join(words)}", file=log, flush=True)
    done = subprocess.run(tied(command), stdout=subprocess.PIPE, stderr=log, encoding="utf-8", check=False)
    print(done.stdout, file=log, flush=True)
    if done.returncode:
        raise LimitedError(f"{shlex.join(words)} ended with status {done.returncode}")
    return done.stdout


def options(values: Mapping[str, Any]) -> list[str]:
    """Return the words of a command's options: True is a flag; None, False and "" are left out; a list is repeated."""
    words = []
    for name, value in values.items():
        for one in value if isinstance(value, (list, tuple)) else [value]:
            if one is True:
                words.append(name)
            elif one is not None and one is not False and one != "":
                words += [name, str(one)]
    return words


def draw_words(study: StudyFile, **changes: Any) -> list[str]:
    """Return the options of ``split`` for how a study draws its labelled cases, with some fields changed."""
    return options({f"--{name.replace('_', '-')}": value for name, value in (study.draw | changes).items()})


def train(
    call: Call, study: StudyFile, training: Training, others: Iterable[Training], redo: bool = False
) -> TrainingRecord:
    """Train a method's fold, with all rounds of self-training, and return its record.

    ``others`` are the other trainings of the method, whose defaults it is to have. With ``redo``, folds that were
    trained on other data are moved aside.
    """
    from nnunet_limited.runs.request import find_trainer
    from nnunet_limited.util.weights import read_weights

    method, dataset, configuration, fold = training.method, training.dataset, training.configuration, training.fold
    rounds = find_trainer(method.trainer).learns_pseudo_labels != "none"
    steps = study.iterations_per_epoch
    settings = {"seed": training.seed, "num_epochs": study.iterations // steps, "num_iterations_per_epoch": steps}
    assignments = _assignments(settings | method.settings)
    assignments += _assignments(former_defaults(training, others, parse_assignments(assignments)))
    root = Path(os.environ["nnUNet_results"])
    words = ["self-train" if rounds else "crossval", dataset, configuration]
    words += options(
        {"-tr": method.trainer, "-p": training.plans, "--folds": fold, "--set": assignments, "--redo": redo}
    )
    words += self_training_words(method) if rounds else []
    printed = json.loads(call("nnunet-limited", *words, "--dice-only", "--json"))  # a later step measures all
    results = printed if rounds else [printed]
    models = [root / one["dataset"] / f"{one['trainer']}__{one['plans']}__{one['configuration']}" for one in results]
    folds = [model / f"fold_{fold}" for model in models]
    files = [one / "checkpoint_final.pth" for one in folds]
    logged = [read_weights(file, "train the fold again", mmap=True)["logging"] for file in files]
    return {
        "trainer": results[-1]["trainer"],
        "plans": results[-1]["plans"],
        "results": [str(one.relative_to(root.parent)) for one in folds],
        "minutes": sum(map(_minutes, logged)),
        "curves": [_curves(log) for log in logged],
        "memory_mb": _peak_memory(),
        "command": shlex.join(["nnunet-limited", *words]),
        "finished": time.strftime("%Y-%m-%d %H:%M:%S"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {package: version(package) for package in PACKAGES},
    }


def _assignments(settings: dict[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in settings.items()]


def self_training_words(method: Method) -> list[str]:
    """Return the options of ``self-train`` that a method asks for."""
    sources = os.path.expandvars(method.sources or "")
    words = options({"--rounds": method.rounds, "--teacher": method.teacher, "--sources": sources, "--ask": method.ask})
    return words + options({"--accept-licence": method.accept_licence})


def _peak_memory() -> float:
    """Return the largest memory of a sub-process so far, in MB; NaN on Windows, which does not record it."""
    try:
        import resource
    except ImportError:
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


def _minutes(logged: dict[str, list[Any]]) -> float:
    """Return how long the epochs of a run took, those before an interruption included."""
    pairs = zip(logged["epoch_start_timestamps"], logged["epoch_end_timestamps"], strict=False)
    return float(sum(end - start for start, end in pairs) / 60)


def _curves(logged: dict[str, list[Any]]) -> dict[str, list[float]]:
    """Return what was logged as one number per epoch."""
    return {
        key: [float(value) for value in values]
        for key, values in logged.items()
        if not key.startswith("epoch_") and all(np.ndim(value) == 0 for value in values)
    }


@contextmanager
def device(names: str) -> Iterator[str]:
    """Yield the device to use, and reserve one of the GPUs of the study.

    ``names`` are CUDA's, e.g. ``0/1``; a name that is repeated stands for a GPU that takes several trainings. It is
    ``none`` on a machine whose GPUs are not used, and empty where the scheduler chooses the GPU.
    """
    import torch

    if names == "none":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if names in ("", "none"):
        yield "cuda" if torch.cuda.is_available() else "cpu"
        return
    while True:
        for slot, name in enumerate(names.split("/")):
            lock = FileLock(f".gpu_{slot}.lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            with lock:
                os.environ["CUDA_VISIBLE_DEVICES"] = name
                yield "cuda"
            return
        time.sleep(1)
