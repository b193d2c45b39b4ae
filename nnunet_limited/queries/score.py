"""Score the windows of each case by a trained model, or describe the scans without one."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from nnunet_limited.data.loaders import UnlabeledDataset
from nnunet_limited.datasets.derived import ignore_of
from nnunet_limited.engine.run import describe_run, preprocess_unlabeled
from nnunet_limited.host.cases import PreprocessedCases
from nnunet_limited.planners.preprocessing import require_preprocessed
from nnunet_limited.queries.aggregation import Prediction, class_counts, predict_mean, summarize
from nnunet_limited.queries.features import FEATURES, describe_scan, feature_map, window_features
from nnunet_limited.queries.pool import SIGNATURE, CaseScores
from nnunet_limited.queries.query_round import QueryRound, label_of_scan
from nnunet_limited.queries.windows import MapExtent
from nnunet_limited.runs.predict import Predictor
from nnunet_limited.util.parallel import default_processes

Track = Callable[[list[str]], Iterable[str]]


def score_cases(query_round: QueryRound, device: str, track: Track) -> None:
    """Score every case that has no scores yet; memory does not grow with their number.

    ``track`` yields the cases one by one and shows the progress.
    """
    cases, strategy = query_round.cases.candidates, query_round.strategy
    if strategy.features is not None:
        cases = sorted({*cases, *query_round.cases.annotated})
    missing = [case for case in cases if not query_round.scores_file(case).is_file()]
    if not missing:
        return
    # Work on a case begins here, on the device; what is left of it is returned and done by a thread.
    by_description = query_round.record.oracle and not strategy.needs_model and strategy.features is None
    start: Callable[[str], Callable[[], CaseScores]] = (
        (lambda case: partial(_describe, query_round, case))
        if query_round.request.model is None or by_description
        else ModelScorer(query_round, device)
    )
    with ThreadPoolExecutor(max(1, default_processes() // 2)) as workers:
        waiting: list[Future[None]] = []
        for case in track(missing):
            waiting.append(workers.submit(_finish, query_round, case, start(case)))
            if len(waiting) > workers._max_workers:
                waiting.pop(0).result()
        for last in waiting:
            last.result()


def _describe(query_round: QueryRound, case: str) -> CaseScores:
    """Describe a scan without a model; the minutes are those of one outline in each slice."""
    request = query_round.request
    shape, spacing, description = describe_scan(query_round.raw.cases[case], query_round.raw.reader())
    grid = request.granularity.window_grid(shape, spacing, case)
    minutes = grid.size[request.granularity.plane_axis(spacing)] * request.seconds / 60
    return CaseScores(grid, np.full(len(grid), minutes), np.zeros(len(grid)), description=description)


def _finish(query_round: QueryRound, case: str, work: Callable[[], CaseScores]) -> None:
    """Do the rest of the work on a case, add what the labels show, and write the scores."""
    scores, raw = work(), query_round.raw
    grid = scores.grid
    if case in query_round.cases.annotated:
        annotated = query_round.label(case) != ignore_of(raw)
        voxels = _whole(annotated).sums(annotated, grid.bounds).reshape(len(grid))
        scores = replace(scores, annotated=voxels / np.prod(grid.size))
    if query_round.request.oracle is not None and query_round.strategy.needs_foreground:
        label = label_of_scan(raw, case, query_round.request.oracle / f"{case}{raw.description.file_ending}")
        foreground, border = class_counts(label, list(query_round.class_names), _whole(label), grid)
        scores = replace(scores, foreground=foreground, border=border)
    scores.save(query_round.scores_file(case))


def _whole(image: np.ndarray) -> MapExtent:
    """Return the extent of an image on the grid of the scan."""
    return MapExtent((0.0,) * image.ndim, tuple(map(float, image.shape)))


class ModelScorer:
    """The models of the folds of a round. They predict on the device; a thread does the rest of the work on a case."""

    def __init__(self, query_round: QueryRound, device: str) -> None:
        """Load the models; preprocess unlabelled images if necessary."""
        model = query_round.request.model
        assert model is not None
        self.query_round, self.device = query_round, torch.device(device)
        folds = query_round.record.folds
        for fold in folds:
            preprocess_unlabeled(describe_run(model.trainer, model.planned, model.configuration, fold, {}))
        self.labeled, self.unlabeled = model.planned.cases(model.configuration)
        require_preprocessed(self.unlabeled, query_round.cases.unlabeled, "unlabelled", "run 'nnunet-limited plan'")
        self.predictor = Predictor(model.results, folds, device)
        self.host = self.predictor.host
        self.backward = list(self.host.plans_manager.transpose_backward)

    def load(self, case: str) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the preprocessed image of a case (c, *spatial) and nnU-Net's properties of it."""
        unlabeled = case in self.query_round.cases.unlabeled
        kind = UnlabeledDataset if unlabeled else PreprocessedCases
        data, _, _, properties = kind(str(self.unlabeled if unlabeled else self.labeled), [case]).load_case(case)
        return np.asarray(data[:]), properties

    def predict(self, image: np.ndarray, properties: dict[str, Any], keep_labels: bool = False) -> Prediction:
        """Return the prediction of the models for a preprocessed image."""
        lower, upper = np.array(properties["bbox_used_for_cropping"], float)[self.backward].T.tolist()
        extent = MapExtent(tuple(lower), tuple(upper))  # the part of the scan that was preprocessed
        members = self.predictor.probabilities(image)
        return predict_mean(members, self.host.label_manager, extent, self.backward, keep_labels)

    def on_scan(self, case: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the predicted label and the entropy of a case (*spatial) on the grid of its scan."""
        image, properties = self.load(case)
        prediction = self.predict(image, properties)
        ensemble = prediction.ensemble
        forward = [0, *(axis + 1 for axis in self.host.plans_manager.transpose_forward)]
        label = self.predictor.to_scan(ensemble.mean.permute(forward).contiguous(), properties)
        return label, prediction.extent.spread(ensemble.entropy.numpy(), label.shape)

    def __call__(self, case: str) -> Callable[[], CaseScores]:
        """Predict a case; return the work that is left, which needs no device."""
        request, kind = self.query_round.request, self.query_round.strategy.features
        image, properties = self.load(case)
        shape = [int(properties["shape_before_cropping"][axis]) for axis in self.backward]
        grid = request.granularity.window_grid(shape, properties["spacing"], case)
        axis = request.granularity.plane_axis(properties["spacing"])
        prediction = self.predict(image, properties, self.query_round.strategy.needs_member_labels)
        features = None
        if kind in FEATURES:
            size, labels = tuple(self.host.configuration_manager.patch_size), prediction.ensemble.labels
            features = feature_map(self.host.network, image, size, kind, labels, self.device)

        def work() -> CaseScores:
            values = list(self.query_round.class_names)
            scores = summarize(prediction, grid, values, axis, request.seconds, kind == SIGNATURE)
            if features is None:
                return scores
            means = window_features(features, prediction.extent, self.backward, grid, image.shape[1:])
            return replace(scores, features={str(kind): means})

        return work
