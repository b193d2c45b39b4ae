"""Files and folders that stand for images, channels of other numbers, and descriptions that mean something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from wrong_input import CASES, NAME, PLAN, Row, World, write
from wrong_input_names import CASE, DESCRIPTION, SPLIT, moved

FIRST = f"labelsTr/{CASE}.nii.gz"
DICOM = b"\0" * 128 + b"DICM"


def renamed(name: str) -> Callable[[World], Any]:
    """Give the label of the first case another name."""
    return moved(FIRST, f"labelsTr/{name}")


def put(name: str, content: bytes = b"") -> Callable[[World], Any]:
    return lambda w: w.text(f"raw/{NAME}/{name}", content)


def in_parts(world: World) -> None:
    """Save each class of the first case as a file of its own."""
    (world.raw / FIRST).unlink()
    for part in ("tumour", "core"):
        world.text(f"raw/{NAME}/labelsTr/{CASE}_{part}.nii.gz", b"")


def scans(folder: str, *channels: int) -> Callable[[World], Any]:
    """Write an unlabelled case with some channels into a folder of the raw dataset."""

    def spoil(world: World) -> None:
        for channel in channels:
            array = np.random.RandomState(channel).normal(size=(16, 16, 16))
            write(world.raw / folder / f"u_{channel:04d}.nii.gz", array)

    return spoil


def described(**changes: Any) -> Callable[[World], Any]:
    return lambda w: w.dataset_json(**changes)


def labels(**changes: Any) -> Callable[[World], Any]:
    return lambda w: w.dataset_json(labels={"background": 0, "tumour": 1, "core": 2, **changes})


TABLE: list[Row] = [
    # ---- what stands for a label that is absent
    ("label is a backup", SPLIT, (f"{CASE}.nii.gz.bak", "only .nii.gz is read"), renamed(f"{CASE}.nii.gz.bak")),
    ("label is a backup of an editor", PLAN, (f"{CASE}.nii.gz~",), renamed(f"{CASE}.nii.gz~")),
    ("label is a second download", SPLIT, (f"{CASE}.nii (1).gz",), renamed(f"{CASE}.nii (1).gz")),
    ("label has lost a dot", SPLIT, (f"{CASE}-nii.gz", "the ending -nii.gz", "rename"), renamed(f"{CASE}-nii.gz")),
    ("label has lost its dots", PLAN, (f"{CASE}niigz", "only .nii.gz is read"), renamed(f"{CASE}niigz")),
    ("label has underscores for dots", SPLIT, (f"{CASE}_nii_gz",), renamed(f"{CASE}_nii_gz")),
    ("label is a segmentation", SPLIT, (f"{CASE}.seg", "only .nii.gz is read"), renamed(f"{CASE}.seg")),
    ("label is a scene", PLAN, (f"{CASE}.mrb", "convert or rename it"), renamed(f"{CASE}.mrb")),
    ("label is encrypted", SPLIT, (f"{CASE}.nii.gz.gpg",), renamed(f"{CASE}.nii.gz.gpg")),
    ("label is in iCloud", SPLIT, (f".{CASE}.nii.gz.icloud",), renamed(f".{CASE}.nii.gz.icloud")),
    ("label is an array", PLAN, (f"{CASE}.npz", "the ending .npz"), renamed(f"{CASE}.npz")),
    ("label without header", SPLIT, (f"{CASE}.raw",), renamed(f"{CASE}.raw")),
    (
        "label in a folder of labels",
        SPLIT,
        (f"{{raw}}/labelsTr/second/{CASE}.nii.gz", "move the file into {raw}/labelsTr"),
        lambda w: ((w.raw / "labelsTr/second").mkdir(), renamed(f"second/{CASE}.nii.gz")(w)),
    ),
    ("label in parts", SPLIT, (f"{CASE}_core.nii.gz", "one of 2 files", f"{CASE}.nii.gz"), in_parts),
    ("label is empty", PLAN, (f"{CASE}.nii.gz", "is empty"), put(FIRST)),
    # ---- images that would be absent
    ("series of DICOM", SPLIT, ("{raw}/imagesUn/s1", "case_0000.nii.gz"), put("imagesUn/s1/I1", DICOM)),
    ("series of DICOM with numbers", PLAN, ("{raw}/imagesTr/s1",), put("imagesTr/s1/1.2.840.113", DICOM)),
    ("series of DICOM with endings", SPLIT, ("{raw}/imagesTr/a/b",), put("imagesTr/a/b/I1.DCM")),
    ("file of DICOM", SPLIT, ("{raw}/imagesTr/IM0001", "is a DICOM file"), put("imagesTr/IM0001", DICOM)),
    (
        "images of a site",
        SPLIT,
        ("{raw}/imagesUn/site/u_0000.nii.gz", "move the file into {raw}/imagesUn"),
        scans("imagesUn/site", 0, 1),
    ),
    ("unlabelled images in another folder", SPLIT, ("{raw}/imagesUnlabeled", "imagesUn"), scans("imagesUnlabeled", 0)),
    ("unlabelled images in a folder of another name", PLAN, ("{raw}/images_UL",), scans("images_UL", 0, 1)),
    # ---- channels
    (
        "channel is left out",
        SPLIT,
        (f"case {CASE}", "0000, 0002", f"case {CASES[1]} has 0000, 0001"),
        moved(f"imagesTr/{CASE}_0001.nii.gz", f"imagesTr/{CASE}_0002.nii.gz"),
    ),
    ("channels count from 1", PLAN, ("case u", "0001, 0002"), scans("imagesUn", 1, 2)),
    ("channel has no name", SPLIT, (DESCRIPTION, "None"), described(channel_names={"0": None, "1": "T2"})),
    ("names for numbers", SPLIT, (DESCRIPTION, "{'0': 'CT'}"), described(channel_names={"CT": "0", "T2": "1"})),
    ("space behind CT", SPLIT, (DESCRIPTION, "'CT '", "space"), described(channel_names={"0": "CT ", "1": "T2"})),
    # ---- dataset.json
    ("two classes of one value", SPLIT, (DESCRIPTION, "'core' and 'edge'", "2"), labels(edge=2)),
    ("two classes of one value as text", PLAN, (DESCRIPTION, "'core' and 'edge'"), labels(edge="2")),
    ("label to ignore has another name", SPLIT, (DESCRIPTION, "'ignore_label'", "'ignore'"), labels(ignore_label=3)),
    ("ignored label", SPLIT, (DESCRIPTION, "'Ignored'", "'ignore'"), labels(Ignored=3)),
    ("label to ignore is 255", SPLIT, (DESCRIPTION, "255", "the next value, 3"), labels(ignore=255)),
    (
        "background has another name",
        PLAN,
        (DESCRIPTION, "'bg'", "that of 'background'"),
        described(labels={"bg": 0, "tumour": 1, "core": 2}),
    ),
    (
        "key of the reader is shortened",
        SPLIT,
        (DESCRIPTION, "'image_reader_writer'", "'overwrite_image_reader_writer'"),
        described(image_reader_writer="NibabelIO"),
    ),
    (
        "key of the reader lacks its end",
        PLAN,
        (DESCRIPTION, "'overwrite_image_reader'"),
        described(overwrite_image_reader="NibabelIO"),
    ),
]
