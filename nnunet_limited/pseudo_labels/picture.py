"""Pictures of a slice with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from nnunet_limited.report.overlays import show_image, show_labels
from nnunet_limited.util.files import replacing


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
        figure.savefig(temporary, format="png", dpi=dpi)
