"""One figure that shows cases side by side: image, truth, and what each method predicted."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from nnunet_limited.errors import LimitedError
from nnunet_limited.report.overlays import TINT, colours_of, show_image, show_labels
from nnunet_limited.util.files import replacing


def _read(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """The voxels as (z, y, x) and the spacing as (x, y, z)."""
    if not Path(path).is_file():
        raise LimitedError(f"{path} does not exist: the comparison picture needs it")
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    if array.ndim != 3:
        raise LimitedError(f"{path} has {array.ndim} dimensions: the comparison picture needs 3D images")
    return array, image.GetSpacing()


def _method_title(method: str, score: float | None) -> str:
    shown = "not scored" if score is None or math.isnan(score) else f"Dice {score:.3f}"
    return f"{method}\n{shown}"


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
    classes = {label_names[value]: [value] for value in values}
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
        show_image(line[0], image[z], aspect)
        line[0].set_title(f"{case}\nslice {z}", fontsize=9)
        show_image(line[1], image[z], aspect)
        show_labels(line[1], truth[z], classes)
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
            show_image(axes, image[z], aspect)
            show_labels(axes, predicted[z], classes)
            axes.set_title(_method_title(method, scores.get(method, {}).get(case)), fontsize=9)
    handles = [Patch(fc=(colour, TINT), ec=colour, label=name) for name, colour in colours_of(list(classes)).items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=max(1, len(handles)), frameon=False, fontsize=10)
    with replacing(out) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
