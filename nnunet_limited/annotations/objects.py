"""Slices, boxes, points and patches."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from scipy import ndimage

from nnunet_limited.annotations.annotation import Annotation, Box, classes, only, outlines

Placement = Literal["centre", "equidistant", "random"]


def slices(
    label: np.ndarray,
    ignore: int,
    rng: np.random.Generator,
    axes: Sequence[int] = (0,),
    count: int = 1,
    placement: Placement = "centre",
) -> Annotation:
    """Annotate ``count`` slices across each of ``axes`` of ``label`` (3D, integers), all through the foreground.

    ``centre``: around the slice nearest to the middle of the foreground among those that show most classes.
    ``equidistant``: at equal distances. ``random``: anywhere. A mark is the outline of one object in one slice.
    """
    annotated = np.zeros(label.shape, bool)
    marks = number = 0
    for axis in axes:
        view, drawn = np.moveaxis(label, axis, 0), np.moveaxis(annotated, axis, 0)
        for index in chosen_slices(view, ignore, rng, count, placement):
            drawn[index] = view[index] != ignore
            number += 1
            foreground = [value for value in classes(view[index], ignore) if value]
            marks += max(1, sum(ndimage.label(view[index] == value)[1] for value in foreground))
    return Annotation(only(label, annotated, ignore), marks, number)


def chosen_slices(
    view: np.ndarray, ignore: int, rng: np.random.Generator, count: int, placement: Placement
) -> list[int]:
    """Return ``count`` indices along the first axis of ``view`` through its foreground; fewer if it is thinner."""
    shown = [len([value for value in classes(one, ignore) if value]) for one in view]
    candidates = np.flatnonzero(shown) if any(shown) else np.arange(len(view))
    count = min(count, len(candidates))
    if placement == "random":
        return sorted(int(index) for index in rng.choice(candidates, count, replace=False))
    if placement == "equidistant":
        places = (np.arange(count) + 0.5) * len(candidates) / count
        return [int(candidates[int(place)]) for place in places]
    area = ((view != 0) & (view != ignore)).reshape(len(view), -1).sum(1)[candidates]
    middle = np.average(candidates, weights=area) if area.any() else candidates.mean()
    best = [index for index in candidates if shown[index] == max(shown)]
    centre = min(best, key=lambda index: abs(index - middle))
    return sorted(int(index) for index in sorted(candidates, key=lambda index: abs(index - centre))[:count])


def boxes(label: np.ndarray, ignore: int, rng: np.random.Generator, margin: float = 0.0) -> Annotation:
    """Put a box around every foreground object of ``label`` (2D or 3D, integers), classes apart.

    Outside all boxes is background for certain; nothing is known inside. Each face lies up to ``margin`` times the
    object's length outside of it, never inside, so that no voxel is wrong.
    """
    found = []
    for value, _, inside in _objects(label, ignore):
        start, stop = [], []
        for place, size in zip(inside, label.shape, strict=True):
            low, high = np.rint(rng.uniform(0, margin, 2) * (place.stop - place.start)).astype(int)
            start.append(max(place.start - int(low), 0))
            stop.append(min(place.stop + int(high), size))
        found.append(Box(value, tuple(start), tuple(stop)))
    return from_boxes(label, ignore, found)


def from_boxes(label: np.ndarray, ignore: int, found: Sequence[Box]) -> Annotation:
    """Return the annotation that ``found`` amounts to on the grid of ``label``, whose ignored voxels stay so."""
    annotated = label != ignore
    for box in found:
        annotated[box.inside] = False
    background = np.where(annotated, 0, ignore).astype(label.dtype)
    faces = {index for box in found for index in (box.start[0], box.stop[0] - 1)}
    return Annotation(background, len(found), len(faces) if label.ndim == 3 else min(1, len(found)), tuple(found))


def points(
    label: np.ndarray,
    ignore: int,
    rng: np.random.Generator,
    spacing: Sequence[float] | None = None,
    per_object: int = 1,
    placement: Literal["centre", "random"] = "centre",
    background: int = 10,
    radius: float = 2.0,
) -> Annotation:
    """Click ``per_object`` points into every foreground object of ``label`` (2D or 3D, integers), then some outside.

    A point is a ball of ``radius`` times the smallest ``spacing``, cut off at the object's border: a disc in one slice
    where slices are far apart. ``centre``: first the voxel farthest from the border, of several the one nearest to the
    object's middle; all others at random. ``background`` points lie outside the boxes around the objects,
    where there is room.
    """
    steps = np.ones(label.ndim) if spacing is None else np.asarray(spacing, float)
    annotated = np.zeros(label.shape, bool)
    middles: list[np.ndarray] = []
    outside = label == 0
    clear = outside.copy()
    for _, mask, inside in _objects(label, ignore):
        clear[inside] = False
        corner = np.array([place.start for place in inside])
        chosen = _draw(mask, per_object, rng)
        if placement == "centre":
            depth = ndimage.distance_transform_edt(np.pad(mask, 1), sampling=steps)
            deepest = np.argwhere(depth == depth.max()) - 1
            distance = np.linalg.norm((deepest - np.argwhere(mask).mean(0)) * steps, axis=1)
            chosen[0] = deepest[distance.argmin()]
        for middle in chosen:
            ball(annotated[inside], mask, middle, radius * steps.min(), steps)
        middles.extend(chosen + corner)
    for middle in _draw(clear if clear.any() else outside, background, rng):
        ball(annotated, outside, middle, radius * steps.min(), steps)
        middles.append(middle)
    touched = {int(middle[int(np.argmax(steps))]) for middle in middles}
    return Annotation(only(label, annotated, ignore), len(middles), len(touched))


def patches(
    label: np.ndarray, ignore: int, rng: np.random.Generator, size: Sequence[int], count: int = 1
) -> Annotation:
    """Annotate ``count`` patches of ``size`` of ``label`` (2D or 3D, integers) in full.

    Their centres are random voxels of each class in turn, foreground first. A mark is the outline of one object in one
    slice, or a look at a slice without any.
    """
    annotated = np.zeros(label.shape, bool)
    present = classes(label, ignore)
    turns = [value for value in present if value] + [value for value in present if not value]
    for number in range(count if turns else 0):
        middle = _draw(label == turns[number % len(turns)], 1, rng)[0]
        start = [max(0, min(m - s // 2, n - s)) for m, s, n in zip(middle, size, label.shape, strict=True)]
        inside = tuple(slice(a, a + s) for a, s in zip(start, size, strict=True))
        annotated[inside] = True
    annotated &= label != ignore
    return Annotation(only(label, annotated, ignore), *outlines(label, annotated, ignore))


def _objects(label: np.ndarray, ignore: int) -> Iterator[tuple[int, np.ndarray, tuple[slice, ...]]]:
    """Yield class, mask within its box, and box of every connected foreground object (diagonals connect)."""
    for value in classes(label, ignore):
        if value:
            parts, _ = ndimage.label(label == value, np.ones((3,) * label.ndim))
            for number, inside in enumerate(ndimage.find_objects(parts), 1):
                yield value, parts[inside] == number, inside


def _draw(mask: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``count`` different voxels (count, axes) of ``mask`` at random; all of them if there are fewer."""
    available = int(np.count_nonzero(mask))
    if available > max(mask.size // 100, 100 * count):  # without a list of all, which is large in a large scan
        found: dict[int, None] = {}
        while len(found) < count:
            place = int(rng.integers(mask.size))
            if mask[np.unravel_index(place, mask.shape)]:
                found[place] = None
        places = np.array(list(found), np.int64)
    else:
        places = rng.choice(np.flatnonzero(mask), min(count, available), replace=False)
    return np.stack(np.unravel_index(places, mask.shape), axis=1)


def ball(annotated: np.ndarray, allowed: np.ndarray, middle: np.ndarray, radius: float, spacing: np.ndarray) -> None:
    """Mark the voxels of ``allowed`` within ``radius`` of the voxel ``middle``."""
    reach = np.floor(radius / spacing).astype(int)
    window = tuple(slice(max(m - r, 0), m + r + 1) for m, r in zip(middle, reach, strict=True))
    grid = np.indices(annotated[window].shape)
    offset = [(g + w.start - m) * s for g, w, m, s in zip(grid, window, middle, spacing, strict=True)]
    near = sum(o**2 for o in offset) <= radius**2
    annotated[window] |= near & allowed[window]
