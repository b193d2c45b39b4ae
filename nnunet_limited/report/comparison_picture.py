"""One figure that shows cases side by side: image, truth, and what each method predicted."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from nnunet_limited.errors import LimitedError
from nnunet_limited.report.overlays import TINT, colours_of, save_png, show_image, show_labels
from nnunet_limited.util.files import replacing

Scores = Mapping[str, Mapping[str, float]]  # by method and case


@dataclass(frozen=True)
class CaseFiles:
    """The files of a case: its image, its true labels, and the prediction of each method."""

    case: str
    image: Path
    truth: Path
    predictions: Mapping[str, Path]


def comparison_picture(rows: Sequence[CaseFiles], out: Path, label_names: Mapping[int, str], scores: Scores) -> None:
    """Draw one row per case (image, truth, one panel per method) and write it to the PNG ``out``.

    A row shows the axial slice with the most foreground in the truth. ``label_names`` maps label values to names; value
    0 is not drawn. Each method's panel has its mean Dice ``scores[method][case]`` as title. A method without a
    prediction for a case leaves its panel empty. Raises LimitedError if a file does not exist or has another shape.
    """
    if not rows:
        raise LimitedError("the comparison picture needs at least one case")
    methods = list(dict.fromkeys(method for row in rows for method in row.predictions))
    classes = {name: [value] for value, name in sorted(label_names.items()) if value != 0}
    columns = 2 + len(methods)
    figure = Figure(figsize=(2.3 * columns, 2.75 * len(rows) + 0.5), layout=ConstrainedLayoutEngine(h_pad=0.1))
    panels = figure.subplots(len(rows), columns, squeeze=False)
    for line, row in zip(panels, rows, strict=True):
        _draw_row(line, row, methods, classes, scores)
    handles = [Patch(fc=(colour, TINT), ec=colour, label=name) for name, colour in colours_of(list(classes)).items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=max(1, len(handles)), frameon=False, fontsize=10)
    with replacing(out) as temporary:
        save_png(figure, temporary, dpi=120)


def _draw_row(
    line: np.ndarray, row: CaseFiles, methods: list[str], classes: dict[str, list[int]], scores: Scores
) -> None:
    image, spacing = _read(row.image)
    truth = _read_labels(row.truth, row.image, image.shape)
    predicted = {method: _read_labels(file, row.image, image.shape) for method, file in row.predictions.items()}
    z = int(np.isin(truth, [value for values in classes.values() for value in values]).sum(axis=(1, 2)).argmax())
    titles = [f"{row.case}\nslice {z}", "truth\n"]
    for method in methods:
        score = scores.get(method, {}).get(row.case, math.nan)
        shown = "not scored" if math.isnan(score) else f"Dice {score:.3f}"
        titles.append(f"{method}\n{shown if method in predicted else 'no prediction'}")
    for axes, title, labels in zip(
        line, titles, [np.zeros_like(truth), truth, *map(predicted.get, methods)], strict=True
    ):
        axes.set_axis_off()
        axes.set_title(title, fontsize=9)
        if labels is not None:
            show_image(axes, image[z], spacing[1] / spacing[0])
            show_labels(axes, labels[z], classes)


def _read(path: Path) -> tuple[np.ndarray, tuple[float, ...]]:
    """Return the voxels as (z, y, x) and the spacing as (x, y, z)."""
    if not path.is_file():
        raise LimitedError(f"{path} does not exist; the comparison picture needs it")
    image = sitk.ReadImage(str(path))
    if image.GetDimension() != 3:
        raise LimitedError(f"{path} has {image.GetDimension()} dimensions; the comparison picture needs 3D images")
    return sitk.GetArrayFromImage(image), image.GetSpacing()


def _read_labels(path: Path, image: Path, shape: tuple[int, ...]) -> np.ndarray:
    labels, _ = _read(path)
    if labels.shape != shape:
        raise LimitedError(f"{path} has shape {labels.shape}, but {image} has {shape}")
    return labels
