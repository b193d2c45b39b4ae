"""``nnunet-limited study``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nnunet_limited.cli.options import COMPARE, PASS_THROUGH, JsonOption, add_command
from nnunet_limited.cli.output import console, show_json, show_next, show_table
from nnunet_limited.errors import LimitedError
from nnunet_limited.studies.engine.execution import Execution

if TYPE_CHECKING:
    from nnunet_limited.studies.engine.folder import StudyFolder

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="Study file, e.g. studies/smoke.yaml.")]
OutOption = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder of the study; created if missing.")]
FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a study, the --out of 'study run'.")]
LogOption = Annotated[str | None, typer.Option("--log", metavar="RUN", help="Run whose log to print.")]

REPORT_NEEDS = ("monai", "yaml", "pandas", "statsmodels", "jinja2")

commands = typer.Typer(help="Compare methods, labelled sizes, folds and seeds in one study file.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of the group."""
    add_command(commands, plan)
    add_command(commands, run, Execution, arguments=(), skip=("options",), context_settings=PASS_THROUGH)
    add_command(commands, status)
    app.add_typer(commands, name="study", rich_help_panel=COMPARE)


def plan(file: FileArgument, out: OutOption, as_json: JsonOption = False) -> None:
    """Check a study and its data, and list the missing runs with their cost; nothing is trained.

    Example:
    nnunet-limited study plan studies/smoke.yaml --out smoke
    """
    from nnunet_limited.util.extras import require_extra

    require_extra("study", "study plan", "yaml")
    from nnunet_limited.studies.comparison.cost import estimate
    from nnunet_limited.studies.comparison.folder import open_folder
    from nnunet_limited.studies.engine.failures import counted

    folder = open_folder(file, out)
    costs = estimate(folder)
    found = folder.states()
    if as_json:
        show_json(
            {
                "runs": [run.identifier for run, _, _ in found],
                "missing": [{"method": name, "runs": runs, "supervised_runs": cost} for name, runs, cost in costs],
            }
        )
        return
    minutes = folder.study.minutes_per_run
    columns = ("method", "runs to do", "cost in supervised runs", *(["hours, one run at a time"] * bool(minutes)))
    rows = [
        (name, runs, f"{cost:.1f}", *([f"{cost * minutes / 60:.1f}"] if minutes else [])) for name, runs, cost in costs
    ]
    show_table(f"Study {folder.study.name}: {len(found)} runs, {counted(found)}", columns, rows)
    show_next(f"nnunet-limited study run {file} --out {out}")


def run(execution: Execution, context: typer.Context, file: FileArgument, out: OutOption) -> None:
    """Run the missing jobs of a study and write its report. Finished jobs are skipped.

    A job that fails does not stop the others. All other options are passed on to Snakemake.

    Example:
    nnunet-limited study run studies/smoke.yaml --out smoke --cores 2
    """
    from nnunet_limited.util.extras import require_extra

    require_extra("study", "study run", "snakemake", *REPORT_NEEDS)
    from nnunet_limited.studies.comparison.folder import open_folder

    execute(lambda: open_folder(file, out), execution.changed(options=tuple(context.args)))


def execute(open_study: Callable[[], StudyFolder], execution: Execution) -> None:
    """Open a study, run it, make its report, and print a summary; a run that failed is exit status 1."""
    from nnunet_limited.studies.engine.failures import counted
    from nnunet_limited.studies.engine.workflow import run_study
    from nnunet_limited.studies.kinds import make_report

    execution.devices()  # refused before a folder is made
    folder = open_study()
    status = run_study(folder, execution)
    found = folder.states()
    console.print(f"{len(found)} runs: {counted(found)}")
    console.print(f"wrote {make_report(folder)[-1]}", highlight=False)
    if status:
        show_next(f"nnunet-limited study status {folder.path}")
        raise typer.Exit(1)


def status(
    out: FolderArgument,
    run: LogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the state of each run, or the log of one.

    Example:
    nnunet-limited study status smoke
    """
    from nnunet_limited.util.extras import require_extra

    require_extra("study", "study status", "yaml")
    from nnunet_limited.studies.engine.failures import counted
    from nnunet_limited.studies.kinds import folder_at

    folder = folder_at(out)
    if run is not None:
        log = folder.state(folder.run(run))[1]
        if log is None:
            raise LimitedError(f"{run} has not started, so it has no log; 'nnunet-limited study run' starts it")
        print(log.read_text(encoding="utf-8"))
        return
    found = folder.states()
    if as_json:
        show_json([{"run": r.identifier, "state": state, "log": str(log) if log else None} for r, state, log in found])
        return
    show_table(
        f"Study {folder.study.name}: {counted(found)}", ("run", "state"), [(r.identifier, s) for r, s, _ in found]
    )
    failed = [r for r, state, _ in found if state == "failed"]
    if failed:
        show_next(f"nnunet-limited study status {out} --log {failed[0].identifier}")
