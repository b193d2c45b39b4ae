"""Draw docs/how-to/annotations.png: one scan of the phantom with every kind of simulated annotation."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from matplotlib.figure import Figure

from nnunet_limited.annotations.simulate import simulate
from nnunet_limited.datasets.phantom import LABELS, SPACING_XYZ, write_phantom_dataset
from nnunet_limited.report.overlays import COLOURS

IGNORE = len(LABELS)
PANELS: list[tuple[str, str, dict]] = [
    ("scribbles", "scribbles", {}),
    ("scribbles, skeleton", "scribbles", {"style": "skeleton"}),
    ("1 slice (this one)", "slices", {}),
    ("3 orthogonal slices", "orthogonal-slices", {}),
    ("boxes", "boxes", {}),
    ("points", "points", {}),
    ("a patch", "patches", {"size": (8, 48, 48)}),
]


def main() -> None:
    """Draw the picture."""
    with tempfile.TemporaryDirectory() as root:
        folder = write_phantom_dataset(Path(root), training=1, test=0)
        image, label = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(next((folder / name).iterdir()))))
            for name in ("imagesTr", "labelsTr")
        )
    spacing = SPACING_XYZ[::-1]
    one_slice = simulate("slices", label, IGNORE, "phantom", 0, spacing, {}).label
    z = int(np.flatnonzero((one_slice != IGNORE).any(axis=(1, 2)))[0])
    colours = (COLOURS[3], *COLOURS[:3])  # background is an annotation too
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    axes = figure.subplots(2, 4).flat
    shown = [("dense label", label)]
    shown += [(title, simulate(kind, label, IGNORE, "phantom", 0, spacing, o).label) for title, kind, o in PANELS]
    for axis, (title, drawn) in zip(axes, shown, strict=True):
        middle = z
        if not (drawn[z] != IGNORE).any() or title in ("points", "a patch"):  # the slice that shows most of it
            middle = int((((drawn != IGNORE) & (drawn > 0)).sum(axis=(1, 2))).argmax())
        axis.imshow(image[middle], cmap="gray", vmin=np.percentile(image, 1), vmax=np.percentile(image, 99.5))
        overlay = np.zeros((*drawn.shape[1:], 4))
        for value, colour in enumerate(colours[:IGNORE]):
            mask = drawn[middle] == value
            strength = 0.35 if value == 0 else 0.85
            overlay[mask] = (*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), strength)
        if title == "dense label":
            overlay[drawn[middle] == 0] = 0
        axis.imshow(overlay, interpolation="nearest")
        axis.set_title(f"{title}\n{100 * (drawn != IGNORE).mean():.3g} % of the voxels")
        axis.set_axis_off()
    figure.savefig("docs/how-to/annotations.png", dpi=90)


if __name__ == "__main__":
    main()
