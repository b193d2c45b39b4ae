"""Score the windows of each case by a model, or describe the scans without one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from nnunet_limited.queries import cold_start
from nnunet_limited.queries.aggregation import class_counts
from nnunet_limited.queries.case_scores import CaseScores
from nnunet_limited.queries.model_scores import ModelScorer
from nnunet_limited.queries.query_round import QueryRound, read_label
from nnunet_limited.queries.windows import MapExtent
from nnunet_limited.util.parallel import default_processes

Track = Callable[[list[str]], Iterable[str]]


def score_cases(query_round: QueryRound, device: str, track: Track) -> None:
    """Score every case that has no scores yet; memory does not grow with their number.

    ``track`` yields the cases one by one and shows the progress.
    """
    cases = query_round.cases.candidates
    if query_round.strategy.features is not None:
        cases = sorted({*cases, *query_round.cases.annotated})
    missing = [case for case in cases if not query_round.scores_file(case).is_file()]
    if not missing:
        return
    start = _scorer(query_round, device)
    with ThreadPoolExecutor(max(1, default_processes() // 2)) as workers:
        waiting: list[Future[None]] = []
        for case in track(missing):
            waiting.append(workers.submit(_finish, query_round, case, start(case)))
            if len(waiting) > workers._max_workers:
                waiting.pop(0).result()
        for last in waiting:
            last.result()


def _scorer(query_round: QueryRound, device: str) -> Callable[[str], Callable[[], CaseScores]]:
    """Return what does the first part of the work on a case, on the device, and returns the rest of it."""
    strategy = query_round.strategy
    by_description = query_round.simulated and not strategy.needs_model and strategy.features is None
    if query_round.request.model is None or by_description:
        return lambda case: partial(describe, query_round, case)
    return ModelScorer(query_round, device)


def describe(query_round: QueryRound, case: str) -> CaseScores:
    """Return the windows of a case and the description of its scan, without a model.

    The minutes are those of one outline in each slice.
    """
    request = query_round.request
    shape, spacing, description = cold_start.describe_scan(query_round.raw.cases[case], query_round.raw.reader())
    grid = request.granularity.window_grid(shape, spacing, case)
    minutes = grid.size[request.granularity.plane_axis(spacing)] * request.seconds / 60
    return CaseScores(grid, np.full(len(grid), minutes), description=description)


def _finish(query_round: QueryRound, case: str, work: Callable[[], CaseScores]) -> None:
    """Do the rest of the work on a case, add what the labels show, and write the scores."""
    scores = work()
    grid = scores.grid
    annotated = query_round.annotated_mask(case)
    if annotated is not None:
        voxels = _whole(annotated).sums(annotated, grid.bounds).reshape(len(grid))
        scores = replace(scores, annotated=voxels / np.prod(grid.size))
    if query_round.request.oracle is not None and query_round.strategy.needs_foreground:
        ending = query_round.raw.description.file_ending
        label = read_label(query_round.raw, query_round.request.oracle / f"{case}{ending}")
        foreground, border = class_counts(label, query_round.values, _whole(label), grid)
        scores = replace(scores, foreground=foreground, border=border)
    scores.save(query_round.scores_file(case))


def _whole(image: np.ndarray) -> MapExtent:
    """Return the extent of an image on the grid of the scan."""
    return MapExtent((0.0,) * image.ndim, tuple(map(float, image.shape)))
