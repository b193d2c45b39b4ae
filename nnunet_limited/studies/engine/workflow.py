"""Run a study on Snakemake."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nnunet_limited.errors import LimitedError
from nnunet_limited.studies.comparison.folder import StudyFolder, failed_marker

SNAKEFILE = Path(__file__).with_name("Snakefile")


@dataclass(frozen=True)
class Execution:
    """Where and how much at once: ``cores`` and ``gpus`` (their names) of this machine, or ``jobs`` of an ``executor``.

    With an executor, ``cores`` and ``gpus`` are those of one training.
    """

    cores: int = 1
    gpus: tuple[str, ...] = ()
    share_gpus: int = 1
    executor: str | None = None
    jobs: int = 100
    options: tuple[str, ...] = ()


def choose_gpus(wanted: int | None, executor: str | None) -> tuple[str, ...]:
    """Return the names of the GPUs to use: as many as wanted of those that CUDA sees, by default all."""
    import torch

    if executor is not None:
        if wanted not in (0, 1):
            raise LimitedError(f"--executor {executor}: say with --gpus 0 or --gpus 1 what a training gets")
        return ("",) * wanted
    count = torch.cuda.device_count()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    if wanted is not None and wanted > count:
        raise LimitedError(f"--gpus {wanted}: this machine shows {count} GPUs; ask for that many, or fewer")
    return tuple(visible.split(",")[: count if wanted is None else wanted]) if count else ()


def run_study(folder: StudyFolder, execution: Execution, snakefile: Path = SNAKEFILE) -> int:
    """Do what is missing of a study, by the ``snakefile`` of its kind; return Snakemake's exit status.

    A job that fails does not stop the others.
    """
    environment = {**os.environ, **folder.environment()}
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(snakefile), "--directory", str(folder.path)]
    command += ["--keep-going", "--rerun-incomplete", "--rerun-triggers", "mtime", "--nolock"]
    settings: dict[str, Any] = {"gpu": min(1, len(execution.gpus)), "threads": execution.cores}
    if execution.executor is None:
        slots = execution.gpus * execution.share_gpus
        left = sum(state != "done" for _, state, _ in states(folder))
        settings["threads"] = threads = max(1, execution.cores // max(1, len(slots) or left))
        settings["devices"] = "/".join(slots) or "none"
        command += ["--cores", str(execution.cores), "--resources", f"gpu={len(slots)}"]
        environment["nnUNet_def_n_proc"] = str(threads)
        environment.setdefault("OMP_NUM_THREADS", str(threads))
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if not slots:  # or glibc gives what every convolution frees back to the kernel, a fifth of the time
            environment.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**25))
            environment.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**30))
    else:
        command += ["--executor", execution.executor, "--jobs", str(execution.jobs)]
    command += ["--config", *(f"{key}={value}" for key, value in settings.items()), *execution.options]
    lock = FileLock(folder.path / ".running.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise LimitedError(f"{folder.path} is being run already; wait for that to end, or stop it") from error
    with lock:
        status = _wait(subprocess.Popen(command, env=environment))
    for _, state, log in states(folder):
        if state == "started" and log is not None and "--dry-run" not in execution.options:
            failed_marker(log).write_text(
                "it ended without a word, perhaps killed for want of memory or time\n", encoding="utf-8"
            )
    return status


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for Snakemake to end, and to take back its jobs when it is interrupted."""
    interrupted = False
    while True:
        try:
            status = process.wait()
        except KeyboardInterrupt:  # it is told too
            interrupted = True
            continue
        if interrupted:
            raise KeyboardInterrupt
        return status


def states(folder: StudyFolder) -> list[tuple[Any, str, Path | None]]:
    """Return every run with its state and the log to look at."""
    return [(run, *folder.state(run)) for run in folder.study.runs()]


def counted(found: Sequence[tuple[Any, str, Path | None]]) -> str:
    """Return how many runs are in which state."""
    counts = Counter(state for _, state, _ in found)
    return ", ".join(
        f"{counts[state]} {state}" for state in ("done", "failed", "started", "trained", "waiting") if counts[state]
    )


def estimate(folder: StudyFolder) -> list[tuple[str, int, float]]:
    """Return, for each method, its runs that are not done and their cost in supervised runs."""
    from nnunet_limited.runs.request import find_trainer

    waiting = [run for run, state, _ in states(folder) if state != "done"]
    rows = []
    for method in folder.study.methods:
        runs = sum(run.method == method.slug for run in waiting)
        trainer = find_trainer(method.trainer)
        cost = trainer.relative_time or 1.0
        if "pseudo_labels" in trainer.Config.model_fields:
            teacher = find_trainer(method.teacher or trainer.teacher)
            cost = (teacher.relative_time or 1.0) + method.rounds * cost
        rows.append((method.name, runs, runs * cost))
    return rows
