"""Choose the windows to annotate from all that was scored."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, compress

import numpy as np

from nnunet_limited.errors import LimitedError
from nnunet_limited.queries.features import load_features
from nnunet_limited.queries.pool import ENCODER, CaseScores, Pool, comparable
from nnunet_limited.queries.query_round import QueryRound
from nnunet_limited.queries.record import Query
from nnunet_limited.queries.strategies.base import Strategy
from nnunet_limited.queries.windows import Window

REASONS = {"entropy": "entropy", "bald": "disagreement of the members"}  # scores that are shown to annotators


def choose_windows(query_round: QueryRound) -> list[Query]:
    """Return the queries that the strategy chooses within the budget."""
    request, strategy = query_round.request, query_round.strategy
    pool, minutes = load_pool(query_round)
    if request.minutes is None:
        assert request.items is not None
        ranked = strategy.ranked(pool, min(request.items, len(pool)), request.seed)
    else:
        ranked = rank_for_minutes(strategy, pool, minutes, request.minutes, request.seed)
    names = list(query_round.class_names.values())
    queries = [
        Query(pool.windows[index], utility, round(float(minutes[index]), 2), _reason(pool, index, strategy, names))
        for index, utility in ranked
    ]
    return queries if request.minutes is None else within(queries, request.minutes)


def rank_for_minutes(
    strategy: Strategy, pool: Pool, minutes: np.ndarray, budget: float, seed: int
) -> list[tuple[int, float]]:
    """Return ranked windows that together take at least ``budget`` minutes, as far as the pool has them."""
    count = max(1, int(np.ceil(budget / max(float(np.median(minutes)), 1e-6)))) * 2
    while True:
        ranked = strategy.ranked(pool, min(count, len(pool)), seed)
        if count >= len(pool) or sum(minutes[index] for index, _ in ranked) >= budget:
            return ranked
        count *= 2  # the chosen windows take less time than the median


def within(queries: Sequence[Query], minutes: float) -> list[Query]:
    """Return the first queries that together take no more than ``minutes``, but at least one."""
    totals = accumulate(query.minutes or 0.0 for query in queries)
    return list(queries[: max(1, sum(total <= minutes for total in totals))])


def load_pool(query_round: QueryRound) -> tuple[Pool, np.ndarray]:
    """Return the candidate windows of all scored cases, and the estimated minutes of each (n,).

    Windows of which more is annotated than allowed are left out; those annotated by more than half are the annotated
    windows of which the pool has the features.
    """
    candidates = set(query_round.cases.candidates)
    stored = {file.stem: CaseScores.load(file) for file in sorted(query_round.scores_file("x").parent.glob("*.npz"))}
    descriptions = _descriptions(query_round, stored)
    windows: list[Window] = []
    parts: list[dict[str, np.ndarray]] = []
    annotated_features: dict[str, list[np.ndarray]] = {}
    for case, scores in stored.items():
        fraction = scores.annotated
        if case in descriptions:
            rows = np.repeat(descriptions[case][None], len(fraction), axis=0)
            scores = replace(scores, features={**scores.features, ENCODER: rows})
        for kind, values in scores.features.items():
            annotated_features.setdefault(kind, []).append(values[fraction > 0.5])
        if case in candidates:
            free = fraction <= query_round.request.max_annotated
            windows += compress(scores.grid.windows(case), free)
            parts.append({name: values[free] for name, values in scores.arrays.items()})
    if not windows:
        raise LimitedError("no case, slice or patch is left to query: all are annotated; stop here, or raise --overlap")
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    record = query_round.record
    pool = Pool(
        windows,
        annotated_features={kind: np.concatenate(values) for kind, values in annotated_features.items()},
        progress=min(1.0, (record.round - 1) / max(1, record.rounds - 1)),
        **comparable(joined),
    )
    return pool, joined["minutes"]


def _descriptions(query_round: QueryRound, stored: dict[str, CaseScores]) -> dict[str, np.ndarray]:
    """Return the features of each whole case for a cold start, {} with a model or if the strategy uses none."""
    request = query_round.request
    if request.model is not None or query_round.strategy.features is None:
        return {}
    if request.features is not None:
        return dict(zip(stored, load_features(request.features, list(stored)), strict=True))
    return {case: scores.description for case, scores in stored.items() if scores.description is not None}


def _reason(pool: Pool, index: int, strategy: Strategy, class_names: list[str]) -> str:
    """Return in words why a window was chosen."""
    reasons = []
    for score, name in REASONS.items():
        if score in pool.scores:
            values = pool.scores[score]
            above = 100 * float((values > values[index]).mean())
            reasons.append(f"{name} {values[index]:.3g} (higher in {above:.0f} % of the candidates)")
    if pool.foreground is not None and pool.foreground[index].any():
        shown = [name for name, count in zip(class_names, pool.foreground[index], strict=False) if count >= 1]
        reasons.append(f"predicted there: {', '.join(shown)}")
    summary = (type(strategy).__doc__ or "").splitlines()[0].rstrip(".")
    return "; ".join(reasons) or summary
