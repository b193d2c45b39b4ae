"""A slice of an image with the outlines of its classes, as all pictures of this package show it."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.util.files import replacing

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


def draw_slice(
    file: Path,
    image: np.ndarray,
    spacing: Sequence[float],
    axis: int,
    masks: np.ndarray,
    panels: Mapping[str, np.ndarray | None],
    size: tuple[float, float],
    dpi: int,
    hatched: np.ndarray | None = None,
) -> None:
    """Draw the slice across ``axis`` of an ``image`` (*spatial) in which ``masks`` (c, *spatial) cover the most.

    ``panels`` are the masks (c, *spatial) to lay over it by title, None for the image alone; ``hatched`` (*spatial) is
    hatched in the last panel, if it is not the whole slice. The figure's ``size`` is in inches.
    """
    from matplotlib.figure import Figure

    index = int(masks.any(0).sum(tuple(a for a in range(3) if a != axis)).argmax())
    plane = np.take(image, index, axis)
    rows, columns = (s for a, s in enumerate(spacing) if a != axis)
    figure = Figure(figsize=size, layout="constrained")
    classes = {str(number): [number] for number in range(1, len(masks) + 1)}
    for axes, (title, shown) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        show_image(axes, plane, rows / columns)
        axes.set_title(title, fontsize=9)
        label = np.zeros(plane.shape, int)
        for number, mask in enumerate(shown if shown is not None else (), 1):
            label[np.take(mask, index, axis)] = number
        show_labels(axes, label, classes)
    open_ = np.take(hatched, index, axis) if hatched is not None else np.zeros(plane.shape, bool)
    if open_.any() and not open_.all():
        axes.contourf(open_.astype(float), levels=[0.5, 1.5], colors="none", hatches=["////"])
    with replacing(file) as temporary:
        save_png(figure, temporary, dpi)


def save_png(figure: Any, target: Any, dpi: int) -> None:
    """Draw a matplotlib ``figure`` into a file or stream; a ``$`` in names begins no formula."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
    figure.savefig(target, format="png", dpi=dpi)
