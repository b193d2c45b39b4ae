"""How often do the tables see an effect that is not there? It should be one study in twenty.

Made-up studies of a method that equals the baseline: 5 seeds, 40 cases, the same cases in every run. A score is the
difficulty of its case (the same for both methods), an error of the run (sd 0.015, as runs of the same method differ on
Hippocampus and ACDC), and an error of the case in this run (sd 0.01 and 0.08). The package's own functions judge 500
studies of each kind. A 95 % interval is wrong that leaves out 0, a p-value below 0.05, a rank that is called certain,
a number of labels saved that leaves out 0.

    python benchmarks/false_positives.py

Prints the shares of wrong judgements, that of intervals and p-values last; the exit status is 1 if one of these two is
outside 3 to 8 %.
"""

from __future__ import annotations

import argparse
import math
import sys

import numpy as np
import pandas as pd

from nnunet_limited.metrics.statistics import LEVEL, labels_saved, paired_difference, ranking, seed_means

SEEDS, CASES, RUN_SD, CASE_SDS = 5, 40, 0.015, (0.01, 0.08)
DIFFICULTY_SD = 0.1  # between cases; it cancels, because differences are paired
SIZES = {4: 0.65, 8: 0.70, 16: 0.75}  # the baseline's mean Dice by labelled cases
LABELED = 8
ALLOWED = (0.03, 0.08)  # around 5 %; one standard error of the share in 500 studies is 1 %


def run_scores(rng: np.random.Generator, difficulty: np.ndarray, mean: float, case_sd: float) -> pd.Series:
    """Return the scores of a method without an effect by seed, case and class."""
    run = rng.normal(0, RUN_SD, (SEEDS, 1))
    values = mean + difficulty + run + rng.normal(0, case_sd, (SEEDS, CASES))
    index = pd.MultiIndex.from_product([range(SEEDS), range(CASES), ["organ"]], names=["seed", "case", "class"])
    return pd.Series(values.ravel(), index=index)


def judge(rng: np.random.Generator, case_sd: float) -> dict[str, bool]:
    """Return which judgements of a study without an effect are wrong."""
    difficulty = rng.normal(0, DIFFICULTY_SD, CASES)
    baseline = {size: run_scores(rng, difficulty, mean, case_sd) for size, mean in SIZES.items()}
    method = run_scores(rng, difficulty, SIZES[LABELED], case_sd)
    found = paired_difference(method, baseline[LABELED])
    ranks = ranking({"baseline": baseline[LABELED], "method": method})
    curve = pd.DataFrame({size: seed_means(scores) for size, scores in baseline.items()})
    _, low, high = labels_saved(curve, seed_means(method), LABELED)
    return {
        "interval": not found.low <= 0 <= found.high,
        "p-value": found.p < LEVEL,
        "rank": bool((ranks["low"] == ranks["high"]).any()),
        "labels saved": not (math.isnan(low) or low <= 0 <= high),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=500, help="studies of each kind")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random numbers")
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    kinds = {sd: pd.DataFrame([judge(rng, sd) for _ in range(arguments.studies)]).mean() for sd in CASE_SDS}
    table = pd.DataFrame(kinds).T.rename_axis("sd of a case")
    print(f"{arguments.studies} studies of each kind, {SEEDS} seeds, {CASES} cases, sd of a run {RUN_SD}; wrong:")
    print(table.map(lambda share: f"{100 * share:.1f} %").to_string())
    shares = table[["interval", "p-value"]].mean()
    print(f"interval wrong in {100 * shares['interval']:.1f} %, p-value wrong in {100 * shares['p-value']:.1f} %")
    low, high = ALLOWED
    return 0 if table[["interval", "p-value"]].stack().between(low, high).all() else 1


if __name__ == "__main__":
    sys.exit(main())
