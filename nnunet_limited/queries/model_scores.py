"""Score one case after the other with a trained model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from nnunet_limited.data.loaders import UnlabeledDataset
from nnunet_limited.engine.run import describe_run, preprocess_unlabeled
from nnunet_limited.host.cases import PreprocessedCases
from nnunet_limited.planners.preprocessing import require_preprocessed
from nnunet_limited.queries.aggregation import Prediction, map_extent, predict_mean, summarize
from nnunet_limited.queries.case_scores import CaseScores
from nnunet_limited.queries.features import FEATURES, feature_map, window_features
from nnunet_limited.queries.pool import SIGNATURE
from nnunet_limited.queries.query_round import QueryRound
from nnunet_limited.runs.predict import Predictor


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
        members, extent = self.predictor.probabilities(image), map_extent(properties, self.backward)
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
            values = self.query_round.values
            scores = summarize(prediction, grid, values, axis, request.seconds, kind == SIGNATURE)
            if features is None:
                return scores
            means = window_features(features, prediction.extent, self.backward, grid, image.shape[1:])
            return replace(scores, features={str(kind): means})

        return work
