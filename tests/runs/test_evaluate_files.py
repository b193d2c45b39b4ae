"""Predictions and labels as other programs write them: turned, on another grid, damaged, missing, of other values."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from skimage import io

from nnunet_limited.errors import LimitedError
from nnunet_limited.metrics.request import EvaluateRequest
from nnunet_limited.runs.evaluate import evaluate

LABELS = {"background": 0, "organ": 1, "lesion": 2}


def asked(root: Path, **options) -> EvaluateRequest:
    return EvaluateRequest(predictions=root / "predicted", truth=root / "truth", processes=1, **options)


def volume(seed: int) -> sitk.Image:
    array = np.zeros((9, 20, 16), np.uint8)
    array[2 + seed : 8, 3:12, 4:9] = 1
    array[4:6, 5 + seed : 9, 5:7] = 2
    made = sitk.GetImageFromArray(array)
    made.SetSpacing((0.8, 0.8, 3.0))
    made.SetOrigin((-40.0, 12.0, 100.0))
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Predictions of three cases that are one slice off, and their labels."""
    for folder, shift in (("predicted", 1), ("truth", 0)):
        (tmp_path / folder).mkdir()
        for case in "abc":
            sitk.WriteImage(volume(shift), str(tmp_path / folder / f"{case}.nii.gz"))
    description = {"labels": LABELS, "file_ending": ".nii.gz", "channel_names": {"0": "MR"}}
    (tmp_path / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return tmp_path


@pytest.fixture
def dice(root: Path) -> list[float]:
    """Return the Dice of each class of the first case, on equal grids."""
    return evaluate(asked(root, dataset_json=root / "dataset.json"))["dice"].tolist()[:2]


def write(file: Path, image: sitk.Image) -> None:
    sitk.WriteImage(image, str(file))


@pytest.mark.parametrize("orientation", ["RAS", "PIR", "LAI"])
@pytest.mark.parametrize("folder", ["predicted", "truth"])
def test_axes_in_another_order_give_the_same_metrics(root: Path, orientation: str, folder: str) -> None:
    expected = evaluate(asked(root, dataset_json=root / "dataset.json"))
    file = root / folder / "a.nii.gz"
    write(file, sitk.DICOMOrient(sitk.ReadImage(str(file)), orientation))
    found = evaluate(asked(root, dataset_json=root / "dataset.json"))
    for column in expected.columns[2:]:
        assert found[column].tolist() == pytest.approx(expected[column].tolist()), column


def test_a_canonical_copy_by_nibabel_is_the_same(root: Path, dice: list[float]) -> None:
    file = root / "predicted/a.nii.gz"
    nib.save(nib.as_closest_canonical(nib.load(file)), file)
    assert evaluate(asked(root, dataset_json=root / "dataset.json"))["dice"].tolist()[:2] == pytest.approx(dice)


def relabelled(image: sitk.Image, change) -> sitk.Image:
    made = sitk.GetImageFromArray(change(sitk.GetArrayFromImage(image)))
    made.CopyInformation(image)
    return made


def moved(image: sitk.Image, **values) -> sitk.Image:
    for name, value in values.items():
        getattr(image, f"Set{name}")(value)
    return image


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda p, t: write(p, moved(volume(1), Origin=(0, 0, 0))), ("predicted/a", "origin", "--grid-of-image")),
        (lambda p, t: write(p, moved(volume(1), Direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1))), ("direction [-1.0",)),
        (lambda p, t: write(t, moved(volume(1), Spacing=(1, 1, 1))), ("spacing [3.0, 0.8, 0.8]", "[1.0, 1.0, 1.0]")),
        (lambda p, t: write(p, volume(1)[1:, :, :]), ("shape (9, 20, 15)", "(9, 20, 16)")),
        (lambda p, t: write(p, relabelled(volume(1), lambda a: 255 * (a > 0).astype(np.uint8))), ("value 255", "0, 1")),
        (lambda p, t: write(t, relabelled(volume(1), lambda a: 255 * (a > 0).astype(np.uint8))), ("truth/a", "255")),
        (lambda p, t: write(p, relabelled(volume(1), lambda a: a * np.float32(0.9))), ("value 0.9", "whole numbers")),
        (lambda p, t: cut(p), ("predicted/a.nii.gz", "ends early")),
        (lambda p, t: cut(t), ("truth/a.nii.gz", "ends early")),
        (lambda p, t: p.unlink(), ("1 of 3 labels", "a.nii.gz", "--allow-missing")),
        (lambda p, t: p.rename(p.with_name("a.nii")), ("predicted/a.nii ", ".nii.gz")),
        (lambda p, t: t.unlink(), ("truth/a.nii.gz does not exist",)),
        (lambda p, t: p.write_bytes(b"no image"), ("predicted/a.nii.gz", "cannot be read")),
        (lambda p, t: write(p, sitk.Compose([volume(1)] * 3)), ("predicted/a.nii.gz", "one channel")),
    ],
)
def test_what_does_not_belong_together_is_refused(root: Path, change, named: tuple[str, ...]) -> None:
    change(root / "predicted/a.nii.gz", root / "truth/a.nii.gz")
    with pytest.raises(LimitedError) as caught:
        evaluate(asked(root, dataset_json=root / "dataset.json"))
    for text in named:
        assert text in str(caught.value)


def test_arrays_are_compared_on_request(root: Path, dice: list[float]) -> None:
    write(root / "predicted/a.nii.gz", moved(volume(1), Origin=(0, 0, 0), Direction=(-1, 0, 0, 0, 1, 0, 0, 0, 1)))
    found = evaluate(asked(root, dataset_json=root / "dataset.json", grid_of_image=True))
    assert found["dice"].tolist()[:2] == pytest.approx(dice)


def test_a_small_difference_is_a_warning(root: Path, dice: list[float]) -> None:
    write(root / "predicted/b.nii.gz", moved(volume(1), Origin=(-40.3, 12.0, 100.0)))
    found = evaluate(asked(root, dataset_json=root / "dataset.json"))
    assert found["dice"].tolist()[2:4] == pytest.approx(dice)
    assert [("predicted/b.nii.gz" in warning) for warning in found.attrs["warnings"]] == [True]


def test_missing_predictions_are_left_out_on_request(root: Path, dice: list[float]) -> None:
    (root / "predicted/a.nii.gz").unlink()
    (root / "predicted/summary.json").write_text("{}", encoding="utf-8")
    found = evaluate(asked(root, dataset_json=root / "dataset.json", allow_missing=True))
    assert found["case"].unique().tolist() == ["b", "c"]
    assert found.attrs["missing"] == ["a"]
    assert found["dice"].tolist()[:2] == pytest.approx(dice)


def test_colour_images_and_grey_ones_have_no_position(tmp_path: Path) -> None:
    for folder, shift in (("predicted", 1), ("truth", 0)):
        (tmp_path / folder).mkdir()
        label = np.zeros((30, 40), np.uint8)
        label[5:15, 5 + shift : 15 + shift] = 1
        io.imsave(tmp_path / folder / "a.png", label, check_contrast=False)
    description = {"labels": LABELS, "file_ending": ".png", "channel_names": {"0": "R", "1": "G", "2": "B"}}
    (tmp_path / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    assert evaluate(asked(tmp_path))["dice"].tolist()[0] == pytest.approx(0.9)
    io.imsave(tmp_path / "predicted/a.png", np.zeros((30, 40, 3), np.uint8), check_contrast=False)
    with pytest.raises(LimitedError, match=r"predicted/a\.png has 3 channels"):
        evaluate(asked(tmp_path))


@pytest.mark.parametrize("part", [np.s_[4:5, 5:6, 5:6], np.s_[4:5, 5:6, :], np.s_[:, 5:6, 5:6], np.s_[:, :, 5:6]])
def test_images_of_few_axes_are_measured(root: Path, part: tuple[slice, ...]) -> None:
    """A voxel, a row, a column and a slice."""
    for folder in ("predicted", "truth"):
        for case in "abc":
            array = sitk.GetArrayFromImage(volume(0))[part]
            array[0, 0, 0] = 1
            write(root / folder / f"{case}.nii.gz", sitk.GetImageFromArray(array))
    assert evaluate(asked(root, dataset_json=root / "dataset.json"))["dice"].tolist()[0] == 1


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO"])
@pytest.mark.parametrize("step", [0.0, np.nan])
def test_a_label_without_a_spacing_is_measured_in_voxels_only(root: Path, reader: str, step: float) -> None:
    content = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
    (root / "dataset.json").write_text(
        json.dumps({**content, "overwrite_image_reader_writer": reader}), encoding="utf-8"
    )
    for folder in ("predicted", "truth"):
        for case in "abc":
            file = root / folder / f"{case}.nii.gz"
            stored = bytearray(gzip.decompress(file.read_bytes()))
            struct.pack_into("<f", stored, 88, step)
            file.write_bytes(gzip.compress(stored))
    with pytest.raises(LimitedError, match=r"label .*\.nii\.gz has the spacing (0|nan) in its header"):
        evaluate(asked(root, dataset_json=root / "dataset.json"))
    assert evaluate(asked(root, dataset_json=root / "dataset.json", voxels=True))["dice"].notna().any()


@pytest.mark.parametrize("name", ["a.nrrd", "d.mha", "e.NII.GZ"])
def test_only_labels_of_predictions_count_where_others_may_be_missing(root: Path, name: str, dice: list[float]) -> None:
    """As in the folder of labels that a dataset with another ``file_ending`` has left behind."""
    (root / "truth" / name).write_bytes(b"of an earlier dataset")
    described = {"dataset_json": root / "dataset.json"}
    with pytest.raises(LimitedError, match=rf"{name} has the ending"):
        evaluate(asked(root, **described))
    (root / "predicted/c.nii.gz").unlink()
    rows = evaluate(asked(root, **described, allow_missing=True))
    assert rows["dice"].tolist() == dice * 2
    assert rows.attrs["missing"] == ["c"]
