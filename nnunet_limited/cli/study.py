"""``nnunet-limited study``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nnunet_limited.cli.options import COMPARE, JsonOption
from nnunet_limited.cli.output import console, show_json, show_next, show_table
from nnunet_limited.errors import LimitedError

if TYPE_CHECKING:
    from nnunet_limited.studies.engine.folder import StudyFolder
    from nnunet_limited.studies.engine.workflow import Execution

FileArgument = Annotated[Path, typer.Argument(help="Study file, e.g. studies/smoke.yaml.")]
OutOption = Annotated[Path, typer.Option("--out", help="Folder of the study; made if it is not there.")]
FolderArgument = Annotated[Path, typer.Argument(help="Folder of a study, the --out of 'study run'.")]

CoresOption = Annotated[
    int | None, typer.Option(min=1, help="CPU cores to use, or those of a job with --executor; default: all.")
]
GpusOption = Annotated[
    int | None,
    typer.Option(
        min=0, help="GPUs to use, one training on each; default: all. With --executor: of a training, 0 or 1."
    ),
]
ShareOption = Annotated[int, typer.Option("--share-gpus", min=1, help="Trainings at once on one GPU.")]
ExecutorOption = Annotated[str | None, typer.Option(help="Snakemake executor, e.g. slurm.")]
JobsOption = Annotated[int, typer.Option(min=1, help="Jobs at once with --executor.")]

REPORT_NEEDS = ("monai", "yaml", "pandas", "statsmodels", "jinja2")

commands = typer.Typer(
    help="Compare methods, labelled sizes, folds and seeds: one file, one command, one page.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands, name="study", rich_help_panel=COMPARE)
    app.command("report", rich_help_panel=COMPARE)(report)


@commands.command("plan")
def plan(file: FileArgument, out: OutOption, as_json: JsonOption = False) -> None:
    """Check a study with its data, and list its jobs and what they cost; nothing is trained.

    Example: nnunet-limited study plan studies/smoke.yaml --out smoke
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
    columns = ("method", "runs to do", "cost in supervised runs", *(["hours of one after the other"] * bool(minutes)))
    rows = [
        (name, runs, f"{cost:.1f}", *([f"{cost * minutes / 60:.1f}"] if minutes else [])) for name, runs, cost in costs
    ]
    show_table(f"Study {folder.study.name}: {len(found)} runs, {counted(found)}", columns, rows)
    show_next(f"nnunet-limited study run {file} --out {out}")


@commands.command("run", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def run(
    context: typer.Context,
    file: FileArgument,
    out: OutOption,
    cores: CoresOption = None,
    gpus: GpusOption = None,
    share_gpus: ShareOption = 1,
    executor: ExecutorOption = None,
    jobs: JobsOption = 100,
) -> None:
    """Do what is missing of a study and make its report. Stopped and started again it repeats no finished job.

    A job that fails does not stop the others. Further options are passed on to Snakemake. Example:
    nnunet-limited study run studies/smoke.yaml --out smoke --cores 2
    """
    from nnunet_limited.util.extras import require_extra

    require_extra("study", "study run", "snakemake", *REPORT_NEEDS)
    from nnunet_limited.studies.comparison.folder import open_folder
    from nnunet_limited.studies.engine.workflow import Execution

    execution = Execution(
        cores=cores, gpus=gpus, share_gpus=share_gpus, executor=executor, jobs=jobs, options=tuple(context.args)
    )
    execute(lambda: open_folder(file, out), execution)


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


@commands.command("status")
def status(
    out: FolderArgument,
    run: Annotated[str | None, typer.Option("--log", help="Show the log of this run that matters.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what has come of each run, or show the log of one.

    Example: nnunet-limited study status smoke
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


def report(
    study: FolderArgument,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: report/ of the study.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make the report of a study from what is done so far: one page, and its tables as Markdown, CSV and LaTeX.

    Example: nnunet-limited report smoke
    """
    from nnunet_limited.util.extras import require_extra

    require_extra("study", "report", *REPORT_NEEDS)
    from nnunet_limited.studies.kinds import folder_at, make_report

    written = make_report(folder_at(study), out)
    if as_json:
        show_json({"files": [str(file) for file in written]})
        return
    console.print(f"wrote {written[-1]} and {len(written) - 1} further files", highlight=False)
