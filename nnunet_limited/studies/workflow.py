"""Run a study on Snakemake."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from nnunet_limited.errors import LimitedError
from nnunet_limited.studies.folder import StudyFolder
from nnunet_limited.studies.job import GPUS
from nnunet_limited.studies.study import Run
from nnunet_limited.trainers.launch import find_trainer

SNAKEFILE = Path(__file__).with_name("Snakefile")


@dataclass(frozen=True)
class Execution:
    """Where and how much at once: ``cores`` and ``gpus`` of this machine, or ``jobs`` of an ``executor``."""

    cores: int = 1
    gpus: int = 0
    share_gpus: int = 1
    executor: str | None = None
    jobs: int = 100
    options: tuple[str, ...] = ()


def run_study(folder: StudyFolder, execution: Execution) -> int:
    """Do what is missing of a study; a job that fails does not stop the others. Returns Snakemake's exit status."""
    environment = {**os.environ, **folder.environment()}
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--directory", str(folder.path)]
    command += ["--keep-going", "--rerun-incomplete", "--rerun-triggers", "mtime", "--nolock"]
    settings = {}
    if execution.executor is None:
        threads = 1
        if execution.gpus:
            slots = execution.gpus * execution.share_gpus
            threads = max(1, execution.cores // slots)
            settings["gpu"] = 1
            environment[GPUS] = str(execution.gpus)
            command += ["--resources", f"gpu={slots}"]
        settings["threads"] = threads
        environment.setdefault("OMP_NUM_THREADS", str(threads))
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        command += ["--cores", str(execution.cores)]
    else:
        settings["gpu"] = 1 if execution.gpus else 0
        settings["threads"] = execution.cores
        command += ["--executor", execution.executor, "--jobs", str(execution.jobs)]
    command += ["--config", *(f"{key}={value}" for key, value in settings.items()), *execution.options]
    lock = FileLock(folder.path / ".running.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise LimitedError(f"{folder.path} is being run already; wait for that to end, or stop it") from error
    with lock:
        return subprocess.run(command, env=environment, check=False).returncode


def states(folder: StudyFolder) -> list[tuple[Run, str, Path | None]]:
    """Return every run with its state and the log to look at."""
    return [(run, *folder.state(run)) for run in folder.study.runs()]


def counted(found: Sequence[tuple[Run, str, Path | None]]) -> str:
    """Return how many runs are in which state."""
    counts = Counter(state for _, state, _ in found)
    return ", ".join(f"{counts[state]} {state}" for state in ("done", "failed", "started", "waiting") if counts[state])


def estimate(folder: StudyFolder) -> list[tuple[str, int, float]]:
    """Return, for each method, its runs that are not done and their cost in supervised runs."""
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
