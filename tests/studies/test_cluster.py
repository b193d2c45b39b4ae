"""Whether Slurm can take jobs is found out before one is submitted; programs of a made-up Slurm stand for it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from nnunet_limited.errors import LimitedError
from nnunet_limited.studies.engine import cluster
from nnunet_limited.studies.engine.cluster import check_executor
from nnunet_limited.studies.engine.execution import Execution

DISABLED = "echo Slurm accounting storage is disabled >&2; exit 1"
SQUEUE = ("--slurm-status-command", "squeue")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that makes the programs of a Slurm, and checks an execution with options."""
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="Snakemake needs Python 3.11")
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    monkeypatch.setattr(cluster, "SECONDS", 1.0)
    monkeypatch.setenv("PATH", str(tmp_path))

    def check(*options: str, **programs: str) -> None:
        for name, script in programs.items():
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
            (tmp_path / name).chmod(0o755)
        check_executor(Execution(executor="slurm", gpus=0, options=options))

    return check


@pytest.mark.parametrize(
    ("programs", "options"),
    [
        ({"sacct": ""}, ()),
        ({}, ()),  # Snakemake asks squeue where there is no sacct
        ({"sacct": DISABLED}, SQUEUE),
        ({"sacct": DISABLED}, ("--slurm-status-command=squeue",)),
        ({"sacct": DISABLED}, ("--profile", "mine")),
        ({"sacct": DISABLED, "sinfo": "exit 1"}, ("--dry-run",)),
    ],
)
def test_a_slurm_that_can_take_jobs(slurm, programs, options) -> None:
    slurm(*options, **{"sbatch": "", "sinfo": "", **programs})


@pytest.mark.parametrize(
    ("programs", "options", "message"),
    [
        ({"sbatch": ""}, (), "sinfo is not found, so this machine cannot submit jobs; run the command on a login node"),
        ({"sinfo": "echo Unable to contact >&2; exit 1"}, (), r"does not answer \(sinfo: Unable to contact\); check"),
        ({"sinfo": "exec /bin/sleep 30"}, (), r"does not answer \(sinfo: no answer within 1 s\)"),
        ({"sacct": DISABLED}, (), "no accounting .*storage is disabled.*; add --slurm-status-command squeue"),
        ({"sacct": "exit 3"}, ("--slurm-status-command", "sacct"), r"no accounting \(sacct: exit status 3\)"),
        ({"sacct": DISABLED}, ("--default-resources", "slurm_account=me"), "add --slurm-status-command squeue"),
    ],
)
def test_a_slurm_that_cannot(slurm, programs, options, message: str) -> None:
    start = time.monotonic()
    whole = programs if "sbatch" in programs else {"sbatch": "", "sinfo": "", **programs}
    with pytest.raises(LimitedError, match=f"--executor slurm: .*{message}"):
        slurm(*options, **whole)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("executor", [None, "local"])
def test_no_plug_in_is_needed_here(executor) -> None:
    check_executor(Execution(executor=executor, gpus=0))
