"""``nnunet-limited evaluate``, ``study``, ``report`` and ``simulate-al``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nnunet_limited.cli.options import COMPARE, PASS_THROUGH, JsonOption, command
from nnunet_limited.cli.output import console, show_json, show_next, show_table
from nnunet_limited.errors import LimitedError
from nnunet_limited.metrics.request import EvaluateRequest
from nnunet_limited.studies.engine.execution import Execution
from nnunet_limited.util.extras import require_extra

if TYPE_CHECKING:
    from nnunet_limited.studies.engine.folder import StudyFolder

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="Study file, e.g. studies/smoke.yaml.")]
OutOption = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Folder of the study; created if missing.")]
FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a study, the --out of 'study run'.")]
LogOption = Annotated[str | None, typer.Option("--log", metavar="RUN", help="Run whose log to print.")]
TableOption = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="CSV file to write, with a row for each case and class.")
]
SimulationArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="File of the simulation, e.g. studies/active_smoke.yaml.")
]
ReportOption = Annotated[
    Path | None,
    typer.Option("--out", metavar="FOLDER", help="Folder of the report; default: report/ in the study folder."),
]

REPORT_NEEDS = ("monai", "yaml", "pandas", "statsmodels", "jinja2")

app = typer.Typer()
studies = typer.Typer(
    help="Compare methods, labelled sizes, folds and seeds as listed in a study file.", no_args_is_help=True
)
app.add_typer(studies, name="study", rich_help_panel=COMPARE)


@command(
    app,
    COMPARE,
    arguments=("predictions", "truth"),
    metavars={"predictions": "PREDICTIONS", "truth": "LABELS", "dataset_json": "FILE"},
)
def evaluate(request: EvaluateRequest, out: TableOption = None, as_json: JsonOption = False) -> None:
    """Compare predictions with labels: Dice, IoU, surface distances, volume error, sensitivity and precision.

    If a class is neither in the prediction nor in the label, the case is left out of its means. If it is in one of the
    two only, overlaps are 0 and distances are the diagonal of the image. A prediction that is only turned or mirrored
    in its array is turned to its label; one on another grid is an error.

    Example:
    nnunet-limited evaluate PREDICTIONS Dataset004_Hippocampus/labelsTr --out metrics.csv
    """
    from nnunet_limited.metrics.registry import METRICS
    from nnunet_limited.runs.evaluate import evaluate as run
    from nnunet_limited.runs.evaluate import summarise, write_rows

    rows = run(request)
    summary = summarise(rows)
    if out is not None:
        write_rows(out, rows)
    if as_json:
        return show_json({"classes": summary.to_dict("index"), "cases": rows.to_dict("records"), **rows.attrs})
    columns = ("class", *(metric.title for metric in METRICS.values()))
    table = [(name, *(f"{value:.4f}" for value in values)) for name, *values in summary.itertuples()]
    unit = "voxels" if request.voxels else "mm"
    show_table(f"Means over {rows['case'].nunique()} cases; distances in {unit}, volumes in {unit}³", columns, table)
    if missing := rows.attrs["missing"]:
        more = ", …" if len(missing) > 3 else ""
        console.print(f"Labels without a prediction, left out: {len(missing)} ({', '.join(missing[:3])}{more}).")
    for warning in rows.attrs["warnings"]:
        console.print(f"warning: {warning}", markup=False)
    if out is not None:
        console.print(f"wrote {out}")


@command(studies)
def plan(file: FileArgument, out: OutOption, as_json: JsonOption = False) -> None:
    """Check a study and its data, and list the missing runs with their cost; nothing is trained.

    Example:
    nnunet-limited study plan studies/smoke.yaml --out smoke
    """
    require_extra("study", "study plan", "yaml")
    from nnunet_limited.studies.comparison.folder import estimate, open_folder
    from nnunet_limited.studies.engine.failures import counted

    folder = open_folder(file, out)
    costs = estimate(folder)
    found = folder.states()
    if as_json:
        missing = [{"method": name, "runs": runs, "supervised_runs": cost} for name, runs, cost in costs]
        return show_json({"runs": [run.identifier for run, _, _ in found], "missing": missing})
    minutes = folder.study.minutes_per_run
    columns = ("method", "runs to do", "cost in supervised runs", *(["hours, one run at a time"] * bool(minutes)))
    rows = [
        (name, runs, f"{cost:.1f}", *([f"{cost * minutes / 60:.1f}"] if minutes else [])) for name, runs, cost in costs
    ]
    show_table(f"Study {folder.study.name}: runs: {counted(found)}", columns, rows)
    show_next(f"nnunet-limited study run {file} --out {out}")


@command(studies, arguments=(), skip=("options",), context_settings=PASS_THROUGH)
def run(execution: Execution, context: typer.Context, file: FileArgument, out: OutOption) -> None:
    """Run the missing jobs of a study and write its report. Finished jobs are skipped.

    A job that fails does not stop the others. All other options are passed on to Snakemake.

    Example:
    nnunet-limited study run studies/smoke.yaml --out smoke --cores 2
    """
    require_extra("study", "study run", "snakemake", *REPORT_NEEDS)
    from nnunet_limited.studies.comparison.folder import ComparisonFolder, open_folder

    _execute(ComparisonFolder(out), lambda: open_folder(file, out), execution.changed(options=tuple(context.args)))


def _execute(place: StudyFolder, open_study: Callable[[], StudyFolder], execution: Execution) -> None:
    """Open a study, run it, make its report, and print a summary; a run that failed is exit status 1."""
    from nnunet_limited.studies.engine.cluster import check_executor
    from nnunet_limited.studies.engine.failures import counted
    from nnunet_limited.studies.engine.stale import REPLACED, move_stale_runs_aside, refuse_stale_runs
    from nnunet_limited.studies.engine.workflow import run_study
    from nnunet_limited.studies.kinds import make_report

    execution.devices()  # refused before a folder is made
    check_executor(execution)
    with place.alone():
        folder = open_study()
        if execution.redo:
            for name in move_stale_runs_aside(folder):
                console.print(f"{name}: learned from other data; moved to {folder.path / REPLACED}", markup=False)
        else:
            refuse_stale_runs(folder)
        status = run_study(folder, execution)
    found = folder.states()
    console.print(f"Runs: {counted(found)}")
    console.print(f"wrote {make_report(folder)[-1]}")
    if status:
        show_next(f"nnunet-limited study status {folder.path}")
        raise typer.Exit(1)


@command(studies)
def status(out: FolderArgument, run: LogOption = None, as_json: JsonOption = False) -> None:
    """Print the state of each run, or the log of one.

    Example:
    nnunet-limited study status smoke
    """
    require_extra("study", "study status", "yaml")
    from nnunet_limited.studies.engine.failures import counted
    from nnunet_limited.studies.kinds import folder_at

    folder = folder_at(out)
    if run is not None:
        log = folder.state(folder.run(run))[1]
        if log is None:
            raise LimitedError(f"{run} has not started, so it has no log; 'nnunet-limited study run' starts it")
        return print(log.read_text(encoding="utf-8"))
    found = folder.states()
    if as_json:
        return show_json([{"run": r.identifier, "state": state, "log": log and str(log)} for r, state, log in found])
    rows = [(r.identifier, state) for r, state, _ in found]
    show_table(f"Study {folder.study.name}: {counted(found)}", ("run", "state"), rows)
    failed = next((name for name, state in rows if state == "failed"), None)
    if failed:
        show_next(f"nnunet-limited study status {out} --log {failed}")


@command(app, COMPARE)
def report(folder: FolderArgument, out: ReportOption = None, as_json: JsonOption = False) -> None:
    """Write the report of a study from its finished runs: one page, and tables as Markdown, CSV and LaTeX.

    Example:
    nnunet-limited report smoke
    """
    require_extra("study", "report", *REPORT_NEEDS)
    from nnunet_limited.studies.kinds import folder_at, make_report

    written = make_report(folder_at(folder), out)
    if as_json:
        return show_json({"files": [str(file) for file in written]})
    console.print(f"wrote {written[-1]} and {len(written) - 1} further files")


@command(app, COMPARE, arguments=(), skip=("options", "redo"), context_settings=PASS_THROUGH)
def simulate_al(execution: Execution, context: typer.Context, file: SimulationArgument, out: OutOption) -> None:
    """Compare query strategies by simulation: hidden labels answer the queries. Finished trainings are skipped.

    'study status' and 'report' take its folder too. All other options are passed on to Snakemake.

    Example:
    nnunet-limited simulate-al studies/active_smoke.yaml --out active --cores 2
    """
    require_extra("study", "simulate-al", "snakemake", *REPORT_NEEDS)
    require_extra("al", "simulate-al", "skactiveml")
    from nnunet_limited.studies.active.folder import ActiveFolder, open_active

    _execute(ActiveFolder(out), lambda: open_active(file, out), execution.changed(options=tuple(context.args)))
