"""The results of a simulated loop of active learning so far, as tables."""

import math

import numpy as np
import pandas as pd

from nnunet_limited.metrics.areas import area_under_budget_curve, foreground_efficiency, predicted_gain
from nnunet_limited.queries.strategies.registry import strategies
from nnunet_limited.studies.active.folder import ActiveFolder
from nnunet_limited.studies.active.job import StepRecord
from nnunet_limited.studies.active.study import FULL, START, ActiveStudy

KEYS = ["target", "method", "strategy"]


def load_results(folder: ActiveFolder) -> pd.DataFrame:
    """Return a row for each training that is done: its keys, its Dice (mean over cases), and what its labels cost."""
    rows = []
    for step, state, _ in folder.states():
        if state == "done":
            record: StepRecord = folder.record(step)
            keys = {key: getattr(step, key) for key in (*KEYS, "seed", "number")}
            dice = float(np.nanmean(list(record["dice"].values())))
            rows.append({**keys, "dice": dice, "cases": record["dice"], **record["costs"], "fit": record["minutes"]})
    columns = [*KEYS, "seed", "number", "dice", "cases", "items", "voxels", "foreground_voxels", "minutes", "fit"]
    return pd.DataFrame(rows, columns=columns)


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
    """Return a row for each chain: AUBC, last Dice and FG-Eff, their spread over seeds, difference to the baseline."""
    full = found.loc[found["target"] == FULL, ["dice", "foreground_voxels"]].mean()
    rows = []
    for (target, method), part in curves.groupby(["target", "method"], sort=False):
        start = float(part.loc[part["number"] == 0, "dice"].mean())
        baseline = pd.Series(dtype=float)
        for strategy, rounds in part.groupby("strategy", observed=True):
            areas = rounds.groupby("seed")["dice"].agg(area_under_budget_curve)
            place = {"target": target, "method": study.method(method).name, "strategy": shown(strategy)}
            rows.append({**place, **_chain(rounds, areas, baseline, start, full)})
            baseline = areas if strategy == study.strategies[0] else baseline
    return pd.DataFrame(rows)


def _chain(
    rounds: pd.DataFrame, areas: pd.Series, baseline: pd.Series, start: float, full: pd.Series
) -> dict[str, float]:
    """Return the values of a chain: ``start`` is the mean Dice before the first query, ``full`` is with all labels."""
    last = rounds[rounds["number"] == rounds["number"].max()]
    means = rounds.groupby("number")[["foreground_voxels", "dice"]].mean()
    foreground = (100 * means["foreground_voxels"] / full["foreground_voxels"]).tolist()
    differences = (areas - baseline).dropna()
    return {
        "seeds": len(areas),
        "aubc": areas.mean(),
        "aubc_sd": areas.std(ddof=1),
        "final": last["dice"].mean(),
        "final_sd": last["dice"].std(ddof=1),
        "difference": differences.mean(),
        "better": float((differences > 0).sum()) if len(differences) else math.nan,
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
