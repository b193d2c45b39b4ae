"""A slice of an image with the outlines of its classes, as all pictures of this package show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np

# The palette of Okabe and Ito, which remains distinct with colour blindness.
COLOURS = ("#E69F00", "#56B4E9", "#D55E00", "#009E73", "#F0E442", "#CC79A7", "#0072B2")
TINT = 0.35


def colours_of(classes: Sequence[str]) -> dict[str, str]:
    """Return a colour for each class."""
    return dict(zip(classes, cycle(COLOURS), strict=False))


def show_image(axes: Any, image: np.ndarray, aspect: float) -> None:
    """Draw a slice of shape (rows, columns) in grey; ``aspect`` is the spacing of rows over that of columns."""
    low, high = np.percentile(image, (0.5, 99.5))
    axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect)
    axes.set_axis_off()
    axes.set(xticks=[], yticks=[])  # laying them out takes half of the time, even where they are hidden


def show_labels(axes: Any, labels: np.ndarray, classes: Mapping[str, Sequence[int]], tint: float = TINT) -> None:
    """Lay the classes of a slice over its image, each the union of some label values, with its outline."""
    places = [np.arange(-1, size + 1) for size in labels.shape]
    for name, colour in colours_of(list(classes)).items():
        mask = np.isin(labels, classes[name])
        if not mask.any():
            continue
        padded = np.pad(mask, 1).astype(float)  # closes outlines at the border
        axes.contour(places[1], places[0], padded, levels=[0.5], colors=[colour], linewidths=1.3)
        if tint:
            axes.contourf(places[1], places[0], padded, levels=[0.5, 1.5], colors=[colour], alpha=tint)
    axes.set_xlim(-0.5, labels.shape[1] - 0.5)
    axes.set_ylim(labels.shape[0] - 0.5, -0.5)
