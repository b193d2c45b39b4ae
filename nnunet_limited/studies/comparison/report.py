"""The report of a study: one page that needs nothing else, and its tables as Markdown, CSV and LaTeX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from nnunet_limited.datasets.raw import RawDataset, images_by_case
from nnunet_limited.host.images import reader_for
from nnunet_limited.metrics.registry import METRICS
from nnunet_limited.metrics.statistics import mean_and_sd
from nnunet_limited.report.page import Section, embed, render
from nnunet_limited.report.tables import Column, latex, markdown, table_of
from nnunet_limited.studies.comparison.columns import COSTS, RUNS, class_columns, headline_columns, ranking_columns
from nnunet_limited.studies.comparison.figures import learning_curves, overlay, paired, training_curves
from nnunet_limited.studies.comparison.folder import StudyFolder
from nnunet_limited.studies.comparison.job import compared
from nnunet_limited.studies.comparison.results import SETTING, Results, load_results
from nnunet_limited.studies.comparison.study import ALL, Run
from nnunet_limited.studies.comparison.tables import classes, costs, headline, ranking
from nnunet_limited.util.files import replacing


def make_report(folder: StudyFolder, out: Path | None = None) -> list[Path]:
    """Write the report of what is done so far into ``out`` (default: ``report/`` of the study); return its files."""
    with folder.active():
        return _make_report(folder, out or folder.path / "report")


def _make_report(folder: StudyFolder, out: Path) -> list[Path]:
    results = load_results(folder)
    study = folder.study
    main = headline(results, study)
    written: list[Path] = []

    sections = [_headline_section(results, folder, main)]
    if not main.empty:
        sections += [
            _curves_section(results, folder, out, written),
            _paired_section(results, folder, out, written),
            _table_section("Stability of the ranking", ranking(results, study), ranking_columns(study), _RANKING_NOTES),
            _table_section("Classes", classes(results, study), class_columns(study), []),
            _training_section(results, folder, out, written),
            _cases_section(results, folder, out, written),
            _table_section("Time and memory", costs(results), COSTS, _COST_NOTES),
        ]
    sections += [_runs_section(results, folder), _record_section(results, folder)]
    page = render(
        "study.html",
        title=f"Study {study.name}",
        summary=_summary(results, folder, main),
        missing=_missing(results),
        sections=sections,
    )
    for name, content in (
        ("table.md", _markdown(results, folder, main)),
        ("table.csv", main.to_csv(index=False)),
        ("table.tex", latex(main, headline_columns(study))),
        ("scores.csv", results.scores.to_csv(index=False)),
        ("runs.csv", results.runs.drop(columns="log").to_csv(index=False)),
        ("index.html", page),
    ):
        with replacing(out / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
        written.append(out / name)
    return written


# ---- text ------------------------------------------------------------------------------------------------------------


def _summary(results: Results, folder: StudyFolder, main: pd.DataFrame) -> str:
    study = folder.study
    what = "a test set" if study.test else "the validation cases of the folds"
    told = (
        f"{len(study.methods)} methods on {', '.join(map(str, study.datasets))}, {study.iterations:,} iterations, "
        f"{len(study.seeds)} seeds of split and run, compared on {what}."
    )
    if main.empty:
        return f"{told} No run is done yet."
    metric = study.metrics[0]
    best = dict(list(main.sort_values(metric, ascending=not METRICS[metric].higher_is_better).groupby(SETTING)))
    told += f" Best mean {METRICS[metric].title}, of which the tables say how sure it is:"
    for setting in results.settings():
        if setting[2] != ALL and setting in best:
            first = best[setting].iloc[0]
            told += f" {_title(setting)}: {first['method']} {first[metric]:.3f}."
    return told


def _missing(results: Results) -> str:
    runs = results.runs
    failed, others = runs[runs["state"] == "failed"], runs[~runs["state"].isin(["done", "failed"])]
    told = [f"{len(failed)} runs failed: {', '.join(failed['run'])}"] if len(failed) else []
    return ". ".join([*told, *([f"{len(others)} of {len(runs)} runs are not done yet"] if len(others) else [])])


_RANKING_NOTES = ["Cases are drawn again 1,000 times; a method that is first in few of them is not the winner."]
_COST_NOTES = ["Epochs only; of self-training, teacher included. Memory is that of the host process, not of a GPU."]


def _table_section(title: str, table: pd.DataFrame, columns: Sequence[Column], notes: list[str]) -> Section:
    return Section(title, notes, [table_of(title, table, columns)] if not table.empty else [])


def _headline_section(results: Results, folder: StudyFolder, main: pd.DataFrame) -> Section:
    study = folder.study
    if main.empty:
        return Section("Results", ["No run is done yet."])
    metric = METRICS[study.metrics[0]]
    notes = [
        "Mean over cases and classes ± sd over seeds. The difference is paired by case; its interval is a bootstrap "
        "over cases; p is that of Wilcoxon's signed-rank test with Holm's correction over the rows. Labels saved: the "
        f"further labelled cases that {study.reference} needs for the same {metric.title}, by its learning curve.",
        "A case in which a class is neither predicted nor present is left out of its means; where the class is only "
        "predicted or only present, overlaps are 0 and distances are the diagonal of the image.",
    ]
    groups = main.dropna(subset=[metric.name]).groupby(SETTING)[metric.name]
    best = groups.idxmax() if metric.higher_is_better else groups.idxmin()
    shown = main.assign(best=main.index.isin(best))
    return Section("Results", notes, [table_of("Methods by labelled size", shown, headline_columns(study))])


# ---- pictures --------------------------------------------------------------------------------------------------------


def _places(results: Results) -> list[tuple[str, str]]:
    return list(dict.fromkeys(setting[:2] for setting in results.settings()))


def _title(setting: Sequence[str]) -> str:
    size = f", {setting[2]} labelled" if len(setting) > 2 else ""
    return f"{setting[0]}, {setting[1]}{size}"


def _curves_section(results: Results, folder: StudyFolder, out: Path, written: list[Path]) -> Section:
    study = folder.study
    metric = study.metrics[0]
    section = Section("Learning curves")
    names = [method.name for method in study.methods]
    for place in _places(results):
        curves, upper = {}, None
        for method in study.methods:
            points = []
            for setting in results.settings():
                table = results.table(setting, method.name, metric)
                if setting[:2] != place or table.empty:
                    continue
                mean, sd = mean_and_sd(table)
                if setting[2] == ALL and method.name == study.reference:
                    upper = mean
                else:
                    points.append((results.labeled_cases(setting), mean, sd))
            if points:
                curves[method.name] = pd.DataFrame(sorted(points), columns=["labeled_cases", "mean", "sd"])
        if curves:
            made = learning_curves(_title(place), curves, names, upper, METRICS[metric].heading(study.voxels))
            section.pictures.append(embed(made, out, "learning_curves_" + "_".join(place), written))
    return section


def _paired_section(results: Results, folder: StudyFolder, out: Path, written: list[Path]) -> Section:
    study = folder.study
    metric = study.metrics[0]
    section = Section("Case by case")
    for setting in results.settings():
        baseline = results.table(setting, study.reference, metric).mean(axis=1)
        tables = {}
        for method in study.methods:
            mine = results.table(setting, method.name, metric).mean(axis=1)
            both = mine.index.intersection(baseline.index)
            if method.name != study.reference and len(both):
                tables[method.name] = (mine[both], baseline[both])
        if tables:
            made = paired(_title(setting), study.reference, tables, METRICS[metric].heading(study.voxels))
            section.pictures.append(embed(made, out, "paired_" + "_".join(setting), written))
    return section


def _training_section(results: Results, folder: StudyFolder, out: Path, written: list[Path]) -> Section:
    study = folder.study
    section = Section("Training", ["The first seed and fold of each size; of self-training, the last round."])
    for setting in results.settings():
        curves = {}
        for method in study.methods:
            for run, record in results.records.items():
                if _setting(run) == setting and run.method == method.slug and method.name not in curves:
                    curves[method.name] = record["curves"][-1]
        if curves:
            made = training_curves(_title(setting), curves, [method.name for method in study.methods])
            section.pictures.append(embed(made, out, "training_" + "_".join(setting), written))
    return section


def _setting(run: Run) -> tuple[str, str, str]:
    return run.dataset, run.configuration, run.labeled


def _cases_section(results: Results, folder: StudyFolder, out: Path, written: list[Path]) -> Section:
    """Show the median and the worst case of each method at the smallest size, beside the baseline."""
    study = folder.study
    metric = study.metrics[0]
    reference = study.method(study.reference)
    section = Section("Cases", ["The slice on which the predictions differ most from the truth."])
    for place in _places(results):
        setting = next(s for s in results.settings() if s[:2] == place)
        runs = {(r.method, r.seed, r.fold): r for r in results.records if _setting(r) == setting}
        for method in study.methods:
            both = [r for r in runs.values() if r.method == method.slug and (reference.slug, r.seed, r.fold) in runs]
            if method.name == study.reference or not both:
                continue
            run = both[0]
            scores = results.scores
            chosen = scores[
                (scores[SETTING] == list(setting)).all(axis=1)
                & (scores["method"] == method.name)
                & (scores["seed"] == run.seed)
                & (scores["fold"] == run.fold)
                & (scores["class"] == "mean")
            ].dropna(subset=[metric])
            ordered = chosen.sort_values(metric, ascending=METRICS[metric].higher_is_better)
            shown = [runs[reference.slug, run.seed, run.fold], run]
            for what, position in (("worst", 0), ("median", len(ordered) // 2)):
                if position < len(ordered):
                    row = ordered.iloc[position]
                    told = f"{METRICS[metric].title} of {method.name}: {row[metric]:.3f}."
                    title = f"{_title(setting)}, seed {run.seed}: {what} case of {method.name}, {row['case']}. {told}"
                    files = _files(folder, run, row["case"], {study.method(r.method).name: r for r in shown})
                    made = overlay(title, *files, told)
                    name = f"{what}_{method.slug}_" + "_".join(setting)
                    section.pictures.append(embed(made, out, name, written))
    return section


def _files(
    folder: StudyFolder, run: Run, case: str, shown: dict[str, Run]
) -> tuple[Any, Path, Path, dict[str, Path], dict[str, list[int]]]:
    """Return a case's reader, image (first channel), label and predictions, and the values of its classes."""
    study = folder.study
    raw = RawDataset.load(run.dataset)
    ending = raw.dataset_json["file_ending"]
    image = images_by_case(raw.folder / study.test.images, ending)[case][0] if study.test else raw.cases[case].images[0]
    labels = compared(folder, run)[1] / f"{case}{ending}"
    predictions = {name: compared(folder, one)[0] / f"{case}{ending}" for name, one in shown.items()}
    values = {
        name: [int(v) for v in (value if isinstance(value, list) else [value])]
        for name, value in raw.dataset_json["labels"].items()
        if name not in ("background", "ignore")
    }
    return reader_for(raw.dataset_json, image)(), image, labels, predictions, values


# ---- records ---------------------------------------------------------------------------------------------------------


def _runs_section(results: Results, folder: StudyFolder) -> Section:
    section = Section("Runs", [], [table_of("Every run of the study", results.runs, RUNS)])
    for _, row in results.runs[results.runs["state"] == "failed"].iterrows():
        lines = Path(row["log"]).read_text(errors="replace", encoding="utf-8").splitlines()[-15:]
        section.blocks.append({"title": f"End of the log of {row['run']}, which failed", "content": "\n".join(lines)})
    return section


def _record_section(results: Results, folder: StudyFolder) -> Section:
    section = Section("How it was made", ["Versions, splits, configuration and commands, to do it again."])
    records = results.records
    versions = sorted({f"{k} {v}" for record in records.values() for k, v in record["versions"].items()})
    machines = sorted({record["machine"] for record in records.values()})
    hashes = sorted({f"{run.dataset} {run.split}: {record['split_hash']}" for run, record in records.items()})
    content = yaml.safe_dump(folder.study.model_dump(mode="json"), sort_keys=False)
    commands = [f"# {run.identifier}\n{record['command']}" for run, record in records.items()]
    for title, lines in (
        ("Versions and machines", [*versions, *machines]),
        ("Hashes of the splits", hashes),
        ("Study file", [content]),
        ("Commands", commands),
    ):
        section.blocks.append({"title": title, "content": "\n".join(lines)})
    return section


def _markdown(results: Results, folder: StudyFolder, main: pd.DataFrame) -> str:
    missing = _missing(results)
    told = [_summary(results, folder, main), *([f"Not everything is here: {missing}."] if missing else [])]
    return f"# Study {folder.study.name}\n\n" + "\n\n".join([*told, markdown(main, headline_columns(folder.study))])
