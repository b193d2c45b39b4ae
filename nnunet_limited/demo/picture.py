"""One figure that shows cases side by side: image, truth, and what each method predicted."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from nnunet_limited.errors import LimitedError

# Okabe and Ito's colours, which colour-blind readers tell apart.
COLOURS = ("#E69F00", "#56B4E9", "#D55E00", "#009E73", "#F0E442", "#CC79A7", "#0072B2")
_ALPHA = 0.35


def _read(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """The voxels as (z, y, x) and the spacing as (x, y, z)."""
    if not Path(path).is_file():
        raise LimitedError(f"{path} does not exist: the comparison picture needs it")
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    if array.ndim != 3:
        raise LimitedError(f"{path} has {array.ndim} dimensions: the comparison picture needs 3D images")
    return array, image.GetSpacing()


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue


def _show_image(axes: Any, image: np.ndarray, aspect: float) -> None:
    low, high = np.percentile(image, (0.5, 99.7))
    axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect)


def _show_labels(axes: Any, labels: np.ndarray, colours: dict[int, str], aspect: float) -> None:
    """Lay each class over the image, with its outline."""
    overlay = np.zeros((*labels.shape, 4))
    for value, colour in colours.items():
        mask = labels == value
        overlay[mask] = (*_rgb(colour), _ALPHA)
        if mask.any():
            padded = np.pad(mask, 1).astype(float)  # closes outlines at the border
            places = [np.arange(-1, size + 1) for size in labels.shape]
            axes.contour(places[1], places[0], padded, levels=[0.5], colors=[colour], linewidths=1.3)
    axes.imshow(overlay, interpolation="nearest", aspect=aspect)
    axes.set_xlim(-0.5, labels.shape[1] - 0.5)
    axes.set_ylim(labels.shape[0] - 0.5, -0.5)


def _method_title(method: str, score: float | None) -> str:
    shown = "not scored" if score is None or math.isnan(score) else f"Dice {score:.3f}"
    return f"{method}\n{shown}"


def _save(figure: Figure, out: Path) -> None:
    """Write the PNG under a temporary name, then give it its own."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, format="png", dpi=120)
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)


def comparison_picture(
    rows: list[tuple[str, Path, Path, dict[str, Path]]],
    out: Path,
    label_names: dict[int, str],
    scores: dict[str, dict[str, float]],
) -> None:
    """Draw one row a case (image, truth, one panel a method) and write it to the PNG ``out``.

    Each row is (case, image file, truth file, prediction file by method) and shows the axial slice with the
    most foreground in the truth. ``label_names`` maps label values to names; value 0 is not drawn. The mean
    Dice ``scores[method][case]`` stands over each method's panel. A method without a prediction for a case
    leaves its panel empty.
    """
    if not rows:
        raise LimitedError("the comparison picture needs at least one case")
    methods = list(dict.fromkeys(method for row in rows for method in row[3]))
    values = sorted(value for value in label_names if value != 0)
    colours = {value: COLOURS[i % len(COLOURS)] for i, value in enumerate(values)}
    columns = 2 + len(methods)
    figure = Figure(figsize=(2.3 * columns, 2.75 * len(rows) + 0.5), layout=ConstrainedLayoutEngine(h_pad=0.1))
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for line, (case, image_file, truth_file, predictions) in zip(panels, rows, strict=True):
        image, spacing = _read(image_file)
        truth, _ = _read(truth_file)
        if truth.shape != image.shape:
            raise LimitedError(f"{truth_file} has shape {truth.shape}, but {image_file} has {image.shape}")
        z = int(np.isin(truth, values).sum(axis=(1, 2)).argmax())
        aspect = spacing[1] / spacing[0]
        for axes in line:
            axes.set_axis_off()
        _show_image(line[0], image[z], aspect)
        line[0].set_title(f"{case}\nslice {z}", fontsize=9)
        _show_image(line[1], image[z], aspect)
        _show_labels(line[1], truth[z], colours, aspect)
        line[1].set_title("truth\n", fontsize=9)
        for axes, method in zip(line[2:], methods, strict=True):
            if method not in predictions:
                axes.set_title(f"{method}\nno prediction", fontsize=9)
                continue
            predicted, _ = _read(predictions[method])
            if predicted.shape != image.shape:
                raise LimitedError(
                    f"{predictions[method]} has shape {predicted.shape}, but {image_file} has {image.shape}"
                )
            _show_image(axes, image[z], aspect)
            _show_labels(axes, predicted[z], colours, aspect)
            axes.set_title(_method_title(method, scores.get(method, {}).get(case)), fontsize=9)
    handles = [Patch(fc=(*_rgb(c), _ALPHA), ec=c, label=label_names[v]) for v, c in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=max(1, len(handles)), frameon=False, fontsize=10)
    _save(figure, Path(out))
