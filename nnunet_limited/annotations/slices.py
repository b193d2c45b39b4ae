"""Whole slices, densely labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import ndimage

from nnunet_limited.annotations.annotation import Annotation, classes, only

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
