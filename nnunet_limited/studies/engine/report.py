"""Common parts of reports: the list of runs, the record of how they were made, the files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from nnunet_limited.report.page import Section, render, write_pictures
from nnunet_limited.report.tables import Column, latex, markdown, table_of
from nnunet_limited.studies.engine.failures import RunState, log_ends, missing
from nnunet_limited.studies.engine.folder import StudyFolder
from nnunet_limited.studies.engine.steps import TrainingRecord
from nnunet_limited.util.files import write_text


def runs_section(found: Sequence[RunState], table: pd.DataFrame, columns: Sequence[Column]) -> Section:
    """Return the list of runs, with the end of the log of each that failed."""
    return Section("Runs", tables=[table_of("Every run of the study", table, columns)], blocks=log_ends(found))


def record_section(study: Any, records: Mapping[Any, TrainingRecord], hashes: Iterable[str] = ()) -> Section:
    """Return what is needed to repeat the study: versions, machines, hashes of splits, study file, commands."""
    versions = sorted({f"{name} {version}" for one in records.values() for name, version in one["versions"].items()})
    machines = sorted({record["machine"] for record in records.values()})
    blocks = {
        "Versions and machines": [*versions, *machines],
        "Hashes of the splits": sorted(set(hashes)),
        "Study file": [yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False)],
        "Commands": [f"# {run.identifier}\n{record['command']}" for run, record in records.items()],
    }
    texts = {title: "\n".join(lines) for title, lines in blocks.items() if lines}
    note = "Versions, splits, configuration and commands, to repeat the study."
    return Section("How it was made", [note], blocks=texts)


def write_report(
    folder: StudyFolder,
    out: Path,
    title: str,
    summary: str,
    sections: Sequence[Section],
    main: tuple[pd.DataFrame, Sequence[Column]],
    tables: Mapping[str, pd.DataFrame],
) -> list[Path]:
    """Write ``index.html``, the ``main`` table as Markdown, CSV and LaTeX, and further ``tables``; return the files."""
    lacking = missing(folder.states())
    table, columns = main
    paragraphs = [f"# {title}", summary, *([f"Incomplete: {lacking}."] if lacking else []), markdown(table, columns)]
    contents = {
        "table.md": "\n\n".join(paragraphs),
        "table.csv": table.to_csv(index=False),
        "table.tex": latex(table, columns),
        **{name: further.to_csv(index=False) for name, further in tables.items()},
        "index.html": render("study.html", title=title, summary=summary, missing=lacking, sections=sections),
    }
    written = write_pictures(sections, out / "pictures")
    for name, content in contents.items():
        write_text(out / name, content)
    return [*written, *(out / name for name in contents)]
