"""Common parts of reports: the list of runs, the record of how they were made, the files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from nnunet_limited.report.page import Section, render, write_pictures
from nnunet_limited.report.tables import Column, csv_text, latex, markdown, table_of
from nnunet_limited.studies.engine.failures import log_ends, missing
from nnunet_limited.studies.engine.folder import StudyFolder
from nnunet_limited.util.files import replace_text

Shown = tuple[pd.DataFrame, Sequence[Column]]


def _record_section(folder: StudyFolder) -> Section:
    """Return what is needed to repeat the study: versions, machines, hashes of splits, study file, commands."""
    records = {run: folder.record(run) for run, state, _ in folder.states() if state == "done"}
    versions = sorted({f"{name} {version}" for one in records.values() for name, version in one["versions"].items()})
    machines = sorted({record["machine"] for record in records.values()})
    splits = {run: record["split_hash"] for run, record in records.items() if "split_hash" in record}
    blocks = {
        "Versions and machines": [*versions, *machines],
        "Hashes of the splits": sorted({f"{run.dataset} {run.split}: {value}" for run, value in splits.items()}),
        "Study file": [yaml.safe_dump(folder.study.model_dump(mode="json"), sort_keys=False)],
        "Commands": [f"# {run.identifier}\n{record['command']}" for run, record in records.items()],
    }
    texts = {title: "\n".join(lines) for title, lines in blocks.items() if lines}
    note = "Versions, splits, configuration and commands, to repeat the study."
    return Section("How it was made", [note], blocks=texts)


def write_report(
    folder: StudyFolder, out: Path, title: str, text: str, sections: list[Section], main: Shown, jobs: Shown, **csv: Any
) -> list[Path]:
    """Write ``index.html``, with the list of ``jobs`` and how to repeat them, and ``main`` as Markdown, CSV and LaTeX.

    Further tables are written to ``NAME.csv``. Returns the files.
    """
    states, (table, columns) = folder.states(), main
    lacking, listed = missing(states), [table_of("Every run of the study", *jobs)]
    sections = [*sections, Section("Runs", tables=listed, blocks=log_ends(states)), _record_section(folder)]
    paragraphs = [f"# {title}", text, *([f"Incomplete: {lacking}."] if lacking else []), markdown(table, columns)]
    contents = {
        "table.md": "\n\n".join(paragraphs),
        "table.csv": csv_text(table),
        "table.tex": latex(table, columns),
        **{f"{name}.csv": csv_text(further) for name, further in csv.items()},
        "index.html": render("study.html", title=title, summary=text, missing=lacking, sections=sections),
    }
    written = write_pictures(sections, out / "pictures")
    for name, content in contents.items():
        replace_text(out / name, content)
    return [*written, *(out / name for name in contents)]
