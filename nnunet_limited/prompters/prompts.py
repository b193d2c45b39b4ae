"""Prompts from a rough mask: its objects in a slice or a volume, boxes around them, points inside and outside."""

from collections.abc import Sequence
from typing import Any, Literal

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
MAX_LOGIT = 6.9  # of a mask prompt: a probability of 0.999


class PromptSettings(BaseModel):
    """How a promptable model is prompted; lengths and areas are in voxels of a slice.

    Records of pseudo-labels keep the former names of two of the settings.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind | None = Field(
        None, description="prompts of an object: box, box+mask, two-pass or point; None: a mask if possible"
    )
    boxes: int = Field(5, ge=1, description="boxes per object: a tight one, then jittered ones")
    jitter: int | None = Field(
        None,
        ge=0,
        description="largest shift of the faces of a jittered box in voxels; None: a fiftieth of the image's longest "
        "side, but at most a quarter of the box",
    )
    margin: int = Field(0, ge=0, description="margin around an object in every box, in voxels")
    min_area: int = Field(
        30, ge=1, description="smallest object to prompt, in voxels", serialization_alias="least_area"
    )
    max_objects: int = Field(
        5,
        ge=1,
        description="largest number of objects of a class in one slice, by size",
        serialization_alias="most_objects",
    )
    axes: Literal[1, 3] = Field(1, description="1: slices across the coarsest axis; 3: across all three")
    channel: int = Field(0, ge=0, description="image channel for promptable models and atlases, from 0")

    def record(self) -> dict[str, Any]:
        """Return the settings as JSON, by the names that are on disk."""
        return self.model_dump(mode="json", by_alias=True)

    def check_channel(self, count: int) -> None:
        """Raise LimitedError if images with ``count`` channels do not have the one to show."""
        if self.channel >= count:
            raise LimitedError(
                f"--ask channel={self.channel}: the images have {count} channels, counted from 0; give another one"
            )

    def kind_for(self, prompts: frozenset[str]) -> Kind:
        """Return the kind of prompts for a model that takes ``prompts``; refuse one that it does not take."""
        if self.kind is None:
            return "point" if "box" not in prompts else "box+mask" if "mask" in prompts else "box"
        missing = NEEDS[self.kind] - prompts
        if missing:
            fitting = " or ".join(f"--ask kind={kind}" for kind, needs in NEEDS.items() if needs <= prompts)
            raise LimitedError(
                f"prompts of kind {self.kind}: the model takes no {min(missing)} prompts; give {fitting}"
            )
        return self.kind


def objects(mask: np.ndarray, min_size: int, max_count: int) -> list[np.ndarray]:
    """Return the masks of the ``max_count`` largest components of a ``mask`` with at least ``min_size`` voxels."""
    numbers, sizes = components(mask)
    chosen = [index for index in np.argsort(-sizes, kind="stable")[:max_count] if sizes[index] >= min_size]
    return [numbers == index + 1 for index in chosen]


def tight_box(mask: np.ndarray) -> np.ndarray:
    """Return the first voxel and the one after the last (2, ndim) of a ``mask`` that is not empty."""
    places = [np.flatnonzero(mask.any(tuple(a for a in range(mask.ndim) if a != axis))) for axis in range(mask.ndim)]
    return np.array([[place[0] for place in places], [place[-1] + 1 for place in places]])


def jittered(
    box: np.ndarray, shape: Sequence[int], count: int, jitter: int | None, margin: int, rng: np.random.Generator
) -> np.ndarray:
    """Return ``count`` boxes (count, 2, ndim) inside the image, the first without jitter and none of them empty.

    With ``jitter`` None faces move as far as in the training of MedSAM (20 of 1,024 voxels; Ma et al., Nature
    Communications 2024, doi 10.1038/s41467-024-44824-z), and less for small objects.
    """
    largest = np.minimum(-(-max(shape) // 50), (box[1] - box[0]) // 4) if jitter is None else jitter
    moved = np.repeat(box[None] + np.array([[-margin], [margin]]), count, axis=0)
    moved[1:] += rng.integers(-largest, largest + 1, moved[1:].shape)
    size = np.asarray(shape)
    start = moved[:, 0].clip(0, size - 1)
    return np.stack([start, np.maximum(moved[:, 1].clip(1, size), start + 1)], axis=1)


def centre(mask: np.ndarray) -> np.ndarray:
    """Return the voxel (ndim,) of a ``mask`` that is farthest from its border."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[(slice(1, -1),) * mask.ndim]
    return np.array(np.unravel_index(int(depth.argmax()), mask.shape))


def mask_logits(probability: np.ndarray) -> np.ndarray:
    """Return a probability as mask prompt: its logit, clipped to the range that prompters were trained with."""
    logits = logit(np.asarray(probability, np.float64).clip(1e-6, 1 - 1e-6))
    return logits.clip(-MAX_LOGIT, MAX_LOGIT).astype(np.float32)


def keep_components(mask: np.ndarray, min_fraction: float = 0.1) -> np.ndarray:
    """Return a ``mask`` without components smaller than ``min_fraction`` of the largest one."""
    numbers, sizes = components(mask)
    if len(sizes) < 2:
        return mask
    return np.isin(numbers, 1 + np.flatnonzero(sizes >= min_fraction * sizes.max()))


def to_unit(image: np.ndarray) -> np.ndarray:
    """Return an ``image`` scaled to [0, 1] between the 0.5 and 99.5 percentiles of the voxels above its minimum."""
    seen = image[image > image.min()]
    low, high = np.percentile(seen, (0.5, 99.5)) if seen.size else (0.0, 1.0)
    return ((image - low) / max(high - low, 1e-8)).clip(0, 1).astype(np.float32)
