"""``nnunet-limited simulate-al``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunet_limited.cli.options import COMPARE, PASS_THROUGH
from nnunet_limited.cli.study import (
    REPORT_NEEDS,
    CoresOption,
    ExecutorOption,
    GpusOption,
    JobsOption,
    OutOption,
    ShareOption,
    execute,
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("simulate-al", rich_help_panel=COMPARE, context_settings=PASS_THROUGH)(simulate_al)


def simulate_al(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="File of the simulation, e.g. studies/active_smoke.yaml.")],
    out: OutOption,
    cores: CoresOption = None,
    gpus: GpusOption = None,
    share_gpus: ShareOption = 1,
    executor: ExecutorOption = None,
    jobs: JobsOption = 100,
) -> None:
    """Compare query strategies, with the hidden labels of a dataset as oracle; what is missing is done, and reported.

    Stopped and started again it repeats no finished training. 'study status' and 'report' know its folder too; further
    options are passed on to Snakemake. Example:
    nnunet-limited simulate-al studies/active_smoke.yaml --out active --cores 2
    """
    from nnunet_limited.util.extras import require_extra

    require_extra("study", "simulate-al", "snakemake", *REPORT_NEEDS)
    require_extra("al", "simulate-al", "skactiveml")
    from nnunet_limited.studies.active.folder import open_active
    from nnunet_limited.studies.engine.workflow import Execution

    execution = Execution(
        cores=cores, gpus=gpus, share_gpus=share_gpus, executor=executor, jobs=jobs, options=tuple(context.args)
    )
    execute(lambda: open_active(file, out), execution)
