"""Features of windows from the layers of a network: maps of low resolution, to be averaged over windows."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from nnunet_limited.queries.pool import ENCODER

STEP = 8  # voxels along each axis that gradients are averaged over


class FeatureMap:
    """A map (f, *spatial) over a preprocessed image that was padded up to whole tiles, whose extent it covers."""

    def __init__(self, values: np.ndarray, extent: tuple[int, ...]) -> None:
        """Take the map and the shape of the padded image."""
        self.values, self.extent = values, extent


@torch.inference_mode()
def feature_map(
    network: Any, image: np.ndarray, patch_size: tuple[int, ...], kind: str, regions: bool, device: torch.device
) -> FeatureMap:
    """Return the features ``encoder`` or ``gradient`` of a preprocessed ``image`` (c, *spatial).

    The network sees tiles side by side, each once. ``encoder``: the last but one stage (f, *spatial), of which a
    network has at least two. ``gradient``: that of the cross-entropy for the predicted class with regard to the last
    layer's weights (c * f, *spatial), averaged over blocks (BADGE, Ash et al., ICLR 2020, arXiv 1906.03671).
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
        found = _encoder(network, shown) if kind == ENCODER else _gradient(network, shown, regions)
        values = found[0].cpu().numpy()
        values = values.reshape(len(values), *(1,) * flat, *values.shape[1:])
        if made is None:
            counts = [e // t * n for e, t, n in zip(extent, tile, values.shape[1:], strict=True)]
            made = np.zeros((len(values), *counts), np.float32)
        made[_block(number, values.shape[1:])] = values
    assert made is not None
    return FeatureMap(made, extent)


def _block(number: tuple[int, ...], size: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the index of a tile of all channels."""
    return (slice(None), *(slice(k * s, (k + 1) * s) for k, s in zip(number, size, strict=True)))


def _encoder(network: Any, image: torch.Tensor) -> torch.Tensor:
    stages = network.encoder(image)
    return stages[max(0, len(stages) - 2)]


def _gradient(network: Any, image: torch.Tensor, regions: bool) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    hook = network.decoder.seg_layers[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        logits = network(image)
    finally:
        hook.remove()
    logits = logits[0] if isinstance(logits, (list, tuple)) else logits
    p = logits.sigmoid() if regions else logits.softmax(1)
    chosen = (p > 0.5) if regions else functional.one_hot(p.argmax(1), p.shape[1]).movedim(-1, 1)
    blocks = [-(-n // STEP) for n in p.shape[2:]]
    pool: Any = functional.adaptive_avg_pool3d if len(blocks) == 3 else functional.adaptive_avg_pool2d
    return torch.cat([pool(wrong * seen[0], blocks) for wrong in (p - chosen.float()).split(1, dim=1)], 1)
