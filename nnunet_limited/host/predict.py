"""nnU-Net's predictor and its export of predictions."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_limited.losses.label_space import LabelSpace
from nnunet_limited.metrics.agreement import class_counts
from nnunet_limited.util.files import read_object, require_written
from nnunet_limited.util.plans import check_networks
from nnunet_limited.util.weights import read_weights


class ComparingPredictor(nnUNetPredictor):
    """nnU-Net's predictor, which can compare the mirrored passes of each tile with their mean at no further pass.

    While ``compared`` is set, ``counts`` collects for each pass, by its flipped axes, what
    :func:`~nnunet_limited.metrics.agreement.class_counts` returns for the hard labels of the pass and of the mean. It
    is the sum over the tiles of an image, so that voxels of several tiles count several times.
    """

    compared: LabelSpace | None = None
    counts: dict[tuple[int, ...], torch.Tensor]

    def _internal_predict_sliding_window_return_logits(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return nnU-Net's logits of an image; if it begins again because memory ran out, so does the comparison."""
        self.counts = {}
        return super()._internal_predict_sliding_window_return_logits(*args, **kwargs)

    def _internal_maybe_mirror_and_predict(self, x: torch.Tensor) -> torch.Tensor:
        """Return nnU-Net's prediction of a tile ``x`` (1, c, *spatial), and compare its passes."""
        labels = self.compared
        if labels is None or not (self.use_mirroring and self.allowed_mirroring_axes):
            return super()._internal_maybe_mirror_and_predict(x)
        passes: list[torch.Tensor] = []

        def keep(module: Any, inputs: Any, output: torch.Tensor) -> None:  # nnU-Net adds the passes up in place
            passes.append(labels.numbers_of_logits(output))

        hook = self.network.register_forward_hook(keep)
        try:
            mean = super()._internal_maybe_mirror_and_predict(x)
        finally:
            hook.remove()
        axes = [axis + 2 for axis in self.allowed_mirroring_axes]
        flips = [flip for n in range(len(axes) + 1) for flip in combinations(axes, n)]  # in nnU-Net's order
        expected, classes = labels.numbers_of_logits(mean), len(labels.foreground_values)
        for flip, numbers in zip(flips, passes, strict=True):
            found = class_counts(numbers.flip(flip), expected, classes)
            self.counts[flip] = self.counts[flip] + found if flip in self.counts else found
        return mean


def check_model(results: Path, folds: Sequence[int | str], checkpoint: str) -> None:
    """Raise LimitedError for a trained model whose plans or checkpoints would run code when nnU-Net reads them."""
    remedy = "train the fold again, or get the model from somebody you trust"
    check_networks(read_object(results / "plans.json", "plans", remedy), results / "plans.json")
    for fold in folds:
        read_weights(results / f"fold_{fold}" / checkpoint, remedy, mmap=True)


def load_predictor(results: Path, folds: Sequence[int | str], device: str, checkpoint: str) -> ComparingPredictor:
    """Return nnU-Net's predictor with the checkpoints of some folds, without progress bar."""
    check_model(results, folds, checkpoint)
    predictor = ComparingPredictor(
        device=torch.device(device), perform_everything_on_device=device == "cuda", allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(results), list(folds), checkpoint)
    return predictor


def predict_folder(predictor: Any, images: Path, out: Path) -> None:
    """Predict all images of a folder, one after the other, in this process."""
    out.mkdir(parents=True, exist_ok=True)
    predictor.predict_from_files_sequential(str(images), str(out), overwrite=True)
    require_written(out)


def to_scan(
    logits: torch.Tensor, properties: dict[str, Any], plans: Any, configuration: Any, labels: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return label (*spatial) and probabilities (c, *spatial) on the scan's grid of logits on the network's grid."""
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

    label, probability = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, plans, configuration, labels, properties, return_probabilities=True
    )
    return label, probability
