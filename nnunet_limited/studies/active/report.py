"""The report of a simulated loop of active learning: what each strategy was worth, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure

from nnunet_limited.metrics.areas import area_under_budget_curve, foreground_efficiency, penalties, predicted_gain
from nnunet_limited.queries.strategies.registry import strategies
from nnunet_limited.report.figures import Picture, styles
from nnunet_limited.report.page import Section, embed, render
from nnunet_limited.report.tables import latex, markdown, number_column, table_of, text_column
from nnunet_limited.studies.active.study import FULL, START, ActiveFolder, ActiveStudy
from nnunet_limited.studies.comparison.columns import RUNS
from nnunet_limited.studies.engine.workflow import states
from nnunet_limited.util.files import read_object, replacing

KEYS = ["target", "method", "strategy"]
COSTS = {
    "items": "regions",
    "foreground_voxels": "foreground voxels annotated",
    "minutes": "minutes of outlining",
}
HEADLINE = [
    text_column("what", "target"),
    text_column("method"),
    text_column("strategy"),
    number_column("seeds", "seeds", 0),
    number_column("AUBC", "aubc"),
    number_column("± sd", "aubc_sd"),
    number_column("last Dice", "final"),
    number_column("± sd", "final_sd"),
    number_column("AUBC against the baseline", "difference"),
    number_column("seeds better", "better", 0),
    number_column("FG-Eff", "efficiency", 2),
    number_column("foreground voxels", "foreground_voxels", 0),
    number_column("minutes", "minutes", 0),
]
GAINS = [
    text_column("what", "target"),
    text_column("method"),
    text_column("strategy"),
    number_column("after round", "number", 0),
    number_column("predicted gain", "predicted"),
    number_column("gain of the next round", "gain"),
]


def make_active_report(folder: ActiveFolder, out: Path | None = None) -> list[Path]:
    """Write the report of what is done so far into ``out`` (default: ``report/`` of the simulation)."""
    out = out or folder.path / "report"
    study, written = folder.study, list[Path]()
    found = _results(folder)
    curves = _curves(found, study)
    table = headline(curves, found, study)
    gains = _gains(curves)
    sections = [_headline_section(table, study)]
    if not table.empty:
        full = found.loc[found["target"] == FULL, "dice"].mean()
        sections += [
            _curves_section(curves, study, full, out, written),
            _penalties_section(curves, study, out, written),
            Section(
                "When to stop",
                [_STOP],
                [table_of("Gain of the next round", gains, GAINS)],
            ),
        ]
    sections += [_runs_section(folder), _record_section(folder)]
    missing = [f"{run.identifier} {state}" for run, state, _ in states(folder) if state != "done"]
    told = f"{len(missing)} trainings are not done: {', '.join(missing[:10])}" if missing else ""
    page = render(
        "study.html",
        title=f"Active learning, {study.name}",
        summary=_summary(table, study),
        missing=told,
        sections=sections,
    )
    told = f"\n\nNot everything is here: {told}." if told else ""
    for name, content in (
        (
            "table.md",
            f"# Active learning, {study.name}\n\n{_summary(table, study)}{told}\n\n{markdown(table, HEADLINE)}",
        ),
        ("table.csv", table.to_csv(index=False)),
        ("table.tex", latex(table, HEADLINE)),
        ("rounds.csv", curves.drop(columns="cases", errors="ignore").to_csv(index=False)),
        ("gains.csv", gains.to_csv(index=False)),
        ("index.html", page),
    ):
        with replacing(out / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
        written.append(out / name)
    return written


# ---- tables ----------------------------------------------------------------------------------------------------------


def _results(folder: ActiveFolder) -> pd.DataFrame:
    """Return a row for each training that is done: its place, Dice (the mean over cases), and what its labels cost."""
    rows = []
    for step, state, _ in states(folder):
        if state == "done":
            record = read_object(folder.run_folder(step) / "trained.json", "record of a training", "run again")
            place = {key: getattr(step, key) for key in (*KEYS, "seed", "number")}
            dice = float(np.nanmean(list(record["dice"].values())))
            rows.append({**place, "dice": dice, "cases": record["dice"], **record["costs"], "fit": record["minutes"]})
    columns = [*KEYS, "seed", "number", "dice", "cases", "items", "voxels", "foreground_voxels", "minutes", "fit"]
    return pd.DataFrame(rows, columns=columns)


def _curves(found: pd.DataFrame, study: ActiveStudy) -> pd.DataFrame:
    """Return the rounds of every chain and seed that came to its end, the start they share among them."""
    parts = []
    for (target, method, strategy, seed), rounds in found[found["number"] > 0].groupby([*KEYS, "seed"]):
        start = found[(found["target"] == START) & (found["method"] == method) & (found["seed"] == seed)]
        if len(rounds) == study.rounds and len(start) == 1:
            begin = start.assign(target=target, strategy=strategy)
            parts.append(pd.concat([begin, rounds]).sort_values("number"))
    curves = pd.concat(parts, ignore_index=True) if parts else found.iloc[:0]
    return curves.assign(strategy=pd.Categorical(curves["strategy"], study.strategies, ordered=True))


def headline(curves: pd.DataFrame, found: pd.DataFrame, study: ActiveStudy) -> pd.DataFrame:
    """Return a row for each chain: AUBC, last Dice and FG-Eff, their spread over seeds, and the baseline beside."""
    full = found.loc[found["target"] == FULL, "dice"].mean()
    every = found.loc[found["target"] == FULL, "foreground_voxels"].mean()
    rows: list[dict[str, Any]] = []
    for (target, method), part in curves.groupby(["target", "method"], sort=False):
        areas = {
            (strategy, seed): area_under_budget_curve(one["dice"].tolist())
            for (strategy, seed), one in part.groupby(["strategy", "seed"], observed=True)
        }
        start = float(part.loc[part["number"] == 0, "dice"].mean())
        for strategy in study.strategies:
            mine = part[part["strategy"] == strategy]
            if mine.empty:
                continue
            last = mine[mine["number"] == study.rounds]
            seeds = sorted(mine["seed"].unique())
            area = pd.Series([areas[strategy, seed] for seed in seeds])
            both = [seed for seed in seeds if (study.strategies[0], seed) in areas]
            differences = [areas[strategy, seed] - areas[study.strategies[0], seed] for seed in both]
            means = mine.groupby("number")[["foreground_voxels", "dice"]].mean()
            x, y = means["foreground_voxels"].to_numpy(), means["dice"].to_numpy()
            baseline = strategy == study.strategies[0] or not both
            rows.append(
                {
                    "target": target,
                    "method": study.method(method).name,
                    "strategy": shown(strategy),
                    "seeds": len(seeds),
                    "aubc": area.mean(),
                    "aubc_sd": area.std(ddof=1) if len(seeds) > 1 else math.nan,
                    "final": last["dice"].mean(),
                    "final_sd": last["dice"].std(ddof=1) if len(seeds) > 1 else math.nan,
                    "difference": math.nan if baseline else float(np.mean(differences)),
                    "better": math.nan if baseline else float(np.sum(np.array(differences) > 0)),
                    "efficiency": foreground_efficiency(100 * x / every, y, start, full),
                    "foreground_voxels": last["foreground_voxels"].mean(),
                    "minutes": last["minutes"].mean(),
                }
            )
    return pd.DataFrame(rows)


def _gains(curves: pd.DataFrame) -> pd.DataFrame:
    """Return what was predicted after each round, from the mean over seeds, and what came."""
    rows = []
    for place, part in curves.groupby(KEYS, observed=True):
        dice = part.groupby("number")["dice"].mean().tolist()
        for number in range(2, len(dice)):
            about = dict(zip(KEYS, place, strict=True)) | {"number": number}
            about["strategy"] = shown(about["strategy"])
            gain = dice[number + 1] - dice[number] if number + 1 < len(dice) else math.nan
            rows.append({**about, "predicted": predicted_gain(dice[: number + 1]), "gain": gain})
    return pd.DataFrame(rows, columns=[*KEYS, "number", "predicted", "gain"])


# ---- sections --------------------------------------------------------------------------------------------------------

_STOP = (
    "From three trainings on, a curve whose gains shrink by the same factor each round is put through the Dice so far; "
    "stop when what it promises is not worth the minutes. Beside it what the next round really brought."
)


def _summary(table: pd.DataFrame, study: ActiveStudy) -> str:
    told = (
        f"{len(study.strategies)} query strategies on {study.dataset}, {study.rounds} rounds from {study.labeled} "
        f"labelled cases, {study.iterations:,} iterations a training, {len(study.seeds)} seeds; hidden labels answer. "
    )
    if table.empty:
        return f"{told}No loop has come to its end yet."
    for (target, method), part in table.groupby(["target", "method"], sort=False):
        best = part.sort_values("aubc", ascending=False).iloc[0]
        told += f" {target}, {method}: highest AUBC {best['strategy']}, {best['aubc']:.4f}."
    return told


def shown(strategy: str) -> str:
    """Return the name of a strategy, marked if the oracle helps it to choose."""
    return f"{strategy} (oracle)" if strategies()[strategy].needs_foreground else strategy


def _headline_section(table: pd.DataFrame, study: ActiveStudy) -> Section:
    notes = [
        "AUBC is the area under the Dice over the rounds, on [0, 1]; strategies share the start of a seed. FG-Eff is "
        "the rate at which annotated foreground closes the gap to all labels (nnActive, arXiv 2511.19183). Costs are "
        f"those at the end. The baseline is {study.strategies[0]}.",
        "(oracle): it is told the hidden foreground, which nobody has in practice.",
    ]
    if table.empty:
        return Section("Strategies", ["No loop has come to its end yet."])
    best = table.groupby(["target", "method"])["aubc"].idxmax()
    return Section("Strategies", notes, [table_of("Strategies", table.assign(best=table.index.isin(best)), HEADLINE)])


def _curves_section(curves: pd.DataFrame, study: ActiveStudy, full: float, out: Path, written: list[Path]) -> Section:
    section = Section("Learning curves")
    for (target, method), part in curves.groupby(["target", "method"], sort=False):
        title = f"{target}, {study.method(method).name}"
        name = f"curves_{target}_{method}"
        section.pictures.append(embed(_draw_curves(title, part, study.strategies, full), out, name, written))
    return section


def _draw_curves(title: str, part: pd.DataFrame, names: Sequence[str], full: float) -> Picture:
    """Draw Dice against each cost, mean over seeds, a line a strategy."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    panels = figure.subplots(1, len(COSTS), sharey=True)
    looks, told = styles(names), []
    for strategy, mine in part.groupby("strategy", observed=True):
        means = mine.groupby("number")[["dice", *COSTS]].mean()
        for axes, cost in zip(panels, COSTS, strict=True):
            axes.plot(means[cost], means["dice"], label=shown(strategy), markersize=5, **looks[strategy])
        told.append(f"{shown(strategy)}: {', '.join(f'{value:.3f}' for value in means['dice'])}")
    for axes, text in zip(panels, COSTS.values(), strict=True):
        if not math.isnan(full):
            axes.axhline(full, color="black", linestyle="--", linewidth=1, label="supervised, all labels")
        axes.set_xlabel(text, fontsize=9)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("Dice")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=9
    )
    caption = f"{title}: Dice after each round against what was annotated, mean over seeds."
    return Picture(figure, caption, f"Dice round by round. {'; '.join(told)}.")


def _penalties_section(curves: pd.DataFrame, study: ActiveStudy, out: Path, written: list[Path]) -> Section:
    section = Section(
        "Who beats whom",
        [
            "Share of the settings (what × method × round) in which the strategy of the row was beaten by that of the "
            "column (p < 0.05 in a paired t-test over seeds); the p-values are of the means over settings, with Holm's "
            "correction. Few seeds can tell little apart."
        ],
    )
    wide = [
        part.pivot(index="seed", columns="strategy", values="dice").dropna()
        for _, part in curves[curves["number"] > 0].groupby(["target", "method", "number"], sort=False)
    ]
    wide = [one for one in wide if len(one.columns) == len(study.strategies)]
    shared = sorted(set.intersection(*(set(one.index) for one in wide))) if wide else []
    settings = [{name: one.loc[shared, name].to_numpy() for name in study.strategies} for one in wide]
    if len(shared) < 2:
        section.notes = ["Two seeds at least that all strategies have finished are needed to tell them apart."]
        return section
    shares, p = penalties(settings)
    section.pictures.append(
        embed(_draw_penalties(shares.rename(index=shown, columns=shown)), out, "penalties", written)
    )
    rows = [
        {"a": shown(a), "b": shown(b), "share_a": shares.loc[a, b], "share_b": shares.loc[b, a], "p": p.loc[a, b]}
        for n, a in enumerate(study.strategies)
        for b in study.strategies[n + 1 :]
    ]
    columns = [text_column("strategy", "a"), text_column("and", "b"), number_column("first is beaten", "share_a", 2)]
    columns += [number_column("second is beaten", "share_b", 2), number_column("p (Holm)", "p", 3)]
    section.tables.append(table_of("Pairs of strategies", pd.DataFrame(rows), columns))
    return section


def _draw_penalties(shares: pd.DataFrame) -> Picture:
    figure = Figure(figsize=(1.1 * len(shares) + 2, 0.8 * len(shares) + 1.6), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(shares.to_numpy()):
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if value > 0.5 else "black")
    axes.set_xticks(range(len(shares)), shares.columns, rotation=30, ha="right")
    axes.set_yticks(range(len(shares)), shares.index)
    axes.set_xlabel("beats")
    axes.set_ylabel("is beaten")
    pairs = [f"{b} beats {a} in {v:.0%}" for a, line in shares.iterrows() for b, v in line.items() if v]
    told = "; ".join(pairs) or "no strategy beats another"
    return Picture(
        figure, "Pairwise penalty matrix.", f"Share of settings in which one strategy beats another: {told}."
    )


def _runs_section(folder: ActiveFolder) -> Section:
    rows = [{"run": step.identifier, "state": state} for step, state, _ in states(folder)]
    section = Section("Trainings", [], [table_of("Every training", pd.DataFrame(rows), RUNS[:2])])
    for step, state, log in states(folder):
        if state == "failed" and log is not None:
            lines = log.read_text(errors="replace", encoding="utf-8").splitlines()[-15:]
            title = f"End of the log of {step.identifier}, which failed"
            section.blocks.append({"title": title, "content": "\n".join(lines)})
    return section


def _record_section(folder: ActiveFolder) -> Section:
    section = Section("How it was made", ["Versions, configuration and commands, to do it again."])
    records = {
        step.identifier: read_object(folder.run_folder(step) / "trained.json", "record of a training", "run again")
        for step, state, _ in states(folder)
        if state == "done"
    }
    versions = sorted({f"{k} {v}" for record in records.values() for k, v in record["versions"].items()})
    machines = sorted({record["machine"] for record in records.values()})
    commands = [f"# {name}\n{record['command']}" for name, record in records.items()]
    content = yaml.safe_dump(folder.study.model_dump(mode="json"), sort_keys=False)
    for title, lines in (
        ("Versions and machines", [*versions, *machines]),
        ("Study file", [content]),
        ("Commands of the trainings", commands),
    ):
        section.blocks.append({"title": title, "content": "\n".join(lines)})
    return section
