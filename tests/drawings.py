"""A small dataset, and label files for it as people's programs write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import SimpleITK as sitk

from nnunet_limited.datasets.import_labels import import_labels
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.datasets.request import ImportRequest

SHAPE = (6, 10, 12)  # z, y, x
IGNORE = 3
SPACING, ORIGIN, DIRECTION = (1.5, 2.0, 5.0), (-20.0, 30.0, 7.0), (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
NAMES = {1: "liver", 2: "tumour", 9: "background"}


def on_grid(array: np.ndarray, start: tuple[int, ...] = (0, 0, 0)) -> sitk.Image:
    """Return an image on the dataset's grid, whose first voxel is that at ``start`` (z, y, x)."""
    grid = sitk.Image(SHAPE[::-1], sitk.sitkUInt8)
    grid.SetSpacing(SPACING)
    grid.SetOrigin(ORIGIN)
    grid.SetDirection(DIRECTION)
    image = sitk.GetImageFromArray(array, isVector=array.ndim == 4)
    image.SetSpacing(SPACING)
    image.SetDirection(DIRECTION)
    image.SetOrigin(grid.TransformIndexToPhysicalPoint(start[::-1]))
    return image


def dataset(root: Path, dense: str = "", **description: Any) -> Path:
    """Write a dataset of the scans a, b and c; those named in ``dense`` have a label of all classes."""
    folder = root / "raw" / "Dataset990_Scans"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for case in "abc":
        image = np.random.RandomState(ord(case)).normal(size=SHAPE).astype(np.float32)
        sitk.WriteImage(on_grid(image), str(folder / "imagesTr" / f"{case}_0000.nii.gz"))
    for case in dense:
        label = np.where(strokes() == 9, 0, strokes()).astype(np.uint8)
        sitk.WriteImage(on_grid(label), str(folder / "labelsTr" / f"{case}.nii.gz"))
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "tumour": 2}, "numTraining": 3}
    content |= {"file_ending": ".nii.gz", **description}
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    (root / "drawn").mkdir()
    return folder


def strokes(open_value: int = 0) -> np.ndarray:
    """Return strokes of 1, 2 and of background (9); the rest is ``open_value``."""
    label = np.full(SHAPE, open_value, np.uint8)
    label[1, 2:4, 2:5], label[1, 5, 5:7], label[3, 7:9, 1] = 9, 1, 2
    return label


def right() -> np.ndarray:
    """Return the label that the strokes mean."""
    return meant(strokes())


def meant(drawn: np.ndarray) -> np.ndarray:
    """Return the label that a drawing means: 0 is nothing, 9 is background."""
    return np.select([drawn == 9, drawn == 0], [0, IGNORE], drawn.astype(int))


def segmentation(file: Path, image: sitk.Image, names: dict[int, str], **more: str) -> None:
    """Write an image as 3D Slicer does, with a segment for each of its values."""
    for number, (value, name) in enumerate(names.items()):
        for key, text in (("LabelValue", value), ("Layer", 0), ("Name", name), ("ID", f"Segment_{number + 1}")):
            image.SetMetaData(f"Segment{number}_{key}", str(text))
    for key, text in more.items():
        image.SetMetaData(key, text)
    sitk.WriteImage(image, str(file), True)


def by_pynrrd(file: Path, array: np.ndarray, fields: dict[str, str], start: tuple[int, ...] = (0, 0, 0)) -> None:
    """Write an array (z, y, x) or (z, y, x, component) with pynrrd, on the grid of the dataset."""
    turn = np.reshape(DIRECTION, (3, 3)) * SPACING
    directions = [*turn.T.tolist()]
    header: dict[str, Any] = {"space": "left-posterior-superior", "encoding": "gzip", **fields}
    header["space origin"] = (np.array(ORIGIN) + turn @ np.array(start[::-1])).tolist()
    header["kinds"] = ["domain"] * 3
    if array.ndim == 4:
        array = np.moveaxis(array, -1, 3)
        directions, header["kinds"] = [[np.nan] * 3, *directions], ["list", *header["kinds"]]
        array = array.transpose(3, 2, 1, 0)
    else:
        array = array.transpose(2, 1, 0)
    header["space directions"] = directions
    nrrd.write(str(file), array, header)


def imported(root: Path, case: str, unlabeled: int | None = 0, background: int = 9, **request: Any) -> np.ndarray:
    """Import the label files in ``drawn/`` and return the label of a case."""
    if not {"boxes", "points"} & set(request):
        request |= {"labels": root / "drawn", "unlabeled": unlabeled, "background": background}
    import_labels(ImportRequest(dataset="990", out="Dataset991_Sparse", **request), 1)
    return sitk.GetArrayFromImage(sitk.ReadImage(str(RawDataset.load("991").cases[case].label)))
