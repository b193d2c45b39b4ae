"""The report of a comparison study: one page that needs no other file, and its tables as Markdown, CSV and LaTeX."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from nnunet_limited.datasets.listing import channels_by_case
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.metrics.statistics import MIN_SEEDS
from nnunet_limited.report.figures import Picture
from nnunet_limited.report.page import Section
from nnunet_limited.report.tables import Column, table_of
from nnunet_limited.studies.comparison import results as tables
from nnunet_limited.studies.comparison.figures import learning_curves, overlay, paired, training_curves
from nnunet_limited.studies.comparison.folder import ComparisonFolder
from nnunet_limited.studies.comparison.job import compared
from nnunet_limited.studies.comparison.results import SETTING, Results, Setting
from nnunet_limited.studies.comparison.study import ALL, Method, Study
from nnunet_limited.studies.engine.report import write_report

NOT_DONE = "No run is done yet."
RANKING_NOTE = (
    "Ranks by the mean over seeds. The interval of a rank is what paired t-tests over seeds leave open, with Holm's "
    f"correction over all pairs; below {MIN_SEEDS} seeds there is none. A method that is not first in all seeds is no "
    "clear winner."
)
COST_NOTE = "Time of the epochs; for self-training with the teacher. Memory is that of the process, not of the GPU."


def make_comparison_report(folder: ComparisonFolder, out: Path) -> list[Path]:
    """Write the report of what is done so far into ``out``; return its files."""
    with folder.active():
        results, study = tables.load_results(folder), folder.study
        main, ranks, costs = tables.headline(results, study), tables.ranking(results, study), tables.costs(results)
        setting = tables.setting_columns(study)
        sections = [_headline_section(study, main)]
        if not main.empty:
            sections += [
                _curves_section(results, study),
                _paired_section(results, study),
                _table_section("Stability of the ranking", ranks, [*setting, *tables.RANK_COLUMNS], RANKING_NOTE),
                _table_section("Classes", tables.classes(results, study), [*setting, *tables.class_columns(study)]),
                _training_section(results, study),
                _cases_section(results, folder),
                _table_section("Time and memory", costs, tables.COST_COLUMNS, COST_NOTE),
            ]
    about = f"Study {study.name}", summary(results, study, main), sections
    shown, runs = (main, tables.headline_columns(study)), (results.runs, tables.RUN_COLUMNS)
    return write_report(folder, out, *about, shown, runs, scores=results.scores, runs=results.runs.drop(columns="log"))


def summary(results: Results, study: Study, main: pd.DataFrame) -> str:
    """Return what was compared, and the best method at each labelled size."""
    where = "a test set" if study.test else "the validation cases of the folds"
    text = (
        f"{len(study.methods)} methods on {', '.join(map(str, study.datasets))}, {study.iterations:,} iterations, "
        f"{len(study.seeds)} seeds of split and run, compared on {where}."
    )
    if main.empty:
        return f"{text} {NOT_DONE}"
    metric = study.main
    best = dict(list(main.sort_values(metric.name, ascending=not metric.higher_is_better).groupby(SETTING)))
    text += f" Highest mean {metric.title}" if metric.higher_is_better else f" Lowest mean {metric.title}"
    text += f", and what follows against {study.reference}:"
    for setting in results.settings():
        if setting[2] != ALL and setting in best:
            first = best[setting].iloc[0]
            follows = f" ({first['evidence']})" if first["evidence"] else ""
            text += f" {_title(setting)}: {first['method']} {first[metric.name]:.3f}{follows}."
    return text


def _table_section(title: str, table: pd.DataFrame, columns: Sequence[Column], *notes: str) -> Section:
    return Section(title, list(notes), [table_of(title, table, columns)] if not table.empty else [])


def _headline_section(study: Study, main: pd.DataFrame) -> Section:
    if main.empty:
        return Section("Results", [NOT_DONE])
    metric = study.main
    notes = [
        "Means as nnU-Net defines them: of each class over its cases, then over the classes; ± sd over seeds. A case "
        "in which a class is neither predicted nor present is left out of its mean; where the class is only predicted "
        "or only present, overlaps are 0 and distances are the diagonal of the image.",
        f"Differences to {study.reference} are paired by seed, on the cases that both have. From {MIN_SEEDS} seeds on "
        "they have a 95 % interval and a p-value (t-test over the seeds, Holm's correction over the rows); below that "
        "neither, because a few runs do not show how much runs differ. Both hold for these validation cases, not for "
        "other patients. No gain is claimed where HD95 or NSD are worse in most seeds.",
        f"Labels saved: the further labelled cases that {study.reference} needs for the same {metric.title}, by its "
        f"learning curve; from {MIN_SEEDS} seeds on with the numbers at which a t-test over seeds shows no difference.",
    ]
    groups = main[main[metric.name].notna() & (main["setbacks"] == "")].groupby(SETTING)[metric.name]
    best = groups.idxmax() if metric.higher_is_better else groups.idxmin()
    shown = main.assign(best=main.index.isin(best))
    return Section("Results", notes, [table_of("Methods by labelled size", shown, tables.headline_columns(study))])


def _places(results: Results) -> list[tuple[str, str]]:
    return list(dict.fromkeys(setting[:2] for setting in results.settings()))


def _title(setting: Sequence[str]) -> str:
    size = f", {setting[2]} labelled" if len(setting) > 2 else ""
    return f"{setting[0]}, {setting[1]}{size}"


def _curves_section(results: Results, study: Study) -> Section:
    section = Section("Learning curves")
    names = [method.name for method in study.methods]
    for place in _places(results):
        curves = {name: tables.learning_curve(results, place, name, study.main.name) for name in names}
        reference = curves[study.reference]
        upper = reference.loc[reference["labeled"] == ALL, "mean"]
        curves[study.reference] = reference[reference["labeled"] != ALL]
        curves = {name: curve for name, curve in curves.items() if not curve.empty}
        if curves:
            level = None if upper.empty else float(upper.iloc[0])
            made = learning_curves(_title(place), curves, names, level, study.main.heading(study.voxels))
            section.pictures["learning_curves_" + "_".join(place)] = made
    return section


def _paired_section(results: Results, study: Study) -> Section:
    metric = study.main.name
    section = Section("Case by case")
    for setting in results.settings():
        baseline = results.by_case(setting, study.reference, metric)
        pairs = {}
        for method in study.methods:
            mine = results.by_case(setting, method.name, metric)
            both = mine.index.intersection(baseline.index)
            if method.name != study.reference and len(both):
                pairs[method.name] = (mine[both], baseline[both])
        if pairs:
            made = paired(_title(setting), study.reference, pairs, study.main.heading(study.voxels))
            section.pictures["paired_" + "_".join(setting)] = made
    return section


def _training_section(results: Results, study: Study) -> Section:
    section = Section("Training", ["The first seed and fold of each size; of self-training, the last round."])
    for setting in results.settings():
        curves: dict[str, Any] = {}
        for method in study.methods:
            done = [run for run in results.records if run.setting == setting and run.method == method.slug]
            if done:
                curves[method.name] = results.records[done[0]]["curves"][-1]
        if curves:
            made = training_curves(_title(setting), curves, [method.name for method in study.methods])
            section.pictures["training_" + "_".join(setting)] = made
    return section


def _cases_section(results: Results, folder: ComparisonFolder) -> Section:
    """Show the median and the worst case of each method at the smallest size, beside the baseline."""
    section = Section("Cases", ["The slice on which the predictions differ most from the truth."])
    for place in _places(results):
        setting = next(setting for setting in results.settings() if setting[:2] == place)
        for method in folder.study.methods:
            if method.name != folder.study.reference:
                section.pictures.update(_case_pictures(results, folder, setting, method))
    return section


def _case_pictures(results: Results, folder: ComparisonFolder, setting: Setting, method: Method) -> dict[str, Picture]:
    """Return the pictures of the first run of a method for which there is one of the baseline."""
    metric, reference = folder.study.main, folder.study.method(folder.study.reference)
    runs = {(run.method, run.seed, run.fold): run for run in results.records if run.setting == setting}
    mine = (run for run in runs.values() if run.method == method.slug)
    run = next((run for run in mine if (reference.slug, run.seed, run.fold) in runs), None)
    if run is None:
        return {}
    shown = {reference.name: runs[reference.slug, run.seed, run.fold], method.name: run}
    ordered = results.cases(run, method.name, metric.name).sort_values(ascending=metric.higher_is_better)
    raw, test, pictures = RawDataset.load(run.dataset), folder.study.test, {}
    images: Mapping[str, Sequence[Path]] = {case: files.images for case, files in raw.cases.items()}
    if test is not None:
        images = channels_by_case(raw.folder / test.images, raw.description.file_ending)
    for what, position in (("worst", 0), ("median", len(ordered) // 2)):
        if position < len(ordered):
            case, value = ordered.index[position], ordered.iloc[position]
            text = f"{metric.title} of {method.name}: {value:.3f}."
            title = f"{_title(setting)}, seed {run.seed}: {what} case of {method.name}, {case}. {text}"
            name = f"{case}{raw.description.file_ending}"
            predictions = {key: compared(folder, one)[0] / name for key, one in shown.items()}
            files = images[case][0], compared(folder, run)[1] / name, predictions
            pictures[f"{what}_{method.slug}_" + "_".join(setting)] = overlay(title, raw, *files, text)
    return pictures
