"""Wrong input: odd and damaged files, labels that are no files, published splits and patterns of patients."""

from __future__ import annotations

import gzip
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from wrong_input import CASES, PLAN, Row, World
from wrong_input_grids import IMPORT, SPARSIFY, drawn, image_of, label_of, moved
from wrong_input_patients import LOOP, SPLIT, free, listed, loop, study

PUBLISHED = f"{SPLIT} --published {{root}}/p.json --labeled 2"
COPY = PLAN.replace("few", "all")
STUDY = "study run {root}/s.yaml --out {root}/out --gpus 0"


def header(file: Path, at: int, kind: str, value: float) -> None:
    """Write a number into the header of a compressed NIfTI file."""
    content = bytearray(gzip.decompress(file.read_bytes()))
    struct.pack_into(kind, content, at, value)
    file.write_bytes(gzip.compress(bytes(content)))


def unpacked(file: Path) -> None:
    """Leave the uncompressed first half of a file under its name."""
    content = gzip.decompress(file.read_bytes())
    file.write_bytes(content[: len(content) // 2])


def piped(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def replaced_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def linked(file: Path) -> None:
    file.unlink()
    file.symlink_to("gone.nii.gz")


def half_a_tiff(w: World) -> None:
    """Save all files as TIFF, and cut the label of a labelled case."""
    for file in [*w.raw.glob("*Tr/*.nii.gz")]:
        tifffile.imwrite(file.with_name(file.name.replace(".nii.gz", ".tif")), np.ones((16, 16, 16), np.uint8))
        file.unlink()
    w.dataset_json(file_ending=".tif")
    label = w.raw / f"labelsTr/{w.labelled()}.tif"
    label.write_bytes(label.read_bytes()[:2000])


def copied(w: World) -> None:
    """Put the image of a validated case into imagesUn, elsewhere in space, and make a split of all."""
    (w.raw / "imagesUn").mkdir()
    for channel in range(2):
        file = w.raw / f"imagesUn/u_{channel:04d}.nii.gz"
        file.write_bytes((w.raw / f"imagesTr/{CASES[0]}_{channel:04d}.nii.gz").read_bytes())
        moved(file, Origin=(9.0, 5.0, 0.0))
    assert w.run("split 990 --name all") == 0


def published(**content: Any) -> Callable[[World], None]:
    def write(w: World) -> None:
        free(w)
        w.text("p.json", json.dumps({"train": CASES[:4], "val": CASES[4:], **content}))

    return write


def own_partition(w: World) -> None:
    """Move the fold partition to the raw dataset, from where it is adopted."""
    (w.preprocessed / "splits_final.json").rename(w.raw / "splits_final.json")


TABLE: list[Row] = [
    # ---- files
    ("image of 0 bytes", PLAN, ("imagesTr", "is empty (0 bytes)"), lambda w: image_of(w).write_bytes(b"")),
    ("label of 0 bytes", PLAN, ("labelsTr", "is empty (0 bytes)"), lambda w: label_of(w).write_bytes(b"")),
    (
        "half a header",
        PLAN,
        ("imagesTr", "as NIfTI-1"),
        lambda w: image_of(w).write_bytes(gzip.compress(b"\x5c\x01")),
    ),
    ("web page", PLAN, ("imagesTr", "as NIfTI-1"), lambda w: image_of(w).write_bytes(b"<!DOCTYPE html>")),
    ("image without voxels", PLAN, ("imagesTr", "no voxels"), lambda w: header(image_of(w), 42, "<h", -16)),
    ("label of more slices", PLAN, ("labelsTr", "bytes of its image"), lambda w: header(label_of(w), 46, "<h", 17)),
    ("uncompressed half", PLAN, ("imagesTr", "bytes of its image"), lambda w: unpacked(image_of(w))),
    ("half a TIFF", PLAN, ("labelsTr", ".tif", "cannot be read"), half_a_tiff),
    (
        "empty drawing",
        IMPORT,
        ("{root}/drawn/p0_a", "is empty"),
        lambda w: drawn(w, lambda file: file.write_bytes(b"")),
    ),
    # ---- copies
    ("copy with another header", COPY, ("{raw}/imagesUn/u_0000.nii.gz", "case p"), copied),
    # ---- labels that are no files
    (
        "label is a folder",
        SPLIT,
        ("{raw}/labelsTr/p1_b.nii.gz is a folder",),
        lambda w: replaced_by_folder(w.raw / "labelsTr/p1_b.nii.gz"),
    ),
    ("label to train on is a folder", PLAN, ("labelsTr", "is a folder"), lambda w: replaced_by_folder(label_of(w))),
    ("label to train on is a pipe", PLAN, ("labelsTr", "a pipe", "'few'"), lambda w: piped(label_of(w))),
    ("label to sparsify is gone", SPARSIFY, ("labelsTr", "gone.nii.gz"), lambda w: linked(label_of(w))),
    ("label of the oracle is gone", LOOP, ("labelsTr", "gone.nii.gz"), lambda w: (linked(label_of(w)), loop()(w))),
    ("label of a study is gone", STUDY, ("labelsTr", "gone.nii.gz"), lambda w: (linked(label_of(w)), study()(w))),
    # ---- published splits
    ("published validation is text", PUBLISHED, ("{root}/p.json", "'val' is 'p2_a'"), published(val="p2_a")),
    ("published validation is a mapping", PUBLISHED, ("{root}/p.json", "'val'"), published(val={"p2_a": 1})),
    ("published patients are text", PUBLISHED, ("{root}/p.json", "'p0'"), published(labelled_patients="p0")),
    ("published patients of text", PUBLISHED, ("{root}/p.json", "'p0'"), published(labelled_patients={"2": "p0"})),
    ("published case twice", PUBLISHED, ("{root}/p.json", "'p0_a'", "twice"), published(train=[CASES[0], *CASES[:4]])),
    ("published and a seed", f"{PUBLISHED} --seed 3", ("--seed 3", "--published"), published()),
    (
        "published validation tears a patient",
        f"{PUBLISHED} --group-by p[0-9]",
        ("{root}/p.json", "trains on 'p0_b'", "validates on 'p0_a'", "--group-by p[0-9]"),
        published(train=CASES[1:4], val=[CASES[0], *CASES[4:]]),
    ),
    (
        "published order tears a patient",
        f"{PUBLISHED.replace('--labeled 2', '--labeled 3')} --group-by p[0-9]",
        ("--labeled 3", "{root}/p.json", "'p1_a' would be labelled", "'p1_b'"),
        published(),
    ),
    ("published split is a folder", PUBLISHED, ("{root}/p.json is no file",), lambda w: (w.root / "p.json").mkdir()),
    (
        "published under a name that is taken",
        PUBLISHED.replace("--name x", "--name few"),
        ("{preprocessed}/splits_few.json", "--replace"),
        published(),
    ),
    # ---- patients
    (
        "two patterns in one",
        f"{SPLIT} --group-by (p[0-9])_([ab])",
        ("2 pairs of parentheses", "(?:…)"),
        free,
    ),
    ("two patterns of a loop", LOOP, ("{root}/s.yaml", "2 pairs of parentheses"), loop(group_by="(p.)_(.)")),
    (
        "every labelled case is a test case",
        f"{SPLIT} --test-cases {{root}}/l",
        ("--test-cases lists every labelled case",),
        lambda w: listed(w, *CASES),
    ),
    (
        "partition of the raw dataset",
        f"{SPLIT} --folds 2",
        ("--folds 2", "{raw}/splits_final.json has 3 folds"),
        own_partition,
    ),
    ("refused before it is adopted", f"{SPLIT} --labeled 50", ("--labeled 50",), own_partition),
]
