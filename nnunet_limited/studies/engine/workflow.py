"""Run a study on Snakemake."""

import contextlib
import os
import subprocess
from typing import Any

from nnunet_limited.studies.engine.execution import Execution
from nnunet_limited.studies.engine.failures import failed_marker
from nnunet_limited.studies.engine.folder import StudyFolder
from nnunet_limited.util.children import as_run, tied
from nnunet_limited.util.files import replace_text
from nnunet_limited.util.processes import python_module

KILLED = "it stopped without a message; it was probably killed (out of memory or time limit)\n"


def run_study(folder: StudyFolder, execution: Execution) -> int:
    """Run the unfinished jobs of a study; return Snakemake's exit status. A job that fails does not stop the others."""
    command, environment = _command(folder, execution)
    with folder.alone():
        status = _wait(subprocess.Popen(tied(command), env=environment))
    for _, state, log in folder.states():
        if state == "started" and log is not None and "--dry-run" not in execution.options:
            replace_text(failed_marker(log), KILLED)
    return status


def _command(folder: StudyFolder, execution: Execution) -> tuple[list[str], dict[str, str]]:
    """Return Snakemake's command and its environment."""
    environment = {**os.environ, **folder.environment()}
    command = [*python_module("snakemake"), "--snakefile", str(folder.snakefile), "--directory", str(folder.path)]
    command += ["--keep-going", "--rerun-incomplete", "--rerun-triggers", "mtime", "--nolock"]
    if not any(option.startswith("--workflow-profile") for option in execution.options):
        command += ["--workflow-profile", "none"]  # or one that lies in the working folder would be used
    cores, gpus = execution.cores or (1 if execution.executor else os.cpu_count() or 1), execution.devices()
    settings: dict[str, Any] = {"gpu": min(1, len(gpus)), "threads": cores}
    if execution.executor is None:
        environment = as_run(environment)
        slots = gpus * execution.share_gpus
        left = sum(one.state != "done" for one in folder.states())
        settings["threads"] = threads = max(1, cores // max(1, len(slots) or left))
        settings["devices"] = "/".join(slots) or "none"
        command += ["--cores", str(cores), "--resources", f"gpu={len(slots)}"]
        environment["nnUNet_def_n_proc"] = str(threads)
        environment.setdefault("OMP_NUM_THREADS", str(threads))
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if not slots:  # glibc returns the memory of each convolution to the kernel otherwise: a fifth of the time
            environment.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**25))
            environment.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**30))
    else:
        command += ["--executor", execution.executor, "--jobs", str(execution.jobs)]
    command += ["--config", *(f"{key}={value}" for key, value in settings.items()), *execution.options]
    return command, environment


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for Snakemake to end; when interrupted, until it has cancelled its jobs."""
    try:
        return process.wait()
    except KeyboardInterrupt:  # Snakemake receives it too
        with contextlib.suppress(KeyboardInterrupt):
            _wait(process)
        raise
