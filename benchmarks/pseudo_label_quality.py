"""How good are the pseudo-labels of a study? Compared with the labels that the runs did not see.

For every set of pseudo-labels below the study's nnUNet_preprocessed: the Dice of the whole pseudo-label and of what is
kept of it, how much is kept, and the calibration: the mean confidence of kept foreground beside the part of it that is
right. Writes table.csv and table.md into --out.

    nnUNet_raw=RAW python benchmarks/pseudo_label_quality.py STUDY --out docs/results/NAME
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import SimpleITK as sitk

from nnunet_limited.datasets.raw import RawDataset

COLUMNS = ["split", "sources", "round", "cases", "coverage", "foreground coverage"]
COLUMNS += ["Dice", "Dice of kept", "confidence", "right", "seconds a case"]


def read(file: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def dice(label: np.ndarray, truth: np.ndarray, where: np.ndarray) -> dict[int, float]:
    """Return the Dice of each class that one of the two has within ``where``."""
    label, truth = label[where], truth[where]
    classes = sorted({*np.unique(label), *np.unique(truth)} - {0})
    return {
        int(c): 2 * float(((label == c) & (truth == c)).sum()) / float((label == c).sum() + (truth == c).sum())
        for c in classes
    }


def quality(folder: Path, raw: RawDataset) -> dict[str, Any]:
    """Return a row for the pseudo-labels in ``folder``."""
    record = json.loads((folder / "pseudo_labels.json").read_text(encoding="utf-8"))
    rows, whole, within = [], [], []
    for case, about in record["cases"].items():
        label, confidence = (read(folder / f"{case}{end}{record['file_ending']}") for end in ("", "_confidence"))
        truth = read(Path(str(raw.cases[case].label)))
        kept = confidence > 0
        foreground = kept & (label > 0)
        whole.append(dice(label, truth, np.ones_like(kept)))
        within.append(dice(label, truth, kept))
        rows.append(
            {
                "coverage": kept.mean(),
                "foreground coverage": kept[truth > 0].mean(),
                "confidence": confidence[foreground].mean() / 100 if foreground.any() else np.nan,
                "right": (label == truth)[foreground].mean() if foreground.any() else np.nan,
                "seconds a case": about.get("seconds", {}).get("total", np.nan),
            }
        )
    sources = record.get("sources") or ["student"]
    shown = ", ".join(source.split(":")[0] if source.partition(":")[1] else source for source in sources)
    number = 1 if record["previous"] is None else 2
    # nnU-Net's mean Dice: of each class over its cases, then over the classes
    scores = {"Dice": pd.DataFrame(whole).mean().mean(), "Dice of kept": pd.DataFrame(within).mean().mean()}
    mean = {**pd.DataFrame(rows).mean(), **scores}
    mean = {name: round(float(value), 3) for name, value in mean.items()}
    return {"split": record["split"], "sources": shown, "round": number, "cases": len(rows), **mean}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = []
    for dataset in sorted((arguments.study / "preprocessed").glob("Dataset*")):
        for file in sorted(dataset.glob("pseudo_labels/*/*/*/pseudo_labels.json")):
            rows.append(quality(file.parent, RawDataset.load(dataset.name)))
    if not rows:
        print(f"{arguments.study} has no pseudo-labels; run the study first", file=sys.stderr)
        return 1
    table = pd.DataFrame(rows)[COLUMNS].sort_values(["split", "round", "sources"])
    arguments.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(arguments.out / "table.csv", index=False)
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False)]
    (arguments.out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"wrote {arguments.out / 'table.csv'} and table.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
