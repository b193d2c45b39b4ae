"""nnU-Net's predictor and its export of predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch


def load_predictor(results: Path, folds: Sequence[int | str], device: str, checkpoint: str) -> Any:
    """Return nnU-Net's predictor with the checkpoints of some folds, without progress bar."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        device=torch.device(device), perform_everything_on_device=device == "cuda", allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(str(results), list(folds), checkpoint)
    return predictor


def predict_folder(predictor: Any, images: Path, out: Path) -> None:
    """Predict all images of a folder, one after the other, in this process."""
    out.mkdir(parents=True, exist_ok=True)
    predictor.predict_from_files_sequential(str(images), str(out), overwrite=True)


def to_scan(
    logits: torch.Tensor, properties: dict[str, Any], plans: Any, configuration: Any, labels: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return label (*spatial) and probabilities (c, *spatial) on the scan's grid of logits on the network's grid."""
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

    label, probability = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, plans, configuration, labels, properties, return_probabilities=True
    )
    return label, probability
