"""Candidates of one case with all that strategies may ask about them, from what the members of an ensemble predict."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from nnunet_limited.queries import uncertainty as scores
from nnunet_limited.queries.features import FeatureMap
from nnunet_limited.queries.pool import SIGNATURE
from nnunet_limited.queries.windows import MapExtent, WindowGrid


@dataclass(frozen=True)
class Prediction:
    """What an ensemble says of a case, on its own grid but with the axes of the scan.

    ``mean`` (c, *spatial) are the members' mean probabilities, ``expected_entropy`` (*spatial) their mean entropy,
    ``labels`` one label image a member if strategies are to compare them, and ``label`` that of the mean.
    """

    mean: torch.Tensor
    expected_entropy: torch.Tensor
    label: np.ndarray
    labels: tuple[np.ndarray, ...]
    grid: MapExtent
    regions: bool


def predict_mean(
    members: Iterable[torch.Tensor], manager: Any, grid: MapExtent, order: list[int], keep: bool
) -> Prediction:
    """Return the prediction of ``members``, each (c, *spatial), heard one after the other and dropped.

    ``manager`` is the host's label manager, ``order`` the scan's axes among those of the members' grid; ``keep`` keeps
    the members' label images.
    """
    heard = scores.MeanOfMembers(bool(manager.has_regions))
    labels = []

    def to_label(p: torch.Tensor) -> np.ndarray:
        return np.asarray(manager.convert_probabilities_to_segmentation(p)).transpose(order)

    for p in members:
        heard.add(p)
        if keep:
            labels.append(to_label(p).astype(np.uint8 if max(manager.all_labels) < 256 else np.uint16))
    mean, back = heard.mean, [0, *(axis + 1 for axis in order)]
    return Prediction(
        mean.permute(back), heard.expected_entropy.permute(order), to_label(mean), tuple(labels), grid, heard.regions
    )


def summarize(
    prediction: Prediction, windows: WindowGrid, values: list[int], plane_axis: int, seconds: float, signature: bool
) -> dict[str, np.ndarray]:
    """Return what is known of each window (n, …): scores and the like by the names that a pool has for them.

    ``values`` are the labels of the classes. ``minutes`` is what annotating it takes if an outline of an object in a
    slice across ``plane_axis``, or a look at an empty one, takes ``seconds``.
    """
    grid, mean, regions = prediction.grid, prediction.mean, prediction.regions
    volume = float(np.prod(windows.size))
    bounds, count = windows.bounds, len(windows)

    def total(values: Any) -> np.ndarray:
        return grid.sums(np.asarray(values), bounds).reshape(count)

    entropy = scores.entropy(mean, regions)
    maps = {
        "entropy": entropy,
        "expected_entropy": prediction.expected_entropy,
        "bald": (entropy - prediction.expected_entropy).clamp(min=0),
        "margin": scores.margin(mean, regions),
        "least_confidence": scores.least_confidence(mean, regions),
    }
    made = {f"score_{name}": total(one) / volume for name, one in maps.items()}
    shown = range(0 if regions else 1, len(mean))  # not the background
    made["class_scores"] = np.stack([total(mean[c] * entropy) / volume for c in shown], axis=1)
    if prediction.labels:
        made["score_disagreement"] = scores.disagreement(prediction.labels, values, total)
    made |= class_counts(prediction.label, values, grid, windows)
    masks = [prediction.label == value for value in values]
    made["minutes"] = outline_counts(masks, grid, windows, plane_axis) * seconds / 60
    if signature:
        made[f"features_{SIGNATURE}"] = _signature(mean, total, regions)
    return made


def class_counts(label: np.ndarray, values: list[int], grid: MapExtent, windows: WindowGrid) -> dict[str, np.ndarray]:
    """Return how many voxels of each class, and of its border, are nearest to the middle of each window (n, c)."""
    masks = [label == value for value in values]
    borders = [mask & ~ndimage.binary_erosion(mask) for mask in masks]
    counted = [[grid.sums(mask, windows.cells).reshape(-1) for mask in which] for which in (masks, borders)]
    return {name: np.stack(one, axis=1) for name, one in zip(("foreground", "border"), counted, strict=True)}


def outline_counts(masks: list[np.ndarray], grid: MapExtent, windows: WindowGrid, axis: int) -> np.ndarray:
    """Return how many outlines there are to draw in each window (n,): of each class in each plane.

    A plane without any counts for one, as do planes outside of the map.
    """
    planes = masks[0].shape[axis]
    edges = np.linspace(grid.lower[axis], grid.upper[axis], planes + 1)
    bounds = windows.bounds
    along, bounds[axis] = bounds[axis], (edges[:-1], edges[1:])
    line = MapExtent((grid.lower[axis],), (grid.upper[axis],))
    drawn = np.maximum(np.sum([grid.sums(mask, bounds) >= 0.5 for mask in masks], axis=0), 1)
    missing = windows.size[axis] - line.sums(np.ones(planes), [along])
    inside = line.sums(np.moveaxis(drawn, axis, -1), [along])
    return np.moveaxis(inside + missing, -1, axis).reshape(len(windows))


def _signature(mean: torch.Tensor, total: Any, regions: bool) -> np.ndarray:
    """Return the mean prediction over the voxels predicted as each class (n, c * c), 0 for one that is not there."""
    chosen = mean > 0.5 if regions else torch.nn.functional.one_hot(mean.argmax(0), len(mean)).movedim(-1, 0)
    rows = []
    for mask in chosen:
        size = total(mask)
        rows += [total(mask * p) / np.maximum(size, 1e-9) * (size > 0.5) for p in mean]
    return np.stack(rows, axis=1)


def window_features(
    made: FeatureMap, grid: MapExtent, order: list[int], windows: WindowGrid, net: tuple[int, ...]
) -> np.ndarray:
    """Return the mean features of each window (n, f); ``net`` is the shape of the image on the network's grid.

    A window outside of what the network saw has features 0.
    """
    upper = []
    for axis, (low, high) in enumerate(zip(grid.lower, grid.upper, strict=True)):
        scale = (high - low) / net[order[axis]]
        upper.append(low + scale * made.extent[order[axis]])
    sums = MapExtent(grid.lower, tuple(upper)).sums(
        made.values.transpose([0, *(axis + 1 for axis in order)]), windows.bounds
    )
    return (sums / np.prod(windows.size)).reshape(len(made.values), len(windows)).T


def map_extent(properties: dict[str, Any], backward: list[int]) -> MapExtent:
    """Return how a preprocessed case lies on its scan; ``backward`` is the scan's order among the host's axes."""
    box = properties["bbox_used_for_cropping"]
    return MapExtent(tuple(float(box[axis][0]) for axis in backward), tuple(float(box[axis][1]) for axis in backward))
