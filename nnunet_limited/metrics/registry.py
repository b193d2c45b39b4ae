"""The metrics of segmentation. All that a metric needs is its row in :data:`METRICS`.

Overlaps are in [0, 1]; lengths are in the unit of the spacing (mm, or voxels with a spacing of 1), volumes in its cube.
Empty masks: where both are empty, every metric is nan, and the case is left out of means, as in nnU-Net. Where one of
the two is empty, overlaps are 0 and distances are the diagonal of the image, which is the worst possible value.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True, eq=False)
class MaskPair:
    """A predicted and a true mask (bool, of one 2D or 3D shape); ``tolerance`` is in the unit of ``spacing``."""

    prediction: np.ndarray
    truth: np.ndarray
    spacing: Sequence[float]
    tolerance: float = 1.0

    @cached_property
    def sizes(self) -> tuple[int, int]:
        """Return the number of voxels of prediction and truth."""
        return int(np.count_nonzero(self.prediction)), int(np.count_nonzero(self.truth))

    @cached_property
    def overlap(self) -> int:
        """Return the number of voxels that are in both masks."""
        return int(np.count_nonzero(self.prediction & self.truth))

    @property
    def diagonal(self) -> float:
        """Return the length of the image's diagonal."""
        return float(np.linalg.norm(np.multiply(self.truth.shape, self.spacing)))


@dataclass(frozen=True)
class Metric:
    """A metric: ``function`` compares two masks that are both not empty (for volumes, of which one is not empty)."""

    name: str
    title: str
    unit: Literal["", "length", "volume"]
    higher_is_better: bool
    function: Callable[[MaskPair], float]

    def heading(self, voxels: bool) -> str:
        """Return the title with the unit in brackets: mm, or voxels where distances are in ``voxels``."""
        length = "voxels" if voxels else "mm"
        return self.title + {"": "", "length": f" ({length})", "volume": f" ({length}³)"}[self.unit]

    def __call__(self, pair: MaskPair) -> float:
        """Return the value for two masks, by the rules for empty ones at the top of this module."""
        if not any(pair.sizes):
            return float("nan")
        if all(pair.sizes) or self.unit == "volume":
            return float(self.function(pair))
        return pair.diagonal if self.unit == "length" else float(not self.higher_is_better)


def _surface(name: str, pair: MaskPair, **options: Any) -> float:
    """Return MONAI's ``compute_NAME``; surfaces are the voxels of a mask that share a face with its outside."""
    import torch
    from monai import metrics

    masks = [torch.from_numpy(mask)[None, None] for mask in (pair.prediction, pair.truth)]
    options |= {"include_background": True, "spacing": list(pair.spacing)}
    with warnings.catch_warnings():  # MONAI calls functions that it has deprecated
        warnings.simplefilter("ignore", FutureWarning)
        return float(getattr(metrics, f"compute_{name}")(*masks, **options).item())


METRICS = {
    metric.name: metric
    for metric in (
        Metric("dice", "Dice", "", True, lambda pair: 2 * pair.overlap / sum(pair.sizes)),
        Metric("iou", "IoU", "", True, lambda pair: pair.overlap / (sum(pair.sizes) - pair.overlap)),
        # The 95th percentile of the surface distances, the larger of both directions.
        Metric("hd95", "HD95", "length", False, lambda pair: _surface("hausdorff_distance", pair, percentile=95)),
        # The mean distance of the surfaces, of both directions together.
        Metric("asd", "ASD", "length", False, lambda pair: _surface("average_surface_distance", pair, symmetric=True)),
        # The fraction of both surfaces within the tolerance of the other: normalized surface Dice (Nikolov et al., JMIR
        # 2021, arXiv 1809.04430).
        Metric("nsd", "NSD", "", True, lambda pair: _surface("surface_dice", pair, class_thresholds=[pair.tolerance])),
        # The absolute difference of the volumes.
        Metric("volume_error", "volume error", "volume", False, lambda p: np.ptp(p.sizes) * np.prod(p.spacing)),
        # The fraction of the truth that is predicted (recall), and that of the prediction that is true.
        Metric("sensitivity", "sensitivity", "", True, lambda pair: pair.overlap / pair.sizes[1]),
        Metric("precision", "precision", "", True, lambda pair: pair.overlap / pair.sizes[0]),
    )
}

# They stand beside the main metric of every table. Overlap alone does not see outliers and borders, so that a gain of
# Dice counts only where neither is worse in most seeds (Maier-Hein et al., Nature Methods 2024, arXiv 2206.01653).
SAFEGUARDS = ("hd95", "nsd")


def compare(pair: MaskPair) -> dict[str, float]:
    """Return every metric of two masks by name."""
    return {name: metric(pair) for name, metric in METRICS.items()}
