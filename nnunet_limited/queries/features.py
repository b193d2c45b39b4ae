"""Features of windows from the layers of a network: maps of low resolution, to be averaged over windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from nnunet_limited.losses.label_space import LabelSpace
from nnunet_limited.queries.pool import ENCODER, GRADIENT
from nnunet_limited.queries.windows import MapExtent, WindowGrid

STEP = 8  # voxels along each axis that gradients are averaged over


@dataclass(frozen=True)
class FeatureMap:
    """A map (f, *spatial) over a preprocessed image that is padded to whole tiles, of shape ``extent``."""

    values: np.ndarray
    extent: tuple[int, ...]


@torch.inference_mode()
def feature_map(
    network: Any, image: np.ndarray, patch_size: tuple[int, ...], kind: str, labels: LabelSpace, device: torch.device
) -> FeatureMap:
    """Return the features of a ``kind`` in ``FEATURES`` of a preprocessed ``image`` (c, *spatial).

    The network sees tiles of ``patch_size`` side by side, each once; ``labels`` are its channels.
    """
    spatial = image.shape[1:]
    flat = len(spatial) - len(patch_size)  # the network of a 2D configuration sees one slice at a time
    tile = (1,) * flat + tuple(patch_size)
    extent = tuple(-(-n // t) * t for n, t in zip(spatial, tile, strict=True))
    padded = np.pad(image, [(0, 0), *((0, e - n) for e, n in zip(extent, spatial, strict=True))])
    made: np.ndarray | None = None
    network.eval()
    for number in product(*(range(e // t) for e, t in zip(extent, tile, strict=True))):
        inside = _block(number, tile)
        shown = torch.from_numpy(padded[inside].copy()).float().to(device).reshape(1, len(image), *patch_size)
        values = FEATURES[kind](network, shown, labels)[0].cpu().numpy()
        values = values.reshape(len(values), *(1,) * flat, *values.shape[1:])
        if made is None:
            counts = [e // t * n for e, t, n in zip(extent, tile, values.shape[1:], strict=True)]
            made = np.zeros((len(values), *counts), np.float32)
        made[_block(number, values.shape[1:])] = values
    assert made is not None
    return FeatureMap(made, extent)


def window_features(
    features: FeatureMap, extent: MapExtent, order: list[int], grid: WindowGrid, shape: tuple[int, ...]
) -> np.ndarray:
    """Return the mean features of each window (n, f), 0 for a window outside of the network's grid.

    ``extent`` is the part of the scan that the network's grid of ``shape`` covers, ``order`` the scan's axes on it.
    """
    upper = []
    for axis, (low, high) in enumerate(zip(extent.lower, extent.upper, strict=True)):
        scale = (high - low) / shape[order[axis]]
        upper.append(low + scale * features.extent[order[axis]])
    values = features.values.transpose([0, *(axis + 1 for axis in order)])
    sums = MapExtent(extent.lower, tuple(upper)).sums(values, grid.bounds)
    return (sums / np.prod(grid.size)).reshape(len(values), len(grid)).T


def _block(number: tuple[int, ...], size: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the index of a tile in all channels."""
    return (slice(None), *(slice(k * s, (k + 1) * s) for k, s in zip(number, size, strict=True)))


def encoder_features(network: Any, image: torch.Tensor, labels: LabelSpace) -> torch.Tensor:
    """Return the last but one stage of the encoder (b, f, *spatial), or the only one, for an ``image`` (b, c, …)."""
    stages = network.encoder(image)
    return stages[max(0, len(stages) - 2)]


def gradient_features(network: Any, image: torch.Tensor, labels: LabelSpace) -> torch.Tensor:
    """Return the gradient of the loss for the predicted class (b, c * f, *blocks) for an ``image`` (b, c, …).

    The gradient is that of the cross-entropy with regard to the weights of the last layer, averaged over blocks of
    ``STEP`` voxels along each axis (BADGE, Ash et al., ICLR 2020, arXiv 1906.03671).
    """
    inputs: list[torch.Tensor] = []
    hook = network.decoder.seg_layers[-1].register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    try:
        logits = network(image)
    finally:
        hook.remove()
    logits = logits[0] if isinstance(logits, (list, tuple)) else logits
    p = labels.probabilities(logits)
    blocks = [-(-n // STEP) for n in p.shape[2:]]
    pool: Any = functional.adaptive_avg_pool3d if len(blocks) == 3 else functional.adaptive_avg_pool2d
    return torch.cat([pool(error * inputs[0], blocks) for error in (p - labels.harden(p)).split(1, dim=1)], 1)


# Features (b, f, *any resolution) of a tile (b, c, *patch_size), by kind.
FEATURES: dict[str, Callable[[Any, torch.Tensor, LabelSpace], torch.Tensor]] = {
    ENCODER: encoder_features,
    GRADIENT: gradient_features,
}
