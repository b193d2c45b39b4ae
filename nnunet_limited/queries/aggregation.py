"""From a prediction of each voxel to what strategies compare windows by."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from nnunet_limited.host.plans import label_space
from nnunet_limited.queries.pool import SIGNATURE, CaseScores
from nnunet_limited.queries.uncertainty import VOXEL_SCORES, Ensemble, average, disagreement
from nnunet_limited.queries.windows import MapExtent, WindowGrid


@dataclass(frozen=True)
class Prediction:
    """The prediction of a case on the network's grid, with the axes of the scan.

    ``label`` is the label image of the mean prediction (*spatial), ``member_labels`` are those of the members if a
    strategy compares them; ``extent`` is the part of the scan that the network's grid covers.
    """

    ensemble: Ensemble
    label: np.ndarray
    member_labels: tuple[np.ndarray, ...]
    extent: MapExtent


def predict_mean(
    members: Iterable[torch.Tensor], manager: Any, extent: MapExtent, order: list[int], keep_labels: bool
) -> Prediction:
    """Average the probabilities of ``members`` (c, *spatial); memory does not grow with their number.

    ``manager`` is nnU-Net's label manager, ``order`` the scan's axes among those of the network's grid;
    ``keep_labels`` keeps the label image of each member.
    """
    labels = []

    def to_label(p: torch.Tensor) -> np.ndarray:
        return np.asarray(manager.convert_probabilities_to_segmentation(p)).transpose(order)

    def with_labels() -> Iterable[torch.Tensor]:
        for p in members:
            if keep_labels:
                labels.append(to_label(p).astype(np.uint8 if max(manager.all_labels) < 256 else np.uint16))
            yield p

    ensemble = average(with_labels(), label_space(manager))
    return Prediction(ensemble.permute(order), to_label(ensemble.mean), tuple(labels), extent)


def summarize(
    prediction: Prediction, grid: WindowGrid, values: list[int], plane_axis: int, seconds: float, signature: bool
) -> CaseScores:
    """Return the scores of each window of a case, and the ``signature`` features if they are wanted.

    ``values`` are the label values of the classes. The minutes are estimated from the outlines to draw in slices
    across ``plane_axis``, ``seconds`` each.
    """
    ensemble, extent = prediction.ensemble, prediction.extent
    volume = float(np.prod(grid.size))

    def total(map_: Any) -> np.ndarray:
        return extent.sums(np.asarray(map_), grid.bounds).reshape(len(grid))

    scores = {name: total(score(ensemble)) / volume for name, score in VOXEL_SCORES.items()}
    if prediction.member_labels:
        scores["disagreement"] = disagreement(prediction.member_labels, values, total)
    classes = ensemble.mean[ensemble.labels.first_foreground :]
    masks = [prediction.label == value for value in values]
    foreground, border = class_counts(prediction.label, values, extent, grid)
    return CaseScores(
        grid,
        minutes=outline_counts(masks, extent, grid, plane_axis) * seconds / 60,
        annotated=np.zeros(len(grid)),
        scores=scores,
        class_scores=np.stack([total(p * ensemble.entropy) / volume for p in classes], axis=1),
        features={SIGNATURE: signatures(ensemble, total)} if signature else {},
        foreground=foreground,
        border=border,
    )


def class_counts(
    label: np.ndarray, values: list[int], extent: MapExtent, grid: WindowGrid
) -> tuple[np.ndarray, np.ndarray]:
    """Return the voxels of each class and those of its border that are nearest to each window's middle (n, c)."""
    masks = [label == value for value in values]
    borders = [mask & ~ndimage.binary_erosion(mask) for mask in masks]
    foreground, border = (
        np.stack([extent.sums(mask, grid.cells).reshape(-1) for mask in kind], axis=1) for kind in (masks, borders)
    )
    return foreground, border


def outline_counts(masks: list[np.ndarray], extent: MapExtent, grid: WindowGrid, axis: int) -> np.ndarray:
    """Return the number of outlines to draw in each window (n,): one for each class in each plane across ``axis``.

    A plane without any class counts as one outline, because it is looked at, as do planes outside of the map.
    """
    planes = masks[0].shape[axis]
    edges = np.linspace(extent.lower[axis], extent.upper[axis], planes + 1)
    bounds = grid.bounds
    along, bounds[axis] = bounds[axis], (edges[:-1], edges[1:])
    line = MapExtent((extent.lower[axis],), (extent.upper[axis],))
    drawn = np.maximum(np.sum([extent.sums(mask, bounds) >= 0.5 for mask in masks], axis=0), 1)
    outside = grid.size[axis] - line.sums(np.ones(planes), [along])
    inside = line.sums(np.moveaxis(drawn, axis, -1), [along])
    return np.moveaxis(inside + outside, -1, axis).reshape(len(grid))


def signatures(ensemble: Ensemble, total: Callable[[Any], np.ndarray]) -> np.ndarray:
    """Return the mean prediction over the voxels predicted as each class (n, c * c); 0 for an absent class.

    ``total`` sums a map over each window (n,).
    """
    mean = ensemble.mean
    hard = ensemble.labels.harden(mean[None])[0].bool()
    rows = []
    for mask in hard:
        size = total(mask)
        rows += [total(mask * p) / np.maximum(size, 1e-9) * (size > 0.5) for p in mean]
    return np.stack(rows, axis=1)
