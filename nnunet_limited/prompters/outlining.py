"""A promptable model over a volume: prompts from a guess, embeddings once per slice, several prompts averaged.

Jittered boxes are averaged as in SAM-U (Deng et al., MICCAI 2023, arXiv 2307.04973). The second pass has points in the
middle of the object and of the other classes as in Keuth et al. (2024, arXiv 2411.12602), and the box too: without it a
small model loses the object.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from nnunet_limited.errors import LimitedError
from nnunet_limited.prompters.prompter import Prompter
from nnunet_limited.prompters.prompts import PromptSettings, centre, jittered, mask_logits, objects, tight_box, to_unit


@dataclass(frozen=True)
class Outlined:
    """The outlines of a promptable model in a volume, and the numbers of its embeddings and prompts.

    ``probability`` (c, *spatial) of the foreground classes is NaN in the slices of a class without a prompt.
    ``stability`` is the mean IoU of the masks from the boxes of one object, in [0, 1], None without any to compare.
    """

    probability: np.ndarray
    stability: float | None
    embeddings: int
    prompts: int


def outline(
    prompter: Prompter,
    image: np.ndarray,
    guess: np.ndarray,
    spacing: Sequence[float],
    settings: PromptSettings,
    rng: np.random.Generator,
) -> Outlined:
    """Return the outlines of the objects of a ``guess`` in ``image`` (*spatial).

    ``guess`` (c, *spatial) are probabilities of the foreground classes. Slices lie across the axis with the largest
    ``spacing``, the first one of equals, or across all axes.
    """
    if image.ndim != 3 or guess.shape[1:] != image.shape:
        raise LimitedError(
            f"the image {image.shape} and the guess {guess.shape} differ in shape; give both on one grid"
        )
    shown, outliner = to_unit(image), _Outliner(prompter, settings, rng)
    if prompter.ndim == 3:
        return outliner.summary([outliner.outline(shown, guess)])
    axes = [coarsest_axis(image.shape, spacing)] if settings.axes == 1 else plane_axes(image.shape)
    made = []
    for axis in axes:
        volume = np.full(guess.shape, np.nan, np.float32)
        slices, guesses = np.moveaxis(volume, axis + 1, 1), np.moveaxis(guess, axis + 1, 1)
        for index, plane in enumerate(np.moveaxis(shown, axis, 0)):
            slices[:, index] = outliner.outline(plane, guesses[:, index])
        made.append(volume)
    return outliner.summary(made)


class _Outliner:
    """A prompter that outlines images, and counts what it does."""

    def __init__(self, prompter: Prompter, settings: PromptSettings, rng: np.random.Generator) -> None:
        self.prompter, self.settings, self.rng = prompter, settings, rng
        self.kind = settings.kind_for(prompter.prompts)
        self.embeddings = self.prompts = 0
        self.overlaps: list[float] = []

    def summary(self, volumes: list[np.ndarray]) -> Outlined:
        """Return the mean of ``volumes``, in each voxel over those that are not NaN."""
        stability = float(np.mean(self.overlaps)) if self.overlaps else None
        return Outlined(known_mean(volumes), stability, self.embeddings, self.prompts)

    def outline(self, image: np.ndarray, guess: np.ndarray) -> np.ndarray:
        """Return the probabilities (c, *spatial) of the classes in one image, NaN for a class without object."""
        made = np.full(guess.shape, np.nan, np.float32)
        found = [objects(p > 0.5, self.settings.min_area, self.settings.max_objects) for p in guess]
        if not any(found):
            return made
        embedding = self.prompter.embed(image)
        self.embeddings += 1
        middles = [[centre(one) for one in parts] for parts in found]
        for c, parts in enumerate(found):
            if not parts:
                continue
            others = [place for k, places in enumerate(middles) if k != c for place in places]
            answers = [
                self._object(embedding, one, guess[c], place, [p for p in others if not one[tuple(p)]])
                for one, place in zip(parts, middles[c], strict=True)
            ]
            made[c] = np.where((guess[c] > 0.5) & ~np.any(parts, axis=0), np.nan, np.max(answers, axis=0))
        return made

    def _object(
        self, embedding: object, part: np.ndarray, guess: np.ndarray, middle: np.ndarray, others: list[np.ndarray]
    ) -> np.ndarray:
        """Return the probability of one object, averaged over its boxes."""
        places = np.stack([middle, *others])
        if self.kind == "point":
            alone: np.ndarray = self._ask(embedding, **_clicks(places, 1))[0]
            return alone
        count = self.settings.boxes
        boxes = jittered(tight_box(part), part.shape, count, self.settings.jitter, self.settings.margin, self.rng)
        asked: dict[str, np.ndarray] = {"boxes": boxes}
        if self.kind == "box+mask":
            asked["mask_logits"] = np.repeat(mask_logits(guess)[None], count, axis=0)
        probability = self._ask(embedding, **asked)
        if self.kind == "two-pass":
            asked |= _clicks(places, count)
            if "mask" in self.prompter.prompts:
                asked["mask_logits"] = mask_logits(probability)
            probability = self._ask(embedding, **asked)
        self.overlaps += [iou(a, b) for a, b in combinations(probability > 0.5, 2)]
        mean: np.ndarray = probability.mean(0)
        return mean

    def _ask(self, embedding: object, **asked: np.ndarray) -> np.ndarray:
        self.prompts += len(next(iter(asked.values())))
        return self.prompter.predict(embedding, **asked)[0]


def _clicks(places: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Return ``count`` equal prompts of points, of which the first is inside the object and the others outside."""
    labels = np.arange(len(places)) == 0
    return {"points": np.repeat(places[None], count, axis=0), "labels": np.repeat(labels[None], count, axis=0)}


def known_mean(volumes: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mean of ``volumes`` in each voxel over those that are not NaN, as float32; NaN where all are."""
    total, count = np.zeros(volumes[0].shape, np.float32), np.zeros(volumes[0].shape, np.int16)
    for volume in volumes:
        known = np.isfinite(volume)
        total += np.where(known, volume, 0)
        count += known
    return np.where(count > 0, total / np.maximum(count, 1), np.float32(np.nan))


def plane_axes(shape: Sequence[int]) -> list[int]:
    """Return the axes across which slices are more than lines; the first axis of a volume that has none."""
    return [axis for axis in range(3) if min(np.delete(shape, axis)) > 1] or [0]


def coarsest_axis(shape: Sequence[int], spacing: Sequence[float]) -> int:
    """Return the axis with the largest ``spacing``, the first one of equals, whose slices are more than lines."""
    return max(plane_axes(shape), key=lambda axis: (spacing[axis], -axis))


def iou(mask: np.ndarray, other: np.ndarray) -> float:
    """Return the overlap of two masks over their union; 1 if both are empty."""
    union = int((mask | other).sum())
    return int((mask & other).sum()) / union if union else 1.0
