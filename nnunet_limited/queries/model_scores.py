"""Score one case after the other with a trained model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from nnunet_limited.data.loaders import UnlabeledDataset
from nnunet_limited.engine.run import describe_run, preprocess_unlabeled
from nnunet_limited.host.cases import PreprocessedCases
from nnunet_limited.planners.preprocessing import require_preprocessed
from nnunet_limited.queries.aggregation import Prediction, map_extent, predict_mean, summarize, window_features
from nnunet_limited.queries.features import feature_map
from nnunet_limited.queries.pool import SIGNATURE
from nnunet_limited.queries.request import CasePool, QueryRequest
from nnunet_limited.queries.strategies.base import Strategy
from nnunet_limited.queries.uncertainty import entropy
from nnunet_limited.queries.windows import WindowGrid
from nnunet_limited.runs.predict import Predictor

CaseScores = tuple[WindowGrid, dict[str, np.ndarray]]


class ModelScorer:
    """The models of some folds, which predict on the device and leave the rest of the work on a case to a thread."""

    def __init__(
        self,
        request: QueryRequest,
        strategy: Strategy,
        field: CasePool,
        values: list[int],
        folds: list[int],
        device: str,
    ) -> None:
        """Load the models of ``folds``; ``values`` are the labels of the classes. Prepares images if need be."""
        assert request.model is not None
        self.request, self.strategy, self.field, self.values = request, strategy, field, values
        self.device, model = torch.device(device), request.model
        for fold in folds:
            preprocess_unlabeled(describe_run(model.trainer, model.planned, model.configuration, fold, {}))
        self.labeled, self.unlabeled = model.planned.cases(model.configuration)
        require_preprocessed(self.unlabeled, field.open, "unlabelled", "run 'nnunet-limited plan'")
        self.predictor = Predictor(model.results, folds, device)
        self.host = self.predictor.host
        self.backward = list(self.host.plans_manager.transpose_backward)

    def load(self, case: str) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the preprocessed image of a case, and what the host knows of it."""
        is_open = case in self.field.open
        kind = UnlabeledDataset if is_open else PreprocessedCases
        data, _, _, properties = kind(str(self.unlabeled if is_open else self.labeled), [case]).load_case(case)
        return np.asarray(data[:]), properties

    def predict(self, image: np.ndarray, properties: dict[str, Any], keep_members: bool = False) -> Prediction:
        """Return what the models say of a case."""
        members, grid = self.predictor.probabilities(image), map_extent(properties, self.backward)
        return predict_mean(members, self.host.label_manager, grid, self.backward, keep_members)

    def on_scan(self, case: str) -> tuple[np.ndarray, np.ndarray]:
        """Return predicted label and entropy of a case (*spatial) on the grid of its scan."""
        image, properties = self.load(case)
        prediction = self.predict(image, properties)
        forward = [0, *(axis + 1 for axis in self.host.plans_manager.transpose_forward)]
        label = self.predictor.to_scan(prediction.mean.permute(forward).contiguous(), properties)
        return label, prediction.grid.spread(entropy(prediction.mean, prediction.regions).numpy(), label.shape)

    def __call__(self, case: str) -> Callable[[], CaseScores]:
        """Predict a case; return the work that is left."""
        request, strategy = self.request, self.strategy
        image, properties = self.load(case)
        shape = [int(properties["shape_before_cropping"][axis]) for axis in self.backward]
        windows = request.granularity.window_grid(shape, properties["spacing"], case)
        axis = request.granularity.plane_axis(properties["spacing"])
        prediction = self.predict(image, properties, strategy.disagrees)
        made = None
        if strategy.features not in (None, SIGNATURE):
            size = tuple(self.host.configuration_manager.patch_size)
            made = feature_map(self.host.network, image, size, strategy.features, prediction.regions, self.device)

        def work() -> CaseScores:
            wanted = strategy.features == SIGNATURE
            known = summarize(prediction, windows, self.values, axis, request.seconds, wanted)
            if made is not None:
                features = window_features(made, prediction.grid, self.backward, windows, image.shape[1:])
                known[f"features_{strategy.features}"] = features
            return windows, known

        return work
