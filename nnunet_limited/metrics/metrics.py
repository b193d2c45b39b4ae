"""How well a prediction agrees with the truth: overlap, surface distance, volume, of one object mask and another.

Overlaps are in [0, 1]; distances are in the unit of ``spacing`` (mm, or voxels with a spacing of 1), volumes in its
cube. What is empty has a rule: where both masks are empty, nothing is to be found and every metric is nan, which means
leave out, as in nnU-Net; where one is, overlaps are 0 and distances are the diagonal of the image, the worst there is.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

METRICS = ("dice", "iou", "hd95", "asd", "nsd", "volume_error")
HIGHER_IS_BETTER = {"dice", "iou", "nsd"}


def metrics(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float], tolerance: float) -> dict[str, float]:
    """Compare two masks (bool, of one 2D or 3D shape).

    Returns ``dice``, ``iou``, ``hd95`` (95th percentile Hausdorff distance, the larger of both directions), ``asd``
    (average symmetric surface distance), ``nsd`` (normalised surface Dice: the share of both surfaces within
    ``tolerance`` of the other; Nikolov et al., JMIR 2021, arXiv 1809.04430) and ``volume_error`` (the absolute
    difference of the volumes). Surfaces are the voxels of a mask that touch its outside by a face.
    """
    if not prediction.any() and not truth.any():
        return dict.fromkeys(METRICS, float("nan"))
    both = np.count_nonzero(prediction & truth)
    sizes = np.count_nonzero(prediction), np.count_nonzero(truth)
    found = {
        "dice": 2 * both / sum(sizes),
        "iou": both / (sum(sizes) - both),
        "volume_error": abs(sizes[0] - sizes[1]) * float(np.prod(spacing)),
    }
    if all(sizes):
        found |= _surface(prediction, truth, spacing, tolerance)
    else:
        diagonal = float(np.linalg.norm(np.multiply(truth.shape, spacing)))
        found |= {"hd95": diagonal, "asd": diagonal, "nsd": 0.0}
    return {name: float(found[name]) for name in METRICS}


def _surface(prediction: np.ndarray, truth: np.ndarray, spacing: Sequence[float], tolerance: float) -> dict[str, float]:
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    one, other = (torch.from_numpy(mask)[None, None] for mask in (prediction, truth))
    options: dict[str, Any] = {"include_background": True, "spacing": list(spacing)}
    with warnings.catch_warnings():  # MONAI's own calls of what it has deprecated
        warnings.simplefilter("ignore", FutureWarning)
        return {
            "hd95": compute_hausdorff_distance(one, other, percentile=95, **options).item(),
            "asd": compute_average_surface_distance(one, other, symmetric=True, **options).item(),
            "nsd": compute_surface_dice(one, other, class_thresholds=[tolerance], **options).item(),
        }
