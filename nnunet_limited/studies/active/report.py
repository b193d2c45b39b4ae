"""The report of a simulated loop of active learning: how the strategies compare, and when to stop."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nnunet_limited.metrics.areas import compare_pairs, penalties
from nnunet_limited.metrics.registry import METRICS, SAFEGUARDS
from nnunet_limited.metrics.statistics import MIN_SEEDS, evidence
from nnunet_limited.report.figures import Picture, picture, styles
from nnunet_limited.report.page import Section
from nnunet_limited.report.tables import Column, interval, number_column, table_of, text_column
from nnunet_limited.studies.active.folder import ActiveFolder
from nnunet_limited.studies.active.results import complete_chains, headline, load_results, predicted_gains, shown
from nnunet_limited.studies.active.study import FULL, ActiveStudy
from nnunet_limited.studies.engine.report import write_report

COSTS = {"items": "windows", "foreground_voxels": "foreground voxels annotated", "minutes": "minutes of outlining"}
PLACE = [text_column("what", "target"), text_column("method"), text_column("strategy")]
HEADLINE = [
    *PLACE,
    number_column("seeds", "seeds", 0),
    number_column("AUBC", "aubc"),
    number_column("± sd", "aubc_sd"),
    number_column("last Dice", "final"),
    number_column("± sd", "final_sd"),
    *(number_column(f"last {METRICS[name].heading(voxels=False)}", name) for name in SAFEGUARDS),
    Column("AUBC against the baseline [95 %]", "difference", interval),
    text_column("evidence"),
    number_column("FG-Eff", "efficiency", 2),
    number_column("foreground voxels", "foreground_voxels", 0),
    number_column("minutes", "minutes", 0),
]
GAINS = [
    *PLACE,
    number_column("after round", "number", 0),
    number_column("predicted gain", "predicted"),
    number_column("gain of the next round", "gain"),
]
RUNS = [text_column("run"), text_column("state")]
NOT_DONE = "No loop is complete yet."
STOP_NOTE = (
    "After three or more trainings, a curve whose gains shrink by the same factor each round is fitted to the Dice; "
    "stop when the predicted gain is not worth the minutes. The actual gain of the next round is shown beside it."
)
PAIRS_NOTE = (
    "Differences of the mean Dice over the settings (what × method × round), paired by seed, with Holm's correction."
)
PENALTIES_NOTE = (
    "The matrix has the fraction of the settings in which the strategy of the row was beaten by that of the column "
    "(p < 0.05 in a paired t-test over seeds). A few seeds show large differences only."
)
TOO_FEW_NOTE = f"Tests need {MIN_SEEDS} seeds that are complete for all strategies; there are {{seeds}}."


def make_active_report(folder: ActiveFolder, out: Path) -> list[Path]:
    """Write the report of what is done so far into ``out``; return its files."""
    study, found = folder.study, load_results(folder)
    curves = complete_chains(found, study)
    table, gains = headline(curves, found, study), predicted_gains(curves)
    sections = [_headline_section(table, study)]
    if not table.empty:
        sections += [
            _curves_section(curves, study, found.loc[found["target"] == FULL, "dice"].mean()),
            _penalties_section(curves, study),
            Section("When to stop", [STOP_NOTE], [table_of("Gain of the next round", gains, GAINS)]),
        ]
    runs = pd.DataFrame([{"run": one.run.identifier, "state": one.state} for one in folder.states()])
    about = f"Active learning, {study.name}", _summary(table, study), sections, (table, HEADLINE), (runs, RUNS)
    return write_report(folder, out, *about, rounds=curves, gains=gains)


def _summary(table: pd.DataFrame, study: ActiveStudy) -> str:
    text = (
        f"{len(study.strategies)} query strategies on {study.dataset}, {study.rounds} rounds from {study.labeled} "
        f"labelled case{'s' * (study.labeled > 1)}, {study.iterations:,} iterations per training, "
        f"{len(study.seeds)} seeds. "
    )
    if table.empty:
        return text + NOT_DONE
    for (target, method), part in table.groupby(["target", "method"], sort=False):
        best = part.sort_values("aubc", ascending=False).iloc[0]
        follows = f" ({best['evidence']})" if best["evidence"] else ""
        text += f" {target}, {method}: highest AUBC {best['strategy']}, {best['aubc']:.4f}{follows}."
    return text


def _headline_section(table: pd.DataFrame, study: ActiveStudy) -> Section:
    notes = [
        "AUBC is the area under the Dice over the rounds, on [0, 1]; strategies share the start of a seed. FG-Eff is "
        "the rate at which annotated foreground closes the gap to all labels (nnActive, arXiv 2511.19183). Costs are "
        "those at the end.",
        f"The baseline is {study.strategies[0]}. Differences are paired by seed; from {MIN_SEEDS} seeds on they have a "
        "95 % interval and a p-value (t-test over the seeds, Holm's correction over the rows). No gain is claimed "
        "where HD95 or NSD of the last round are worse in most seeds.",
        "(oracle): the strategy uses the hidden foreground, which is not available in practice.",
    ]
    if table.empty:
        return Section("Strategies", [NOT_DONE])
    best = table[table["setbacks"] == ""].groupby(["target", "method"])["aubc"].idxmax()
    return Section("Strategies", notes, [table_of("Strategies", table.assign(best=table.index.isin(best)), HEADLINE)])


def _curves_section(curves: pd.DataFrame, study: ActiveStudy, full: float) -> Section:
    section = Section("Learning curves")
    for (target, method), part in curves.groupby(["target", "method"], sort=False):
        title = f"{target}, {study.method(method).name}"
        section.pictures[f"curves_{target}_{method}"] = _draw_curves(title, part, study.strategies, full)
    return section


def _draw_curves(title: str, part: pd.DataFrame, names: Sequence[str], full: float) -> Picture:
    """Draw Dice against each cost, mean over seeds, a line for each strategy."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    panels = figure.subplots(1, len(COSTS), sharey=True)
    looks, texts = styles(names), []
    for strategy, mine in part.groupby("strategy", observed=True):
        means = mine.groupby("number")[["dice", *COSTS]].mean()
        for axes, cost in zip(panels, COSTS, strict=True):
            axes.plot(means[cost], means["dice"], label=shown(strategy), markersize=5, **looks[strategy])
        texts.append(f"{shown(strategy)}: {', '.join(f'{value:.3f}' for value in means['dice'])}")
    for axes, text in zip(panels, COSTS.values(), strict=True):
        if not math.isnan(full):
            axes.axhline(full, color="black", linestyle="--", linewidth=1, label="supervised, all labels")
        axes.set_xlabel(text, fontsize=9)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("Dice")
    lines = panels[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    caption = f"{title}: Dice after each round against what was annotated, mean over seeds."
    return picture(figure, caption, f"Dice round by round. {'; '.join(texts)}.")


def _penalties_section(curves: pd.DataFrame, study: ActiveStudy) -> Section:
    section = Section("Pairwise comparison", [PAIRS_NOTE])
    wide = [
        part.pivot(index="seed", columns="strategy", values="dice").dropna()
        for _, part in curves[curves["number"] > 0].groupby(["target", "method", "number"], sort=False)
    ]
    wide = [one for one in wide if len(one.columns) == len(study.strategies)]
    shared = sorted(set.intersection(*(set(one.index) for one in wide))) if wide else []
    settings = [{name: one.loc[shared, name].to_numpy() for name in study.strategies} for one in wide]
    if not shared:
        section.notes = ["A comparison needs a seed that is complete for all strategies."]
        return section
    if len(shared) >= MIN_SEEDS:
        section.notes.append(PENALTIES_NOTE)
        section.pictures["penalties"] = _draw_penalties(penalties(settings).rename(index=shown, columns=shown))
    else:
        section.notes.append(TOO_FEW_NOTE.format(seeds=len(shared)))
    rows = [(shown(a), shown(b), one.mean, evidence(one, p)) for (a, b), (one, p) in compare_pairs(settings).items()]
    table = pd.DataFrame(rows, columns=["a", "b", "difference", "evidence"])
    columns = [text_column("strategy", "a"), text_column("minus", "b"), number_column("Dice", "difference")]
    section.tables.append(table_of("Pairs of strategies", table, [*columns, text_column("evidence")]))
    return section


def _draw_penalties(fractions: pd.DataFrame) -> Picture:
    figure = Figure(figsize=(1.1 * len(fractions) + 2, 0.8 * len(fractions) + 1.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(fractions.to_numpy()):
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.5 else "black")
    axes.set_xticks(range(len(fractions)), fractions.columns, rotation=30, ha="right")
    axes.set_yticks(range(len(fractions)), fractions.index)
    axes.set(xlabel="beats", ylabel="is beaten")
    pairs = [f"{b} beats {a} in {v:.0%}" for a, line in fractions.iterrows() for b, v in line.items() if v]
    text = "; ".join(pairs) or "no strategy beats another"
    text = f"Fraction of settings in which one strategy beats another: {text}."
    return picture(figure, "Pairwise penalty matrix.", text)
