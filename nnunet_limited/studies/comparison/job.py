"""One step of a run of a study, as the workflow calls it in the study's folder.

    python -m nnunet_limited.studies.comparison.job train Dataset004_Hippocampus/2d/l4s0/supervised/fold_0

What it calls, and what that prints, is in the step's log; a step that fails leaves a mark beside it.
"""

from __future__ import annotations

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from filelock import FileLock, Timeout

from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.splits.check import load_split
from nnunet_limited.studies.comparison.folder import StudyFolder, failed_marker, read_record
from nnunet_limited.studies.comparison.study import ALL, Method, Run, left_out, test_cases
from nnunet_limited.util.files import read_object, replacing, write_json

PACKAGES = ("nnunet-limited", "nnunetv2", "torch", "numpy", "monai")
Call = Callable[..., str]


def main(arguments: list[str]) -> int:
    """Do a step; return the exit status."""
    step, identifier, *devices = arguments
    folder = StudyFolder(Path("."))
    os.environ.update(folder.environment())
    if step in ("split", "plan"):
        dataset, split = identifier.split("/")
        run = next(run for run in folder.study.runs() if (run.dataset, run.split) == (dataset, split))
    else:
        run = folder.run(identifier)
    return do(folder.log(run, step), f"{identifier}: {step}", lambda call: STEPS[step](folder, run, call, *devices))


def do(log: Path, name: str, work: Callable[[Call], None]) -> int:
    """Do ``work`` with a function that calls commands, all of which is in ``log``; return the exit status.

    Work that fails leaves a mark beside its log, and the other jobs go on.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    failed_marker(log).unlink(missing_ok=True)
    with log.open("w", encoding="utf-8") as stream:
        try:
            work(lambda *words: _call(words, stream))
        except Exception as error:  # whatever it is, the report names it
            if not isinstance(error, LimitedError):
                traceback.print_exc(file=stream)
            print(f"error: {error}", file=stream)
            failed_marker(log).write_text(f"{error}\n", encoding="utf-8")
            print(f"{name} failed, see {log}", file=sys.stderr)
            return 1
    return 0


def _call(words: tuple[str, ...], log: TextIO) -> str:
    """Run a command and return what it prints; all that it says is in the log."""
    command = list(words)
    if command[0] == "nnunet-limited":
        command[:1] = [sys.executable, "-m", "nnunet_limited"]
    else:
        command[0] = shutil.which(command[0], path=str(Path(sys.executable).parent)) or command[0]
    print(f"$ {shlex.join(words)}", file=log, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=log, text=True, check=False)
    print(done.stdout, file=log, flush=True)
    if done.returncode:
        raise LimitedError(f"{shlex.join(words)} ended with status {done.returncode}")
    return done.stdout


def _split(folder: StudyFolder, run: Run, call: Call) -> None:
    study = folder.study
    words = ["split", run.dataset, "--name", run.split, "--seed", str(run.seed)]
    words += ["--labeled", run.labeled] if run.labeled != ALL else []
    if study.published is not None:
        words += ["--published", str(RawDataset.load(run.dataset).folder / study.published)]
    else:
        words += ["--folds", str(study.number_of_folds)]
    if study.cases is not None:
        others = _split_folder(folder, run) / "left_out.txt"
        with replacing(others) as temporary:
            temporary.write_text(
                "\n".join(["# not used", *left_out(RawDataset.load(run.dataset), study.cases)]), encoding="utf-8"
            )
        words += ["--test-cases", str(others)]
    words += ["--protocol", study.protocol] if study.protocol else []
    words += ["--group-by", study.group_by] if study.group_by else []
    made = json.loads(call("nnunet-limited", *words, "--json"))
    write_json(_split_folder(folder, run) / "split.json", made["info"])


def _plan(folder: StudyFolder, run: Run, call: Call) -> None:
    study = folder.study
    words = ["plan", run.dataset, "--split", run.split]
    words += [word for configuration in study.configurations for word in ("-c", configuration)]
    words += ["--size", study.size] if study.size else []
    words += ["--patch", study.patch] if study.patch else []
    planned = json.loads(call("nnunet-limited", *words, "--json"))
    write_json(_split_folder(folder, run) / "plans.json", planned)


def _split_folder(folder: StudyFolder, run: Run) -> Path:
    return folder.path / "splits" / run.dataset / run.split


def _train(folder: StudyFolder, run: Run, call: Call, devices: str) -> None:
    study = folder.study
    plans = read_object(_split_folder(folder, run) / "plans.json", "record of plans", "delete its folder")["plans"]
    method = study.method(run.method)
    with device(devices):
        record = train(call, method, run.dataset, run.configuration, plans, run.fold, settings_of(study, run.seed))
    split = load_split(Path(os.environ["nnUNet_preprocessed"]) / run.dataset, run.split)
    about = {"split_hash": split.hash, "labeled_cases": len(split.folds[run.fold].train)}
    write_json(folder.run_folder(run) / "trained.json", {**record, **about})


def train(
    call: Call, method: Method, dataset: str, configuration: str, plans: str, fold: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Train a method's fold, self-training from end to end, and return what is to be recorded of it."""
    from nnunet_limited.runs.request import find_trainer

    rounds = "pseudo_labels" in find_trainer(method.trainer).Config.model_fields
    words = ["self-train" if rounds else "crossval", dataset, configuration, "-tr", method.trainer]
    words += ["-p", plans, "--folds", str(fold)]
    for key, value in (settings | dict(method.settings)).items():
        words += ["--set", f"{key}={value}"]
    if rounds:
        words += ["--rounds", str(method.rounds), *(["--teacher", method.teacher] if method.teacher else [])]
        words += ["--sources", os.path.expandvars(method.sources)] if method.sources else []
        words += [word for how in method.ask for word in ("--ask", how)]
        words += ["--accept-licence", method.accept_licence] if method.accept_licence else []
    printed = json.loads(call("nnunet-limited", *words, "--json"))
    results = printed if rounds else [printed]
    root = Path(os.environ["nnUNet_results"])
    folds = [
        root / r["dataset"] / f"{r['trainer']}__{r['plans']}__{r['configuration']}" / f"fold_{fold}" for r in results
    ]
    logged = [_logged(one) for one in folds]
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


def _peak_memory() -> float:
    """Return the largest memory of a sub-process so far, in MB; NaN on Windows, which does not record it."""
    try:
        import resource
    except ImportError:
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


def settings_of(study: Any, seed: int) -> dict[str, Any]:
    """Return the settings that a study gives to every run of a seed."""
    return {
        "seed": seed,
        "num_epochs": study.iterations // study.iterations_per_epoch,
        "num_iterations_per_epoch": study.iterations_per_epoch,
    }


def _logged(fold: Path) -> dict[str, list[Any]]:
    """Return what a run logged of each epoch."""
    import torch

    logged: dict[str, list[Any]] = torch.load(fold / "checkpoint_final.pth", map_location="cpu", weights_only=False)[
        "logging"
    ]
    return logged


def _minutes(logged: dict[str, list[Any]]) -> float:
    """Return how long the epochs of a run took, those before an interruption included."""
    pairs = zip(logged["epoch_start_timestamps"], logged["epoch_end_timestamps"], strict=False)
    return float(sum(end - start for start, end in pairs) / 60)


def _curves(logged: dict[str, list[Any]]) -> dict[str, list[float]]:
    """Return what was logged as one number an epoch."""
    return {
        key: [float(value) for value in values]
        for key, values in logged.items()
        if not key.startswith("epoch_") and all(np.ndim(value) == 0 for value in values)
    }


def _predict(folder: StudyFolder, run: Run, call: Call, devices: str) -> None:
    study, record = folder.study, read_record(folder, run)
    assert study.test is not None
    images = RawDataset.load(run.dataset).folder / study.test.images
    out = folder.run_folder(run) / "predictions"
    words = ["-i", str(images), "-o", str(out), "-d", run.dataset, "-p", record["plans"], "-c", run.configuration]
    words += ["-tr", record["trainer"], "-f", str(run.fold)]
    with device(devices) as chosen:
        call("nnUNetv2_predict", *words, "-device", chosen)
    write_json(folder.run_folder(run) / "predicted.json", {"predictions": str(out)})


def _evaluate(folder: StudyFolder, run: Run, call: Call) -> None:
    study = folder.study
    description = Path(os.environ["nnUNet_preprocessed"]) / run.dataset / "dataset.json"
    predictions, labels = compared(folder, run)
    raw = RawDataset.load(run.dataset)
    split = load_split(Path(os.environ["nnUNet_preprocessed"]) / run.dataset, run.split)
    for case in test_cases(study, raw) or split.folds[run.fold].val:
        if not (predictions / f"{case}{raw.dataset_json['file_ending']}").is_file():
            raise LimitedError(f"{predictions} has no prediction of {case}; delete {run.identifier} and run again")
    words = ["evaluate", str(predictions), str(labels), "--dataset-json", str(description)]
    words += ["--tolerance", str(study.tolerance), *(["--voxels"] if study.voxels else [])]
    call("nnunet-limited", *words, "--out", str(folder.run_folder(run) / "metrics.csv"))


def compared(folder: StudyFolder, run: Run) -> tuple[Path, Path]:
    """Return the folder of a run's predictions, of the test set or else of the validation cases, and that of labels."""
    study = folder.study
    root = folder.path.resolve()
    if study.test is not None:
        labels = root / "raw" / run.dataset / study.test.labels
        return folder.run_folder(run) / "predictions", labels
    last = folder.path / read_record(folder, run)["results"][-1]
    return last / "validation", root / "preprocessed" / run.dataset / "gt_segmentations"


@contextmanager
def device(names: str) -> Iterator[str]:
    """Yield the device to use, and hold one of the GPUs that the study shares out.

    ``names`` are CUDA's, ``0/1``; one that is there twice takes two trainings. It is ``none`` on a machine whose GPUs
    are not to be used, and empty where the scheduler says which to use.
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


STEPS: dict[str, Callable[..., None]] = {
    "split": _split,
    "plan": _plan,
    "train": _train,
    "predict": _predict,
    "evaluate": _evaluate,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
