"""``nnunet-limited simulate-al``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunet_limited.cli.options import COMPARE, PASS_THROUGH, add_command
from nnunet_limited.cli.study import REPORT_NEEDS, OutOption, execute
from nnunet_limited.studies.engine.execution import Execution

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="File of the simulation, e.g. studies/active_smoke.yaml.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(
        app,
        simulate_al,
        Execution,
        panel=COMPARE,
        arguments=(),
        skip=("options",),
        context_settings=PASS_THROUGH,
    )


def simulate_al(execution: Execution, context: typer.Context, file: FileArgument, out: OutOption) -> None:
    """Compare query strategies, with the hidden labels of a dataset as annotator. Finished trainings are skipped.

    'study status' and 'report' take its folder too. All other options are passed on to Snakemake.

    Example:
    nnunet-limited simulate-al studies/active_smoke.yaml --out active --cores 2
    """
    from nnunet_limited.util.extras import require_extra

    require_extra("study", "simulate-al", "snakemake", *REPORT_NEEDS)
    require_extra("al", "simulate-al", "skactiveml")
    from nnunet_limited.studies.active.folder import open_active

    execute(lambda: open_active(file, out), execution.changed(options=tuple(context.args)))
