"""Wrong input: headers and types of image files, and labels of ``zero-shot``, ``absorb`` and ``evaluate``."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from wrong_input import CASES, NAME, PLAN, Row, World, nothing
from wrong_input_drawings import answer
from wrong_input_grids import EVALUATE as COMPARE
from wrong_input_grids import (
    IMPORT,
    MIRRORED,
    TURNED,
    cut,
    drawn,
    image_of,
    label_of,
    moved,
    predicted,
    several,
    shortened,
    with_value,
)
from wrong_input_prompted import SHOT
from wrong_input_queries import ABSORB

ORACLE = f"{ABSORB} --oracle {{root}}/oracle"
PROMPT = SHOT.replace("{root}/out", "{root}/results/out")


def with_nibabel(file: Path, change: Callable[[np.ndarray, np.ndarray], Any], kind: Any = nib.Nifti1Image) -> None:
    """Write a file by nibabel, with the array and the affine that ``change`` returns."""
    old = nib.load(file)
    array, affine = change(np.asarray(old.dataobj), old.affine.copy())
    made = kind(array, affine)
    made.set_sform(affine, 1)
    made.set_qform(None, 0)
    nib.save(made, file)


def sheared(file: Path) -> None:
    def shear(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        affine[0, 1] = 0.3
        return array, affine

    with_nibabel(file, shear)


def stored_spacing(file: Path, *steps: float) -> None:
    content = bytearray(gzip.decompress(file.read_bytes()))
    struct.pack_into("<3f", content, 80, *steps)
    file.write_bytes(gzip.compress(content))


def unplaced(file: Path) -> None:
    """Leave neither a spacing nor a position in the header of a label, and give its images other ones."""
    stored_spacing(file, 0, 0, 0)
    content = bytearray(gzip.decompress(file.read_bytes()))
    struct.pack_into("<2h", content, 252, 0, 0)
    file.write_bytes(gzip.compress(content))
    for image in (file.parents[1] / "raw" / NAME / "imagesTr", file.parents[1] / "imagesTr"):
        for channel in image.glob(f"{file.name.removesuffix('.nii.gz')}_*"):
            moved(channel, Spacing=(2, 2, 2))


def by(reader: str, spoil: Callable[[World], Any]) -> Callable[[World], Any]:
    return lambda w: (spoil(w), w.dataset_json(overwrite_image_reader_writer=reader))


def colours(file: Path) -> None:
    with_nibabel(file, lambda a, f: (np.zeros(a.shape, [(c, "u1") for c in "RGB"]), f))


def first(w: World) -> Path:
    return w.raw / f"labelsTr/{CASES[0]}.nii.gz"


def returned(change: Callable[[Path], Any]) -> Callable[[World], Any]:
    """Let there be an answer whose file is changed."""
    return lambda w: (answer()(w), change(w.root / f"results/round/labels/{CASES[0]}.nii.gz"))


def dense(change: Callable[[Path], Any]) -> Callable[[World], Any]:
    """Let there be a folder of dense labels, of which the first is changed."""

    def spoil(w: World) -> None:
        answer()(w)
        (w.root / "oracle").mkdir()
        for file in (w.raw / "labelsTr").iterdir():
            (w.root / "oracle" / file.name).write_bytes(file.read_bytes())
            change(w.root / "oracle" / file.name)

    return spoil


def one_value(value: float, kind: type) -> Callable[[Path], None]:
    return lambda file: with_value(file, value, kind)


TABLE: list[Row] = [
    # ---- types that readers change
    ("label of no number", PLAN, ("labelsTr", "value nan"), lambda w: with_value(label_of(w), np.nan, np.float32)),
    ("label beyond all", PLAN, ("labelsTr", "value inf"), lambda w: with_value(label_of(w), np.inf, np.float64)),
    ("label below all", "split 990 --name x --labeled 2 --protocol deployment", ("labelsTr", "value -inf"), lambda w: [
        with_value(w.raw / f"labelsTr/{case}.nii.gz", -np.inf, np.float32) for case in CASES]),
    ("label of complex numbers", PLAN, ("labelsTr", "complex"), lambda w: with_nibabel(
        label_of(w), lambda a, f: (a.astype(np.complex64), f))),
    ("image of complex numbers", PLAN, ("imagesTr", "magnitude"), lambda w: with_nibabel(
        image_of(w), lambda a, f: (a.astype(np.complex64), f))),
    ("complex image by nibabel", PLAN, ("imagesTr", "magnitude"), by("NibabelIO", lambda w: with_nibabel(
        image_of(w), lambda a, f: (a.astype(np.complex128), f)))),
    ("label in colours", PLAN, ("labelsTr", "3 components", "one channel"), lambda w: colours(label_of(w))),
    ("colours by nibabel", PLAN, ("imagesTr", "3 components", "_0001"), by("NibabelIOWithReorient", lambda w: colours(
        image_of(w)))),
    ("label of NIfTI-2", PLAN, ("labelsTr", "as NIfTI-1"), lambda w: with_nibabel(
        label_of(w), lambda a, f: (a, f), nib.Nifti2Image)),
    ("image over one time", PLAN, ("imagesTr", "three axes"), by("NibabelIO", lambda w: with_nibabel(
        image_of(w), lambda a, f: (a[..., None], f)))),
    # ---- headers
    ("image without a spacing", PLAN, ("imagesTr", "spacing 0 in its header"), lambda w: stored_spacing(
        image_of(w), 1, 1, 0)),
    ("image with a spacing of no number", PLAN, ("imagesTr", "spacing nan"), lambda w: stored_spacing(
        image_of(w), np.nan, 1, 1)),
    ("image without a spacing by nibabel", PLAN, ("imagesTr", "spacing 0"), by("NibabelIO", lambda w: stored_spacing(
        image_of(w), 0, 0, 0))),
    ("label without a spacing in its header", PLAN, ("labelsTr", "spacing 0 in its header", "correct it"),
     lambda w: unplaced(label_of(w))),
    ("sheared image", PLAN, ("imagesTr", "orthonormal", "set overwrite_image_reader_writer to NibabelIO"),
     lambda w: sheared(image_of(w))),
    ("sheared label", PLAN, ("labelsTr", "resample its sheared axes"), lambda w: sheared(label_of(w))),
    ("label in metres", PLAN, ("labelsTr", "spacing", "0.001 times", "in mm"), lambda w: moved(
        label_of(w), Spacing=(0.001, 0.001, 0.001))),
    ("reader that cannot read", "split 990 --name x", ("imagesTr", "NaturalImage2DIO", "name another"), by(
        "NaturalImage2DIO", nothing)),
    # ---- zero-shot
    ("prompts of a mirrored label", PROMPT, ("labelsTr", "direction"), lambda w: moved(first(w), Direction=MIRRORED)),
    ("prompts of a turned label", PROMPT, ("labelsTr", "direction"), lambda w: moved(first(w), Direction=TURNED)),
    ("prompts of a label elsewhere", PROMPT, ("labelsTr", "origin"), lambda w: moved(first(w), Origin=(0, 40, 0))),
    ("prompts of another class", PROMPT, ("labelsTr", "value 7"), lambda w: with_value(first(w), 7, np.uint8)),
    ("prompts of half a value", PROMPT, ("labelsTr", "value 1.5"), lambda w: with_value(first(w), 1.5, np.float32)),
    ("prompts of half a label", PROMPT, ("labelsTr", "bytes of its image"), lambda w: shortened(first(w))),
    ("prompts on half an image", PROMPT, ("imagesTr", "ends early"), lambda w: cut(
        w.raw / f"imagesTr/{CASES[0]}_0001.nii.gz", 900)),
    # ---- absorb
    ("answer that is mirrored", ABSORB, (CASES[0], "direction"), returned(lambda f: moved(f, Direction=MIRRORED))),
    ("answer on another grid", ABSORB, (CASES[0], "spacing"), returned(lambda f: moved(f, Spacing=(2, 2, 2)))),
    ("answer of another class", ABSORB, (CASES[0], "value 7"), returned(one_value(7, np.uint8))),
    ("answer of half a value", ABSORB, (CASES[0], "value 0.5"), returned(one_value(0.5, np.float32))),
    ("answer of no number", ABSORB, (CASES[0], "value nan"), returned(one_value(np.nan, np.float32))),
    ("answer beyond 16 bits", ABSORB, (CASES[0], "value 65537"), returned(one_value(65537, np.uint32))),
    ("answer in a folder of answers", ABSORB, ("results/round/labels/done/", "move it into"), returned(
        lambda f: ((f.parent / "done").mkdir(), f.rename(f.parent / "done" / f.name)))),
    ("answer in another format in a folder", ABSORB, ("labels/a/b/", ".nrrd", "is not read"), returned(lambda f: (
        (f.parent / "a/b").mkdir(parents=True), f.rename(f.parent / f"a/b/{CASES[0]}.seg.nrrd")))),
    ("answer that ends early", ABSORB, (CASES[0], "ends early"), returned(cut)),
    ("answer of vectors", ABSORB, (CASES[0], "2 channels"), returned(several)),
    ("oracle of another class", ORACLE, ("{root}/oracle", "value 7", "0, 1, 2"), dense(one_value(7, np.uint8))),
    ("oracle of half a value", ORACLE, ("{root}/oracle", "value 0.5"), dense(one_value(0.5, np.float32))),
    ("oracle elsewhere", ORACLE, ("{root}/oracle", "origin"), dense(lambda f: moved(f, Origin=(9, 0, 0)))),
    ("oracle that ends early", ORACLE, ("{root}/oracle", "ends early"), dense(cut)),
    # ---- import-labels
    ("drawing in metres", IMPORT, ("{root}/drawn", "spacing", "0.001 times"), lambda w: drawn(w, lambda f: moved(
        f, Spacing=(0.001, 0.001, 0.001)))),
    ("drawing elsewhere", IMPORT, ("{root}/drawn", "origin", "give --grid-of-image", '"grid_of_image": true'),
     lambda w: drawn(w, lambda f: moved(f, Origin=(0, 40, 0)))),
    ("drawing without a spacing", IMPORT, ("{root}/drawn", "spacing 0 in its header", "correct it"), lambda w: drawn(
        w, unplaced)),
    ("drawing of complex numbers", IMPORT, ("{root}/drawn", "complex"), lambda w: drawn(w, lambda f: with_nibabel(
        f, lambda a, affine: (a.astype(np.complex64), affine)))),
    ("drawing of no number", IMPORT, ("{root}/drawn", "value nan"), lambda w: drawn(w, one_value(np.nan, np.float32))),
    # ---- evaluate
    ("label without a spacing", COMPARE, ("labelsTr", "spacing 0 in its header"), lambda w: (predicted(w), [
        stored_spacing(folder / f"{CASES[0]}.nii.gz", 1, 0, 1) for folder in (w.root / "predicted", w.raw / "labelsTr")
    ])),
    ("prediction of no number", COMPARE, ("{root}/predicted", "value nan"), lambda w: predicted(w, one_value(
        np.nan, np.float32))),
    ("prediction in micrometres", COMPARE, ("{root}/predicted", "1000 times"), lambda w: predicted(
        w, lambda f: moved(f, Spacing=(1000, 1000, 1000)))),
    ("prediction of complex numbers", COMPARE, ("{root}/predicted", "complex"), lambda w: predicted(
        w, lambda f: with_nibabel(f, lambda a, affine: (a.astype(np.complex64), affine)))),
]  # fmt: skip
