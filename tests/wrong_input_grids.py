"""Wrong input: labels and predictions on another grid or of other values than they should be, and damaged images."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from wrong_input import CASES, NAME, PLAN, Row, World, nothing

VIEW = "Dataset991_View"
SPARSIFY = f"sparsify 990 --kind points --out {VIEW}"
IMPORT = f"import-labels 990 --labels {{root}}/drawn --unlabeled 0 --background 9 --out {VIEW}"
EVALUATE = f"evaluate {{root}}/predicted {{root}}/raw/{NAME}/labelsTr"
MIRRORED = (-1, 0, 0, 0, -1, 0, 0, 0, 1)
TURNED = (0, 1, 0, 0, 0, 1, 1, 0, 0)


def label_of(w: World) -> Path:
    return w.raw / f"labelsTr/{w.labelled()}.nii.gz"


def image_of(w: World) -> Path:
    """Return an image of a case that no fold of the split ``few`` labels."""
    split = json.loads((w.preprocessed / "splits_few.json").read_text(encoding="utf-8"))
    return w.raw / f"imagesTr/{split[0]['unlabeled'][0]}_0000.nii.gz"


def moved(file: Path, **values: tuple[float, ...]) -> None:
    image = sitk.ReadImage(str(file))
    for name, value in values.items():
        getattr(image, f"Set{name}")(value)
    sitk.WriteImage(image, str(file))


def changed(file: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Change the values of a file, which keeps its position."""
    image = sitk.ReadImage(str(file))
    made = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(image)))
    made.CopyInformation(image)
    sitk.WriteImage(made, str(file))


def with_value(file: Path, value: float, kind: type) -> None:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.astype(kind)
        array[8, 8, 8] = value
        return array

    changed(file, change)


def cut(file: Path, missing: int = 12) -> None:
    file.write_bytes(file.read_bytes()[:-missing])


def shortened(file: Path) -> None:
    """Leave a whole compressed stream of an image that is not whole."""
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:-256]))


def several(file: Path, kind: Callable[..., sitk.Image] = sitk.Compose) -> None:
    image = sitk.ReadImage(str(file))
    sitk.WriteImage(kind([image, image]), str(file))


def tiny_spacing(w: World) -> None:
    for channel in range(2):
        moved(image_of(w).with_name(image_of(w).name.replace("_0000", f"_{channel:04d}")), Spacing=(1e-9, 1e-9, 1e-9))


def all_ignored(w: World) -> None:
    w.dataset_json(labels={"background": 0, "tumour": 1, "core": 2, "ignore": 3})
    for case in CASES:
        w.label(case, 3)


def predicted(w: World, change: Callable[[Path], object] = nothing) -> Path:
    """Copy the labels to a folder of predictions, and ``change`` the first file."""
    (w.root / "predicted").mkdir()
    for file in sorted((w.raw / "labelsTr").iterdir()):
        (w.root / "predicted" / file.name).write_bytes(file.read_bytes())
    change(w.root / f"predicted/{CASES[0]}.nii.gz")
    return w.root / f"predicted/{CASES[0]}.nii.gz"


def drawn(w: World, change: Callable[[Path], object] = nothing) -> None:
    (w.root / "drawn").mkdir()
    file = w.root / f"drawn/{CASES[0]}.nii.gz"
    file.write_bytes((w.raw / f"labelsTr/{CASES[0]}.nii.gz").read_bytes())
    change(file)


TABLE: list[Row] = [
    # ---- plan: the grid of a label
    (
        "mirrored label",
        PLAN,
        ("labelsTr", "direction", "grid_of_image"),
        lambda w: moved(label_of(w), Direction=MIRRORED),
    ),
    ("turned label", PLAN, ("labelsTr", "direction", "voxels apart"), lambda w: moved(label_of(w), Direction=TURNED)),
    ("shifted label", PLAN, ("origin [500.0", "its image [0.0"), lambda w: moved(label_of(w), Origin=(500, 0, 0))),
    ("label two voxels off", PLAN, ("origin", "2 voxels apart"), lambda w: moved(label_of(w), Origin=(0, 0, 2))),
    ("grid_of_image is text", PLAN, ("{raw}/dataset.json", "'yes'"), lambda w: w.dataset_json(grid_of_image="yes")),
    # ---- plan: values
    ("label with half a value", PLAN, (".nii.gz", "value 0.5"), lambda w: with_value(label_of(w), 0.5, np.float32)),
    ("label with nearly one", PLAN, ("0.99999994",), lambda w: with_value(label_of(w), 0.99999994, np.float32)),
    ("negative label", PLAN, (".nii.gz", "value -1"), lambda w: with_value(label_of(w), -1, np.int16)),
    ("label beyond 16 bits", PLAN, ("value 65537",), lambda w: with_value(label_of(w), 65537, np.uint32)),
    (
        "label is infinite",
        PLAN,
        ("value inf",),
        lambda w: (
            with_value(label_of(w), np.inf, np.float32),
            w.dataset_json(overwrite_image_reader_writer="NibabelIO"),
        ),
    ),
    ("nothing is annotated", PLAN, ("labelsTr/p", "no annotated voxel", "fold 0"), all_ignored),
    # ---- plan: channels
    ("label of vectors", PLAN, ("labelsTr", "2 components", "one channel"), lambda w: several(label_of(w))),
    ("label of two times", PLAN, ("labelsTr", "one channel"), lambda w: several(label_of(w), sitk.JoinSeries)),
    ("image of vectors", PLAN, ("imagesTr", "2 components"), lambda w: several(image_of(w))),
    (
        "image of two times",
        PLAN,
        ("imagesTr", "2 channels", "declares 1"),
        lambda w: (
            w.dataset_json(channel_names={"0": "T1"}),
            [file.unlink() for file in (w.raw / "imagesTr").glob("*_0001.nii.gz")],
            several(image_of(w), sitk.JoinSeries),
        ),
    ),
    (
        "one file for two channels",
        "split 990 --name x",
        ("{raw}", "1 image files", "2 channels"),
        lambda w: [file.unlink() for file in (w.raw / "imagesTr").glob("*_0001.nii.gz")],
    ),
    # ---- plan: damaged and extreme files
    ("label ends early", PLAN, ("labelsTr", "ends early"), lambda w: cut(label_of(w))),
    ("label is short", PLAN, ("labelsTr", "bytes of its image"), lambda w: shortened(label_of(w))),
    ("image ends early", PLAN, ("imagesTr", "ends early"), lambda w: cut(image_of(w), 3000)),
    ("image is short", PLAN, ("imagesTr", "bytes of its image"), lambda w: shortened(image_of(w))),
    ("values overflow", PLAN, ("imagesTr", "1e+38", "overflow"), lambda w: with_value(image_of(w), 1e38, np.float32)),
    (
        "colours of an MRI",
        PLAN,
        ("'rgb_to_0_1'", "0 to 255"),
        lambda w: (
            w.dataset_json(channel_names={"0": "rgb_to_0_1", "1": "T2"}),
            with_value(image_of(w), -3, np.float32),
        ),
    ),
    ("spacing of nothing", PLAN, ("imagesTr", "spacing [1e-09"), tiny_spacing),
    # ---- sparsify and import-labels
    ("sparsify a mirrored label", SPARSIFY, ("direction",), lambda w: moved(label_of(w), Direction=MIRRORED)),
    ("sparsify half a label", SPARSIFY, ("ends early",), lambda w: cut(label_of(w))),
    ("sparsify another value", SPARSIFY, ("value 7", "0, 1, 2"), lambda w: with_value(label_of(w), 7, np.uint8)),
    ("drawing ends early", IMPORT, ("{root}/drawn/p0_a", "ends early"), lambda w: drawn(w, cut)),
    (
        "drawing elsewhere",
        IMPORT,
        ("{root}/drawn/p0_a", "origin", "grid_of_image"),
        lambda w: drawn(w, lambda file: moved(file, Origin=(500, 0, 0))),
    ),
    (
        "drawing beyond 16 bits",
        IMPORT,
        ("{root}/drawn/p0_a", "65537"),
        lambda w: drawn(w, lambda file: with_value(file, 65537, np.uint32)),
    ),
    # ---- evaluate
    ("prediction is missing", EVALUATE, ("1 of 6", "p0_a", "--allow-missing"), lambda w: predicted(w).unlink()),
    (
        "prediction elsewhere",
        EVALUATE,
        ("{root}/predicted/p0_a", "origin", "--grid-of-image"),
        lambda w: predicted(w, lambda file: moved(file, Origin=(0, 9, 0))),
    ),
    (
        "prediction of 0 and 255",
        EVALUATE,
        ("{root}/predicted/p0_a", "255", "0, 1, 2"),
        lambda w: predicted(w, lambda file: changed(file, lambda a: 255 * (a > 0).astype(np.uint8))),
    ),
    ("prediction ends early", EVALUATE, ("{root}/predicted/p0_a", "ends early"), lambda w: predicted(w, cut)),
    ("prediction of vectors", EVALUATE, ("{root}/predicted/p0_a", "one channel"), lambda w: predicted(w, several)),
    ("label ends early in evaluate", EVALUATE, ("labelsTr", "ends early"), lambda w: (predicted(w), cut(label_of(w)))),
    (
        "prediction with another ending",
        EVALUATE,
        ("{root}/predicted/p0_a.nii ", ".nii.gz"),
        lambda w: predicted(w, lambda file: file.rename(file.with_suffix(""))),
    ),
]
