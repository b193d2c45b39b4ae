"""The pictures of a comparison study."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.host.images import reader_for
from nnunet_limited.report.figures import Picture, picture, styles
from nnunet_limited.report.overlays import COLOURS, colours_of, show_image, show_labels

LOGGED = {
    "training loss": "train_losses",
    "unsupervised loss": "unsupervised_losses",
    "its weight": "unsupervised_weights",
    "Dice of pseudo-labels": "pseudo_label_dice",
}


def learning_curves(
    title: str, curves: Mapping[str, pd.DataFrame], methods: Sequence[str], upper: float | None, label: str
) -> Picture:
    """Draw score against labelled cases; each curve has columns ``labeled_cases``, ``mean`` and ``sd``."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    texts = []
    for method, curve in curves.items():
        style = styles(methods)[method]
        axes.plot(curve["labeled_cases"], curve["mean"], label=method, **style)
        low, high = curve["mean"] - curve["sd"], curve["mean"] + curve["sd"]
        axes.fill_between(curve["labeled_cases"], low, high, color=style["color"], alpha=0.15, linewidth=0)
        points = (f"{m:.3f} at {n:.0f}" for n, m in zip(curve["labeled_cases"], curve["mean"], strict=True))
        texts.append(f"{method}: {', '.join(points)}")
    if upper is not None:
        axes.axhline(upper, color="black", linestyle="--", linewidth=1, label="baseline, all labels")
        texts.append(f"baseline with all labels: {upper:.3f}")
    axes.set_xscale("log", base=2)
    sizes = sorted({round(n) for curve in curves.values() for n in curve["labeled_cases"]})
    axes.set_xticks(sizes, [str(n) for n in sizes])
    axes.minorticks_off()
    axes.set(xlabel="labelled cases", ylabel=label)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=9)
    caption = f"{title}: {label} against labelled cases, mean and ± sd over seeds."
    return picture(figure, caption, f"Learning curves. {'; '.join(texts)}.")


def paired(title: str, baseline: str, tables: Mapping[str, tuple[pd.Series, pd.Series]], label: str) -> Picture:
    """Draw each case's score with a method against that with the baseline, both means over seeds, a panel a method."""
    columns = min(3, len(tables))
    rows = -(-len(tables) // columns)
    figure = Figure(figsize=(3 * columns + 0.6, 3 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    values = pd.concat([series for pair in tables.values() for series in pair])
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or 0.05
    texts = []
    for axes, (method, (mine, theirs)) in zip(panels, tables.items(), strict=False):
        axes.axline((low, low), slope=1, color="gray", linewidth=1)
        axes.scatter(theirs, mine, s=14, alpha=0.7, color=COLOURS[-1])
        axes.set_title(method, fontsize=10)
        limits = (low - margin, high + margin)
        axes.set(xlim=limits, ylim=limits, aspect="equal", xlabel=baseline)
        texts.append(f"{method} is higher in {int((mine > theirs).sum())} of {len(mine)} cases")
    for axes in panels[len(tables) :]:
        axes.set_axis_off()
    panels[0].set_ylabel(f"{label}, method")
    caption = f"{title}: {label} of each case, method against {baseline}; above the line the method is higher."
    return picture(figure, caption, f"A dot for each case. {'; '.join(texts)}.")


def training_curves(title: str, curves: Mapping[str, Mapping[str, Sequence[float]]], methods: Sequence[str]) -> Picture:
    """Draw what each method logged per epoch: loss, unsupervised loss with its weight, Dice of pseudo-labels."""
    shown = {name: key for name, key in LOGGED.items() if any(_finite(log.get(key)) for log in curves.values())}
    figure = Figure(figsize=(7, 1.7 * len(shown) + 0.6), layout="constrained")
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    colours = styles(methods)
    texts = []
    for axes, (name, key) in zip(panels, shown.items(), strict=True):
        for method, log in curves.items():
            if _finite(log.get(key)):
                axes.plot(range(1, len(log[key]) + 1), log[key], label=method, color=colours[method]["color"])
                texts.append(f"{method}, {name}: {log[key][0]:.3f} to {log[key][-1]:.3f}")
        axes.set_ylabel(name, fontsize=9)
        axes.grid(alpha=0.3)
    panels[0].legend(frameon=False, fontsize=9, ncols=2)
    panels[-1].set_xlabel("epoch")
    caption = f"{title}: values logged for each epoch."
    return picture(figure, caption, f"Training curves. {'; '.join(texts)}.")


def _finite(values: Sequence[float] | None) -> bool:
    return bool(values) and bool(np.isfinite(np.asarray(values, float)).any())


def overlay(
    title: str, raw: RawDataset, image: Path, truth: Path, predictions: Mapping[str, Path], text: str
) -> Picture:
    """Draw a case's image, truth, and predictions on the slice where the predictions differ most from the truth.

    Of several channels in the file of the image, the first is shown.
    """
    reader, values = reader_for(raw.dataset_json, image)(), raw.description.classes
    volumes, properties = reader.read_images([str(image)])
    volume, spacing = volumes[0], properties["spacing"]
    labels, *predicted = (reader.read_seg(str(file))[0][0] for file in (truth, *predictions.values()))
    wrong = sum((p != labels).reshape(len(labels), -1).sum(axis=1) for p in predicted)
    z = int(np.argmax(wrong)) if wrong.any() else int((labels > 0).reshape(len(labels), -1).sum(axis=1).argmax())
    figure = Figure(figsize=(2.6 * (2 + len(predicted)), 3.1), layout="constrained")
    panels = figure.subplots(1, 2 + len(predicted))
    shown = [np.zeros_like(labels), labels, *predicted]
    for axes, name, drawn in zip(panels, ["image", "truth", *predictions], shown, strict=True):
        show_image(axes, volume[z], spacing[-2] / spacing[-1])
        axes.set_title(name, fontsize=9)
        show_labels(axes, drawn[z], values, tint=0)
    for region, colour in colours_of(list(values)).items():
        panels[0].plot([], [], color=colour, label=region)
    figure.legend(loc="outside lower center", ncols=max(1, len(values)), frameon=False, fontsize=9)
    return picture(figure, f"{title}, slice {z}.", f"Outlines on slice {z}. {text}")
