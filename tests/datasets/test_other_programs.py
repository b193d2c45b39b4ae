"""Label files that MITK and Convert3D have written, and what 3D Slicer and earlier versions of MITK write."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from drawings import NAMES, by_pynrrd, dataset, imported, on_grid, right, segmentation, strokes
from helpers import command

from nnunet_limited.errors import LimitedError

FILES = Path(__file__).parent / "other_programs"
SWAPPED = np.array([0, 2, 1, *range(3, 10)], np.uint8)[strokes()]
LAYERS = np.stack([np.where(strokes() == 1, 0, strokes()), np.where(strokes() == 1, 1, 0)], -1).astype(np.uint8)


@pytest.mark.parametrize(
    "name",
    [
        "mitk_names.nrrd",
        "mitk_groups.nrrd",
        "mitk_numbers.nrrd",
        "convert3d.nii.gz",
        "convert3d_ras.nii.gz",
        "convert3d_trim.nii.gz",
    ],
)
def test_files_of_other_programs(folders: Path, name: str) -> None:
    dataset(folders)
    shutil.copy(FILES / name, folders / "drawn" / f"b{name[name.index('.') :]}")
    assert np.array_equal(imported(folders, "b"), right())


def test_a_file_for_each_label(folders: Path) -> None:
    """As MITK saves a segmentation as NIfTI: no file is that of the case."""
    dataset(folders)
    for value in (1, 2):
        shutil.copy(FILES / f"mitk_label_{value}.nii.gz", folders / "drawn" / f"b_label_{value}.nii.gz")
    with pytest.raises(LimitedError, match=r"one of 2 files named like parts of case b; save .*, b\.nii\.gz"):
        imported(folders, "b")


def earlier_mitk(*layers: dict[int, str]) -> dict[str, str]:
    """Return the header of a segmentation of an earlier version of MITK: properties of each label as XML."""
    header = {"modality": "org.mitk.image.multilabel", "layers": str(len(layers))}
    for layer, labels in enumerate(layers):
        header[f"layer_{layer:03d}"] = str(len(labels) + 1)
        for number, (value, name) in enumerate([(0, "Exterior"), *labels.items()]):
            header[f"org.mitk.label_{layer:03d}_{number:05d}"] = (
                '<?xml version="1.0"?>\\n<Label opacity="0.6">'
                '<property key="locked" type="BoolProperty"><bool value="true"/></property>'
                f'<property key="name" type="StringProperty"><string value="{name}"/></property>'
                f'<property key="value" type="UIntProperty"><unsigned value="{value}"/></property></Label>\\n'
            )
    return header


@pytest.mark.parametrize(
    ("layers", "array"),
    [
        ((NAMES,), strokes()),
        (({2: "liver", 1: "tumour", 9: "background"},), SWAPPED),
        (({1: "Label 1", 2: "red", 9: "rest"},), strokes()),
        (({2: "tumour", 9: "background"}, {1: "liver"}), LAYERS),
    ],
    ids=["names and numbers", "names", "numbers", "two layers"],
)
def test_segmentations_of_earlier_versions_of_mitk(
    folders: Path, layers: tuple[dict[int, str], ...], array: np.ndarray
) -> None:
    dataset(folders)
    by_pynrrd(folders / "drawn" / "b.nrrd", array, earlier_mitk(*layers))
    assert np.array_equal(imported(folders, "b"), right())


def test_damaged_labels_of_earlier_versions_of_mitk(folders: Path) -> None:
    dataset(folders)
    header = earlier_mitk(NAMES)
    for text in ("<Label", "<Label><property/></Label>"):
        by_pynrrd(folders / "drawn" / "b.nrrd", strokes(), header | {"org.mitk.label_000_00001": text})
        with pytest.raises(LimitedError, match=r"labels are damaged .*; save it again with MITK"):
            imported(folders, "b")


def test_two_segments_of_one_class(folders: Path) -> None:
    """As 3D Slicer has them where two people have drawn."""
    dataset(folders)
    drawn = strokes()
    drawn[1, 5, 6] = 5
    segmentation(folders / "drawn" / "b.seg.nrrd", on_grid(drawn), {**NAMES, 5: " LIVER "})
    assert np.array_equal(imported(folders, "b"), right())


@pytest.mark.parametrize("swapped", [False, True])
def test_values_of_background_and_of_nothing_that_are_swapped(
    folders: Path, capsys: pytest.CaptureFixture[str], swapped: bool
) -> None:
    """Then nearly all voxels count as annotated, which nothing in the files contradicts."""
    dataset(folders)
    shutil.copy(FILES / "convert3d.nii.gz", folders / "drawn" / "b.nii.gz")
    values = ("--unlabeled", "9") if swapped else ("--unlabeled", "0", "--background", "9")
    words = ("import-labels", "990", "--labels", str(folders / "drawn"), "--out", "Dataset991_Sparse", *values)
    assert command(*words) == 0
    assert ("are --background and --unlabeled swapped?" in " ".join(capsys.readouterr().out.split())) == swapped
