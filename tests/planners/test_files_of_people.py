"""Colour images, and labels on grids of their own, from the raw files to what is learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from helpers import command
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from shapes import TINY_SAM, ellipsoid, overlap
from skimage import io

from nnunet_limited.annotations.annotation import Box, box_codes
from nnunet_limited.datasets.derived import box_file
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.host.images import write_codes

SHAPE = (9, 24, 20)


def describe(raw: Path, **content: Any) -> None:
    plain = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps({**plain, "numTraining": 4, **content}), encoding="utf-8")


def colours(folders: Path) -> Path:
    """Make a dataset of RGB images, one file and three channels each, with ignored voxels."""
    raw = folders / "raw" / "Dataset603_Rgb"
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    channels = {"0": "R", "1": "G", "2": "B"}
    describe(raw, channel_names=channels, labels={"background": 0, "cell": 1, "ignore": 2}, file_ending=".png")
    rng = np.random.default_rng(0)
    for case in range(4):
        label = np.zeros((64, 80), np.uint8)
        label[20:40, 20:50], label[:, 60:] = 1, 2
        image = rng.integers(0, 60, (64, 80, 3)) + 120 * (label == 1)[..., None]
        io.imsave(raw / f"imagesTr/t_{case}_0000.png", image.astype(np.uint8), check_contrast=False)
        io.imsave(raw / f"labelsTr/t_{case}.png", label, check_contrast=False)
    return raw


def test_colour_images_are_channels_everywhere(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, results = colours(folders), folders / "results"
    assert command("split", "603", "--name", "s", "--labeled", "2", "--folds", "2") == 0
    assert command("plan", "603", "--split", "s", "-c", "2d", "--size", "tiny", "-np", "1") == 0
    made = next((folders / "preprocessed" / raw.name).glob("nnUNetLimited_*_2d"))
    assert nnUNetDatasetBlosc2(str(made), ["t_0"]).load_case("t_0")[0].shape == (3, 1, 64, 80)
    for kind in ("scribbles", "boxes"):
        assert command("sparsify", "603", "--kind", kind, "--out", f"Dataset60{len(kind)}_View") == 0
    codes = io.imread(box_file(folders / "raw" / "Dataset605_View" / "labelsTr" / "t_0.png"))
    assert set(np.unique(codes[:, :60])) == {0, 1}
    cold = ("--strategy", "random", "--items", "1", "--out", str(results / "round"))
    assert command("query", "603", "--split", "s", "-f", "0", *cold) == 0
    for file in (raw / "labelsTr").iterdir():  # prompts come from whole labels
        io.imsave(file, io.imread(file) % 2, check_contrast=False)
    shot = ("zero-shot", "603", f"sam:{TINY_SAM}", "--cases", "1", "--out", str(results / "shot"), "-device", "cpu")
    assert command(*shot, "--ask", "channel=2", "--json") == 0
    capsys.readouterr()
    describe(raw, file_ending=".png")
    assert command("split", "603", "--name", "x") == 0  # nothing but plans reads all images
    assert command("plan", "603", "--split", "x", "-c", "2d", "--size", "tiny", "-np", "1") == 2
    assert "_0000.png has 3 channels, dataset.json declares 1" in capsys.readouterr().err


@pytest.fixture
def mirrored(folders: Path) -> Path:
    """Make a dataset whose labels have the axes of another program: right in every viewer, mirrored as arrays."""
    raw = folders / "raw" / "Dataset611_Mirror"
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    describe(raw)
    for case in range(4):
        label = ellipsoid(SHAPE, (4, 7 + case, 6), (3, 5, 4)).astype(np.uint8)
        pixels = 100 + 60 * label + np.random.default_rng(case).normal(0, 9, SHAPE)
        for name, array in (("imagesTr/c{}_0000", pixels.astype(np.float32)), ("labelsTr/c{}", label)):
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((1, 1, 2))
            image.SetOrigin((10, 20, 30))
            sitk.WriteImage(image, str(raw / f"{name.format(case)}.nii.gz"))
        file = raw / f"labelsTr/c{case}.nii.gz"
        nib.save(nib.as_closest_canonical(nib.load(file)), file)
    return raw


def learned(folders: Path, raw: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return where the preprocessed image is bright and its preprocessed label, as masks."""
    made = next((folders / "preprocessed" / raw.name).glob("nnUNetLimited_*_3d_fullres"))
    data, label, _, _ = nnUNetDatasetBlosc2(str(made), ["c0"]).load_case("c0")
    values = np.asarray(data)[0]
    return values > (values.min() + values.max()) / 2, np.asarray(label)[0] == 1


def test_labels_on_a_mirrored_grid_are_not_learned(folders: Path, mirrored: Path, capsys) -> None:
    plan = ("plan", "611", "--split", "s", "-c", "3d_fullres", "--size", "tiny", "-np", "1")
    assert command("split", "611", "--name", "s", "--folds", "2") == 0
    capsys.readouterr()
    assert command(*plan) == 2
    error = capsys.readouterr().err
    assert f"{mirrored}/labelsTr/c" in error
    assert "direction [-1.0" in error
    assert not list((folders / "preprocessed" / mirrored.name).glob("nnUNet*"))
    describe(mirrored, overwrite_image_reader_writer="NibabelIOWithReorient")  # which turns both to one order
    assert command(*plan) == 0
    assert overlap(*learned(folders, mirrored)) > 0.9


def test_a_mirrored_label_may_be_declared_to_be_aligned(folders: Path, mirrored: Path) -> None:
    """Then the arrays are compared as they are, at the user's risk."""
    describe(mirrored, grid_of_image=True)
    assert command("split", "611", "--name", "s", "--folds", "2") == 0
    assert command("plan", "611", "--split", "s", "-c", "3d_fullres", "--size", "tiny", "-np", "1") == 0
    assert overlap(*learned(folders, mirrored)) < 0.8


@pytest.mark.parametrize(
    ("scale", "status", "text"),
    [
        (1 / 32, 0, "the image of case c3 has the spacing [0.0625, 0.03125, 0.03125] (z, y, x), about 0.031 times"),
        (1e-3, 2, "and so [0, 0] voxels at the spacing [1, 1] of 2d"),
        (2e3, 2, "the spacing [4000, 2000, 2000] (z, y, x), and so [48000, 40000] voxels"),
    ],
)
def test_a_scan_in_another_unit_is_noticed(
    folders: Path, mirrored: Path, capsys, scale: float, status: int, text: str
) -> None:
    describe(mirrored, overwrite_image_reader_writer="NibabelIOWithReorient")
    for file in (mirrored / "imagesTr/c3_0000.nii.gz", mirrored / "labelsTr/c3.nii.gz"):
        old = nib.load(file)
        nib.save(nib.Nifti1Image(np.asarray(old.dataobj), np.diag([scale, scale, scale, 1]) @ old.affine), file)
    assert command("split", "611", "--name", "s", "--folds", "2") == 0
    capsys.readouterr()
    assert command("plan", "611", "--split", "s", "-c", "2d", "--size", "tiny", "-np", "1") == status
    assert text in " ".join("".join(capsys.readouterr()).split())
    assert status == 0 or not list((folders / "preprocessed" / mirrored.name).glob("nnUNet*"))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((np.nan,), "has 1 voxel that is NaN or infinite, which nnU-Net reads as 0;"),
        ((np.inf, -np.inf, np.nan), "has 3 voxels that are NaN or infinite"),
        ((), ""),
    ],
)
def test_voxels_that_are_no_numbers_are_noticed(
    folders: Path, mirrored: Path, capsys, values: tuple[float, ...], text: str
) -> None:
    describe(mirrored, grid_of_image=True)
    file = mirrored / "imagesTr/c3_0000.nii.gz"
    old = nib.load(file)
    array = np.asarray(old.dataobj).astype(np.float32)
    array[0, 0, : len(values)] = values
    nib.save(nib.Nifti1Image(array, old.affine), file)
    assert command("split", "611", "--name", "s", "--folds", "2") == 0
    capsys.readouterr()
    assert command("plan", "611", "--split", "s", "-c", "2d", "--size", "tiny", "-np", "1") == 0
    found = " ".join("".join(capsys.readouterr()).split())
    assert text in found
    assert ("NaN" in found) == bool(values)


@pytest.mark.parametrize("reader", [SimpleITKIO, SimpleITKIOWithReorient])
def test_boxes_of_many_classes_are_stored_whole(mirrored: Path, tmp_path: Path, reader: Any) -> None:
    """The reader that turns images writes 8 bits, but 15 classes of boxes need as many."""
    boxes = [Box(value, (0, value, 0), (3, value + 2, 5)) for value in (1, 8, 9, 15)]
    codes = box_codes(SHAPE, boxes)
    image = mirrored / "labelsTr/c0.nii.gz"
    _, properties = reader().read_images([str(image)])
    write_codes(reader(), codes, tmp_path / "boxes.nii.gz", properties)
    found, place = reader().read_seg(str(tmp_path / "boxes.nii.gz"))
    assert np.array_equal(found[0], codes)
    assert place["spacing"] == properties["spacing"]
    assert place["sitk_stuff"]["origin"] == pytest.approx(properties["sitk_stuff"]["origin"])


def test_boxes_of_many_classes_by_a_reader_that_turns(folders: Path, mirrored: Path) -> None:
    """A class above the eighth is in the table and in the image of boxes."""
    labels = {"background": 0, **{f"c{n}": n for n in range(1, 11)}}
    describe(mirrored, labels=labels, overwrite_image_reader_writer="SimpleITKIOWithReorient")
    for number, file in enumerate(sorted((mirrored / "labelsTr").iterdir())):
        old = nib.load(file)
        array = np.asarray(old.dataobj).astype(np.uint8) * 10
        array[0, 0, :] = np.resize(np.arange(1, 10), array.shape[2]) if number else 0
        nib.save(nib.Nifti1Image(array, old.affine), file)
    assert command("sparsify", "611", "--kind", "boxes", "--out", "Dataset612_Boxes") == 0
    made = RawDataset.load("612").cases["c0"].boxes
    assert made is not None
    assert set(np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(made))))) == {0, 1 << 9}
