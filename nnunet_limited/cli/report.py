"""``nnunet-limited report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nnunet_limited.cli.options import COMPARE, JsonOption, add_command
from nnunet_limited.cli.output import console, show_json
from nnunet_limited.cli.study import REPORT_NEEDS, FolderArgument


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(app, report, panel=COMPARE)


def report(
    folder: FolderArgument,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of the report; default: report/ in the study folder.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the report of a study from its finished runs: one page, and tables as Markdown, CSV and LaTeX.

    Example:
    nnunet-limited report smoke
    """
    from nnunet_limited.util.extras import require_extra

    require_extra("study", "report", *REPORT_NEEDS)
    from nnunet_limited.studies.kinds import folder_at, make_report

    written = make_report(folder_at(folder), out)
    if as_json:
        show_json({"files": [str(file) for file in written]})
        return
    console.print(f"wrote {written[-1]} and {len(written) - 1} further files", highlight=False)
