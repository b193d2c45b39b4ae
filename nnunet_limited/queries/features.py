"""Features that strategies compare windows by: maps from the layers of a network, and descriptions of whole scans."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.measure import block_reduce
from skimage.transform import resize
from torch.nn import functional

from nnunet_limited.datasets.raw import Case
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.images import read_scan
from nnunet_limited.losses.label_space import LabelSpace
from nnunet_limited.queries.pool import ENCODER, GRADIENT
from nnunet_limited.queries.windows import MapExtent, WindowGrid

STEP = 8  # voxels along each axis that gradients are averaged over
PERCENTILES = (0.5, 5, 25, 50, 75, 95, 99.5)
BLOCKS = 4  # of a scan along each axis
FeatureMap = tuple[np.ndarray, tuple[int, ...]]  # a map (f, *any resolution), and the shape that it covers


@torch.inference_mode()
def feature_map(
    network: Any, image: np.ndarray, patch_size: tuple[int, ...], kind: str, labels: LabelSpace, device: torch.device
) -> FeatureMap:
    """Return the features of a ``kind`` in ``FEATURES`` of a preprocessed ``image`` (c, *spatial).

    The image is padded to whole tiles of ``patch_size``, of which the network sees each once; ``labels`` are its
    channels.
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
    return made, extent


def window_features(
    features: FeatureMap, extent: MapExtent, order: list[int], grid: WindowGrid, shape: tuple[int, ...]
) -> np.ndarray:
    """Return the mean features of each window (n, f), 0 for a window outside of the network's grid.

    ``extent`` is the part of the scan that the network's grid of ``shape`` covers, ``order`` the scan's axes on it.
    """
    values, padded = features
    upper = tuple(
        low + (high - low) / shape[axis] * padded[axis]
        for axis, low, high in zip(order, extent.lower, extent.upper, strict=True)
    )
    values = values.transpose([0, *(axis + 1 for axis in order)])
    sums = MapExtent(extent.lower, upper).sums(values, grid.bounds)
    return (sums / np.prod(grid.size)).reshape(len(values), len(grid)).T


def _block(number: tuple[int, ...], size: tuple[int, ...]) -> tuple[slice, ...]:
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


def describe_scan(case: Case, reader_class: Any) -> tuple[tuple[int, ...], tuple[float, ...], np.ndarray]:
    """Return a scan's shape, spacing and description (f,).

    The description is what nnU-Net's fingerprint has of an image (logarithms of shape and spacing, percentiles of the
    intensities of each channel), and the means of the normalised channels in 4 x 4 x 4 blocks. Raises LimitedError for
    an image that cannot be read or is not finite.
    """
    image, properties = read_scan(reader_class(), case.images)
    if not np.isfinite(image).all():
        raise LimitedError(f"image {case.images[0]} has voxels that are not finite; repair or remove it")
    shape, spacing = image.shape[1:], tuple(float(s) for s in properties["spacing"])
    parts = [np.log(shape), np.log(spacing)]
    for channel in image.astype(np.float32):
        levels = np.percentile(channel, PERCENTILES)
        low, high = levels[0], max(levels[-1], levels[0] + 1e-6)
        shown = (channel.clip(low, high) - low) / (high - low)
        means = block_reduce(shown, tuple(-(-size // BLOCKS) for size in shape), np.mean)
        parts += [levels, resize(means, (BLOCKS,) * means.ndim, order=1).ravel()]
    return tuple(shape), spacing, np.concatenate(parts)


def load_features(file: Path, cases: list[str]) -> np.ndarray:
    """Return the features (n, f) from a ``.npz`` file with an array for each case, e.g. embeddings of a network.

    Raises LimitedError for a missing case, and for features of another length or that are not finite.
    """
    if not file.is_file():
        raise LimitedError(f"--features {file} does not exist; write one array per case with numpy.savez")
    try:
        with np.load(file, allow_pickle=False) as stored:
            found = {case: np.asarray(stored[case], float).ravel() for case in cases if case in stored}
    except (ValueError, OSError) as error:
        raise LimitedError(f"--features {file} cannot be read ({error}); write it with numpy.savez") from error
    for case in cases:
        if case not in found:
            raise LimitedError(f"--features {file} has no array named {case!r}; add it")
        if len(found[case]) != len(found[cases[0]]):
            raise LimitedError(
                f"--features {file}: {case!r} has {len(found[case])} numbers, {cases[0]!r} {len(found[cases[0]])}; "
                "give the same number for each case"
            )
        if not np.isfinite(found[case]).all():
            raise LimitedError(f"--features {file}: {case!r} has numbers that are not finite; correct it")
    return np.stack([found[case] for case in cases])
