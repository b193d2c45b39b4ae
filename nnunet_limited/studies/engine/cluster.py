"""Whether the executor of a study can take jobs, found out in seconds, before a folder is made or a job submitted."""

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Sequence

from nnunet_limited.errors import LimitedError
from nnunet_limited.studies.engine.execution import Execution

INCLUDED = ("local", "dryrun", "touch")  # executors of Snakemake itself
PROFILES = ("--profile", "--workflow-profile")
SECONDS = 15.0


def check_executor(execution: Execution) -> None:
    """Raise LimitedError if ``--executor`` has no plug-in, or if its Slurm cannot take jobs or report their end."""
    name = execution.executor
    if name is None or name in INCLUDED:
        return
    module = f"snakemake_executor_plugin_{name.replace('-', '_')}"
    if not module.isidentifier() or importlib.util.find_spec(module) is None:
        raise LimitedError(
            f"--executor {name}: its plug-in for Snakemake is not installed; correct the name, or "
            f"pip install snakemake-executor-plugin-{name}"
        )
    if name == "slurm" and not {"-n", "--dry-run", "--dryrun"} & set(execution.options):
        _check_slurm(execution.options)


def _check_slurm(options: Sequence[str]) -> None:
    """Raise LimitedError where Slurm is not on this machine, does not answer, or keeps no account of jobs.

    Snakemake asks ``sacct`` for the state of a job where it is installed, unless an option or a profile states another
    program.
    """
    missing = next((one for one in ("sbatch", "sinfo") if shutil.which(one) is None), None)
    if missing:
        raise LimitedError(
            f"--executor slurm: {missing} is not found, so this machine cannot submit jobs; run the command on a login "
            "node of the cluster, or remove --executor to use this machine"
        )
    if reason := _failure("sinfo", "--noheader"):
        raise LimitedError(
            f"--executor slurm: Slurm does not answer (sinfo: {reason}); check the cluster, or remove --executor to "
            "use this machine"
        )
    if _status_program(options) == "sacct" and shutil.which("sacct") and (reason := _failure("sacct", "--noheader")):
        raise LimitedError(
            f"--executor slurm: this cluster has no accounting (sacct: {reason}), by which Snakemake would see that "
            "a job has ended; add --slurm-status-command squeue"
        )


def _status_program(options: Sequence[str]) -> str:
    """Return the program that Snakemake asks for the state of jobs; empty where a profile may state it."""
    for option, value in zip(options, (*options[1:], ""), strict=False):
        name, equals, given = option.partition("=")
        if name == "--slurm-status-command":
            return given if equals else value
    names = {option.partition("=")[0] for option in options}
    profile = names.intersection(PROFILES) or os.environ.get("SNAKEMAKE_PROFILE")
    return "" if profile else "sacct"


def _failure(*command: str) -> str:
    """Return why a command of Slurm failed: the last line of what it printed; empty if it did not fail."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {SECONDS:g} s"
    except OSError as error:
        return str(error)
    lines = (done.stderr or done.stdout).strip().splitlines()
    return "" if done.returncode == 0 else lines[-1] if lines else f"exit status {done.returncode}"
