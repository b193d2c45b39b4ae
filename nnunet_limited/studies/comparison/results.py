"""The results of a study so far, as tables."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pandas as pd

from nnunet_limited.metrics.registry import METRICS
from nnunet_limited.splits.make import group_of
from nnunet_limited.studies.comparison.folder import ComparisonFolder
from nnunet_limited.studies.comparison.job import RunRecord
from nnunet_limited.studies.comparison.study import Run

KEYS = ("dataset", "configuration", "labeled", "method", "seed", "fold")
COSTS = ("labeled_cases", "minutes", "memory_mb")
SETTING = ["dataset", "configuration", "labeled"]
MEAN = "mean"
Setting = tuple[str, str, str]  # dataset, configuration, labelled size


@dataclass(frozen=True)
class Results:
    """``runs`` has a row for each run, ``scores`` one for each run, case and class (``mean``: that over classes)."""

    runs: pd.DataFrame
    scores: pd.DataFrame
    records: dict[Run, RunRecord]
    group_by: str | None = None

    def settings(self) -> list[Setting]:
        """Return every dataset, configuration and labelled size, in the order of the study."""
        return list(dict.fromkeys(self.runs[SETTING].itertuples(index=False, name=None)))

    def table(self, setting: Setting, method: str, metric: str, name: str = MEAN) -> pd.DataFrame:
        """Return a method's scores, rows by patient (or case), case and fold, columns by seed."""
        chosen = self.scores
        for key, value in zip((*SETTING, "method", "class"), (*setting, method, name), strict=True):
            chosen = chosen[chosen[key] == value]
        patient = re.compile(self.group_by or "$")
        table = chosen.assign(unit=[group_of(case, patient) or case for case in chosen["case"]])
        return table.pivot(index=["unit", "case", "fold"], columns="seed", values=metric)

    def cases(self, run: Run, method: str, metric: str) -> pd.Series:
        """Return the score of each case of a run of the method of that name, without cases that have none."""
        scores = self.table(run.setting, method, metric)[run.seed].xs(run.fold, level="fold")
        return scores.droplevel("unit").sort_index().dropna()

    def labeled_cases(self, setting: Setting) -> float:
        """Return the mean number of labelled cases of a size, nan if nothing was trained on it."""
        rows = self.runs[(self.runs[SETTING] == list(setting)).all(axis=1)]
        return float(rows["labeled_cases"].mean())


def load_results(folder: ComparisonFolder) -> Results:
    """Read all that is done."""
    names = {method.slug: method.name for method in folder.study.methods}
    rows, scores, records = [], [], {}
    for run, state, log in folder.states():
        keys = {key: getattr(run, key) for key in KEYS} | {"method": names[run.method]}
        row = {**keys, "run": run.identifier, "state": state, "log": log, **dict.fromkeys(COSTS, np.nan)}
        if state == "done":
            record = records[run] = folder.record(run)
            row.update({key: record[key] for key in COSTS})
            found = pd.read_csv(folder.run_folder(run) / "metrics.csv", dtype={"case": str, "class": str})
            found = found.reindex(columns=["case", "class", *METRICS])  # a metric may be newer than the run
            means = found.groupby("case", as_index=False)[list(METRICS)].mean()
            scores.append(pd.concat([found, means.assign(**{"class": MEAN})]).assign(**keys))
        rows.append(row)
    empty = pd.DataFrame(columns=[*KEYS, "case", "class", *METRICS])
    found = pd.concat(scores, ignore_index=True) if scores else empty
    return Results(pd.DataFrame(rows), found, records, folder.study.group_by)
