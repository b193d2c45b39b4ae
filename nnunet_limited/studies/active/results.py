"""The results of a simulated loop of active learning so far, as tables."""

import math

import pandas as pd

from nnunet_limited.host.evaluation import mean_dice
from nnunet_limited.metrics.areas import area_under_budget_curve, foreground_efficiency, predicted_gain
from nnunet_limited.metrics.registry import METRICS, SAFEGUARDS
from nnunet_limited.metrics.statistics import Difference, difference_of, evidence, holm, setbacks
from nnunet_limited.queries.strategies.registry import strategies
from nnunet_limited.runs.evaluate import read_rows, summarise
from nnunet_limited.studies.active.folder import ActiveFolder
from nnunet_limited.studies.active.job import METRICS_FILE, StepRecord
from nnunet_limited.studies.active.study import FULL, START, ActiveStudy, Step
from nnunet_limited.util.files import read_object

KEYS = ["target", "method", "strategy"]
SCORES = ("dice", *SAFEGUARDS)
COMPARED = {"aubc": True, **{name: METRICS[name].higher_is_better for name in SAFEGUARDS}}  # higher is better


def load_results(folder: ActiveFolder) -> pd.DataFrame:
    """Return a row for each training that is done: its keys, its mean metrics, and what its labels cost."""
    rows = []
    for step, state, _ in folder.states():
        if state == "done":
            record: StepRecord = folder.record(step)
            keys = {key: getattr(step, key) for key in (*KEYS, "seed", "number")}
            rows.append({**keys, **_scores(folder, step, record), **record["costs"], "fit": record["minutes"]})
    columns = [*KEYS, "seed", "number", *SCORES, "items", "voxels", "foreground_voxels", "minutes", "fit"]
    return pd.DataFrame(rows, columns=columns)


def _scores(folder: ActiveFolder, step: Step, record: StepRecord) -> dict[str, float]:
    """Return the mean metrics of a training; of one from before they were measured only nnU-Net's Dice."""
    file = folder.run_folder(step) / METRICS_FILE
    if file.is_file():
        means = summarise(read_rows(file).reindex(columns=["class", *METRICS])).loc["mean"]
        return {name: float(means[name]) for name in SCORES}
    summary = folder.path / record["results"][-1] / "validation" / "summary.json"
    return {**dict.fromkeys(SCORES, math.nan), "dice": mean_dice(read_object(summary, "validation", "run again"))}


def complete_chains(found: pd.DataFrame, study: ActiveStudy) -> pd.DataFrame:
    """Return the rounds of each chain and seed that is complete, with the start that the chains share."""
    parts = []
    for (target, method, strategy, seed), rounds in found[found["number"] > 0].groupby([*KEYS, "seed"]):
        start = found[(found["target"] == START) & (found["method"] == method) & (found["seed"] == seed)]
        if len(rounds) == study.rounds and len(start) == 1:
            begin = start.assign(target=target, strategy=strategy)
            parts.append(pd.concat([begin, rounds]).sort_values("number"))
    curves = pd.concat(parts, ignore_index=True) if parts else found.iloc[:0]
    return curves.assign(strategy=pd.Categorical(curves["strategy"], study.strategies, ordered=True))


def headline(curves: pd.DataFrame, found: pd.DataFrame, study: ActiveStudy) -> pd.DataFrame:
    """Return a row for each chain: AUBC, last scores and FG-Eff, difference to the baseline, and what follows."""
    full = found.loc[found["target"] == FULL, ["dice", "foreground_voxels"]].mean()
    rows, differences = [], []
    for (target, method), part in curves.groupby(["target", "method"], sort=False):
        start = float(part.loc[part["number"] == 0, "dice"].mean())
        baseline = _by_seed(part[part["strategy"] == study.strategies[0]])
        for strategy, rounds in part.groupby("strategy", observed=True):
            mine = _by_seed(rounds)
            against = {name: difference_of(mine[name] - baseline[name], better) for name, better in COMPARED.items()}
            if strategy == study.strategies[0]:
                against = dict.fromkeys(COMPARED, Difference())
            area = against.pop("aubc")
            place = {"target": target, "method": study.method(method).name, "strategy": shown(strategy)}
            row = {**place, **_chain(rounds, mine, start, full), "difference": area.mean}
            row |= {"low": area.low, "high": area.high, "p": area.p, "paired_seeds": area.seeds, "better": area.better}
            row["setbacks"] = setbacks({METRICS[name].title: one for name, one in against.items()})
            rows.append(row)
            differences.append(area)
    for row, area, p in zip(rows, differences, holm([row["p"] for row in rows]), strict=True):
        row |= {"p_holm": p, "evidence": evidence(area, p, row["setbacks"])}
    return pd.DataFrame(rows)


def _by_seed(rounds: pd.DataFrame) -> pd.DataFrame:
    """Return for each seed of a chain the AUBC and the safeguards after the last round."""
    areas = rounds.groupby("seed")["dice"].agg(area_under_budget_curve)
    last = rounds[rounds["number"] == rounds["number"].max()].set_index("seed")[list(SAFEGUARDS)]
    return last.assign(aubc=areas)


def _chain(rounds: pd.DataFrame, seeds: pd.DataFrame, start: float, full: pd.Series) -> dict[str, float]:
    """Return the values of a chain: ``start`` is the mean Dice before the first query, ``full`` is with all labels."""
    last = rounds[rounds["number"] == rounds["number"].max()]
    means = rounds.groupby("number")[["foreground_voxels", "dice"]].mean()
    foreground = (100 * means["foreground_voxels"] / full["foreground_voxels"]).tolist()
    return {
        "seeds": len(seeds),
        "aubc": seeds["aubc"].mean(),
        "aubc_sd": seeds["aubc"].std(ddof=1),
        "final": last["dice"].mean(),
        "final_sd": last["dice"].std(ddof=1),
        **seeds[list(SAFEGUARDS)].mean().to_dict(),
        "efficiency": foreground_efficiency(foreground, means["dice"].tolist(), start, full["dice"]),
        "foreground_voxels": last["foreground_voxels"].mean(),
        "minutes": last["minutes"].mean(),
    }


def predicted_gains(curves: pd.DataFrame) -> pd.DataFrame:
    """Return the gain that was predicted after each round, from the mean over seeds, and the actual gain."""
    rows = []
    for place, part in curves.groupby(KEYS, observed=True):
        dice = part.groupby("number")["dice"].mean().tolist()
        for number in range(2, len(dice)):
            row = dict(zip(KEYS, place, strict=True)) | {"number": number}
            row["strategy"] = shown(row["strategy"])
            gain = dice[number + 1] - dice[number] if number + 1 < len(dice) else math.nan
            rows.append({**row, "predicted": predicted_gain(dice[: number + 1]), "gain": gain})
    return pd.DataFrame(rows, columns=[*KEYS, "number", "predicted", "gain"])


def shown(strategy: str) -> str:
    """Return the name of a strategy, marked if it uses the labels of the oracle."""
    return f"{strategy} (oracle)" if strategies()[strategy].needs_foreground else strategy
