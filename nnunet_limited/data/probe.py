"""Find out by trial what a transform does to a crop: move voxels, change intensities, or change labels only."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch

from nnunet_limited.errors import LimitedError
from nnunet_limited.host.loaders import GEOMETRIC, INTENSITY, LABEL_ONLY, MASKING, SegOnlyTransform, parts
from nnunet_limited.util.random_state import RandomStream

Effect = Literal["geometric", "intensity", "label", "masking"]
KNOWN: dict[str, Effect] = {
    **dict.fromkeys(GEOMETRIC, "geometric"),
    **dict.fromkeys(INTENSITY, "intensity"),
    **dict.fromkeys(LABEL_ONLY, "label"),
    **dict.fromkeys(MASKING, "masking"),
}
# Edge of a small probe, and how often it is tried; a transform that needs its own patch size, which takes longer, less.
SMALL, TRIALS, FEW_TRIALS = 16, 20, 3
CODES = 32749  # a prime below the largest int16, so that no shift of a grid of codes looks like itself


def effect(transform: Any, channels: int, patch_size: Sequence[int]) -> Effect:
    """Return what a transform of crops with so many ``channels`` and spatial edges ``patch_size`` does.

    Transforms of nnU-Net's pipeline are known by their names, others are tried. One that has several effects, or
    consists of several transforms, is geometric if anything of it is.
    """
    effects = {_effect(part, channels, patch_size) for part in parts(transform)}
    order: tuple[Effect, ...] = ("geometric", "masking", "intensity", "label")
    return next(kind for kind in order if kind in effects)


def is_known(transform: Any) -> bool:
    """Return whether a transform is of nnU-Net's own pipeline."""
    return all(type(part).__name__ in KNOWN for part in parts(transform))


def _effect(transform: Any, channels: int, patch_size: Sequence[int]) -> Effect:
    name = type(transform).__name__
    if name in KNOWN:
        return KNOWN[name]
    if isinstance(transform, SegOnlyTransform):
        return "label"
    with RandomStream((0,)).active():  # the training draws the same crops, whatever is tried
        try:
            return _tried(transform, channels, [SMALL] * len(patch_size), TRIALS)
        except Exception:
            try:
                return _tried(transform, channels, patch_size, FEW_TRIALS)
            except Exception as error:
                raise LimitedError(
                    f"augmentation {name} fails on an unlabelled crop of {channels} channels and {list(patch_size)} "
                    f"voxels ({error!r}); correct it, or train with nnU-Net's default augmentation"
                ) from error


def coded_grid(shape: Sequence[int]) -> torch.Tensor:
    """Return a label (1, *shape) in which voxels have different values, so that any move is seen."""
    return (torch.arange(math.prod(shape)) % CODES).reshape(1, *shape).to(torch.int16)


def _tried(transform: Any, channels: int, shape: Sequence[int], trials: int) -> Effect:
    grid = coded_grid(shape)
    effects: set[Effect] = set()
    for _ in range(trials):
        image = torch.randn(channels, *shape)
        made = transform(image=image.clone(), segmentation=grid.clone())
        labels_changed = not torch.equal(made["segmentation"], grid)
        if not torch.equal(made["image"], image):
            effects.add("geometric" if labels_changed else "intensity")
        elif labels_changed:
            effects.add("label")
    if "geometric" in effects or {"intensity", "label"} <= effects:
        return "geometric"
    return "label" if effects == {"label"} else "intensity"
