"""Prompts from a rough mask: its objects in a slice or a volume, boxes around them, points in and beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage
from scipy.special import logit

from nnunet_limited.errors import LimitedError
from nnunet_limited.util.components import components

Kind = Literal["box", "box+mask", "two-pass", "point"]
NEEDS: dict[str, frozenset[str]] = {
    "box": frozenset({"box"}),
    "box+mask": frozenset({"box", "mask"}),
    "two-pass": frozenset({"box", "point"}),
    "point": frozenset({"point"}),
}
SURE = 6.9  # logit of a mask prompt at the most: 0.999


class PromptSettings(BaseModel):
    """How a promptable model is asked; lengths and areas in voxels of a slice."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind | None = Field(default=None, description="box, box+mask, two-pass or point; None: with mask if it can")
    boxes: int = Field(default=5, ge=1, description="boxes an object, the first one tight, the others jittered")
    jitter: int | None = Field(
        default=None,
        ge=0,
        description="most voxels that the faces of a jittered box are moved; None: a fiftieth of the image's longest "
        "side, but no more than a quarter of the box",
    )
    margin: int = Field(default=0, ge=0, description="voxels that every box is wider than its object")
    least_area: int = Field(default=30, ge=1, description="voxels of an object at the least")
    most_objects: int = Field(default=5, ge=1, description="objects of a class in one image, the largest ones")
    axes: Literal[1, 3] = Field(default=1, description="slices across the coarsest axis, or across all three")
    channel: int = Field(default=0, ge=0, description="image channel that models and atlases are shown")

    def of(self, prompts: frozenset[str]) -> Kind:
        """Return the kind for a model that takes ``prompts``; refuse one that it does not take."""
        if self.kind is None:
            return "point" if "box" not in prompts else "box+mask" if "mask" in prompts else "box"
        missing = NEEDS[self.kind] - prompts
        if missing:
            raise LimitedError(
                f"prompts of kind {self.kind}: the model takes no {min(missing)}; give another, e.g. --ask kind=box"
            )
        return self.kind


def objects(mask: np.ndarray, least: int, most: int) -> list[np.ndarray]:
    """Return the connected parts of a boolean ``mask``, the largest ones first."""
    numbers, sizes = components(mask)
    chosen = [index for index in np.argsort(-sizes, kind="stable")[:most] if sizes[index] >= least]
    return [numbers == index + 1 for index in chosen]


def tight_box(mask: np.ndarray) -> np.ndarray:
    """Return first voxel and the one after the last (2, ndim) of a ``mask`` that is not empty."""
    places = [np.flatnonzero(mask.any(tuple(a for a in range(mask.ndim) if a != axis))) for axis in range(mask.ndim)]
    return np.array([[place[0] for place in places], [place[-1] + 1 for place in places]])


def jittered(
    box: np.ndarray, shape: Sequence[int], count: int, jitter: int | None, margin: int, rng: np.random.Generator
) -> np.ndarray:
    """Return ``count`` boxes (count, 2, ndim) inside the image, the first without jitter and none of them empty.

    Without ``jitter`` faces move as far as in the training of MedSAM (20 of 1,024 voxels; Ma et al., Nature
    Communications 2024, doi 10.1038/s41467-024-44824-z), and less for small objects.
    """
    most = np.minimum(-(-max(shape) // 50), (box[1] - box[0]) // 4) if jitter is None else jitter
    moved = np.repeat(box[None] + np.array([[-margin], [margin]]), count, axis=0)
    moved[1:] += rng.integers(-most, most + 1, moved[1:].shape)
    size = np.asarray(shape)
    start = moved[:, 0].clip(0, size - 1)
    return np.stack([start, np.maximum(moved[:, 1].clip(1, size), start + 1)], axis=1)


def centre(mask: np.ndarray) -> np.ndarray:
    """Return the voxel (ndim,) of a ``mask`` that is the farthest from its border, inside it for certain."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[(slice(1, -1),) * mask.ndim]
    return np.array(np.unravel_index(int(depth.argmax()), mask.shape))


def mask_logits(probability: np.ndarray) -> np.ndarray:
    """Return a probability as mask prompt: its logit, at most as sure as prompters are used to."""
    return logit(np.asarray(probability, np.float64).clip(1e-6, 1 - 1e-6)).clip(-SURE, SURE).astype(np.float32)


def keep_components(label: np.ndarray, share: float = 0.1) -> np.ndarray:
    """Return a boolean ``label`` without its parts smaller than ``share`` of the largest one."""
    numbers, sizes = components(label)
    if len(sizes) < 2:
        return label
    return np.isin(numbers, 1 + np.flatnonzero(sizes >= share * sizes.max()))


def to_unit(image: np.ndarray) -> np.ndarray:
    """Return an ``image`` scaled to [0, 1] between the 0.5 and 99.5 percentiles of what is above its minimum."""
    seen = image[image > image.min()]
    low, high = np.percentile(seen, (0.5, 99.5)) if seen.size else (0.0, 1.0)
    return ((image - low) / max(high - low, 1e-8)).clip(0, 1).astype(np.float32)
