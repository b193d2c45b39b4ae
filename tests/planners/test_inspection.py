"""What an inspection of a case accepts, and what it warns of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from skimage import io

from nnunet_limited.datasets.channels import check_channels
from nnunet_limited.datasets.description import DatasetDescription
from nnunet_limited.datasets.raw import Case
from nnunet_limited.errors import LimitedError
from nnunet_limited.planners.fingerprint import inspect_case

LABELS = {"background": 0, "organ": 1, "ignore": 2}
RNG = np.random.default_rng(0)
PIXELS = RNG.normal(100, 10, (9, 12, 10)).astype(np.float32)


def described(**changes: Any) -> DatasetDescription:
    return DatasetDescription({"labels": LABELS, "file_ending": ".nii.gz", "channel_names": {"0": "MR"}, **changes})


def image(array: np.ndarray, **values: Any) -> sitk.Image:
    made = sitk.GetImageFromArray(array)
    made.SetSpacing((0.8, 0.8, 3.0))
    for name, value in {"Origin": (-40.0, 12.0, 100.0), **values}.items():
        getattr(made, f"Set{name}")(value)
    return made


@pytest.fixture
def case(tmp_path: Path) -> Case:
    """One organ, of which a half is annotated."""
    label = np.zeros(PIXELS.shape, np.uint8)
    label[2:6, 3:8, 2:7], label[:, :, 5:] = 1, 2
    sitk.WriteImage(image(PIXELS), str(tmp_path / "a_0000.nii.gz"))
    sitk.WriteImage(image(label), str(tmp_path / "a.nii.gz"))
    return Case("a", (tmp_path / "a_0000.nii.gz",), tmp_path / "a.nii.gz")


def saved_again(file: Path | None, **values: Any) -> None:
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
    sitk.WriteImage(image(array, **values), str(file))


def test_a_case_on_one_grid_has_no_problem(case: Case) -> None:
    found = inspect_case(case, True, SimpleITKIO, described())
    assert (found.problem, found.warning, found.annotated) == (None, None, True)


def test_a_label_without_its_header_is_accepted_on_request(case: Case) -> None:
    saved_again(case.label, Spacing=(1, 1, 1), Origin=(0, 0, 0))
    problem = inspect_case(case, True, SimpleITKIO, described()).problem
    assert "grid_of_image" in str(problem)
    assert inspect_case(case, True, SimpleITKIO, described(grid_of_image=True)).problem is None


def test_a_label_a_little_off_is_a_warning(case: Case) -> None:
    saved_again(case.label, Origin=(-40.0, 12.4, 100.0))
    found = inspect_case(case, True, SimpleITKIO, described())
    assert found.problem is None
    assert "0.5 voxels" in str(found.warning)


def test_a_reader_that_turns_axes_decides(case: Case) -> None:
    """nnU-Net learns labels in another orientation rightly where its reader turns both to one."""
    nib.save(nib.as_closest_canonical(nib.load(str(case.label))), str(case.label))
    assert "voxels apart" in str(inspect_case(case, True, SimpleITKIO, described()).problem)
    assert inspect_case(case, True, NibabelIOWithReorient, described()).problem is None


def test_a_label_that_is_not_used_is_not_opened(case: Case) -> None:
    assert case.label is not None
    case.label.write_bytes(b"garbage")
    assert inspect_case(case, False, SimpleITKIO, described()).problem is None


def test_a_label_to_validate_on_is_checked_too(case: Case, tmp_path: Path) -> None:
    assert case.label is not None
    truth = tmp_path / "truth.nii.gz"
    truth.write_bytes(case.label.read_bytes()[:-30])
    found = inspect_case(Case("a", case.images, case.label, truth), True, SimpleITKIO, described())
    assert f"{truth} is damaged" in str(found.problem)


def test_a_label_of_ignored_voxels_is_not_annotated(case: Case) -> None:
    sitk.WriteImage(image(np.full(PIXELS.shape, 2, np.uint8)), str(case.label))
    found = inspect_case(case, True, SimpleITKIO, described())
    assert (found.problem, found.annotated) == (None, False)


@pytest.mark.parametrize("name", ["MR", "zscore", "noNorm", "rescale_to_0_1"])
def test_large_values_are_fine_until_they_overflow(case: Case, name: str) -> None:
    sitk.WriteImage(image(PIXELS * 1e9), str(case.images[0]))
    inspect_case(case, True, SimpleITKIO, described(channel_names={"0": name}))
    huge = PIXELS.copy()
    huge[4, 4, 4], huge[4, 4, 5] = 3e38, -3e38
    sitk.WriteImage(image(huge), str(case.images[0]))
    if name != "noNorm":
        with pytest.raises(LimitedError, match="overflow"):
            inspect_case(case, True, SimpleITKIO, described(channel_names={"0": name}))


def test_padding_of_ct_is_clipped(case: Case) -> None:
    padded = PIXELS.copy()
    padded[0] = -3e38
    sitk.WriteImage(image(padded), str(case.images[0]))
    assert inspect_case(case, True, SimpleITKIO, described(channel_names={"0": "CT"})).problem is None


def test_a_tiff_label_needs_no_spacing(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a_0000.tif", PIXELS)
    tifffile.imwrite(tmp_path / "a.tif", (PIXELS > 100).astype(np.uint8))
    (tmp_path / "a.json").write_text(json.dumps({"spacing": [3.0, 0.8, 0.8]}), encoding="utf-8")
    (tmp_path / "labels").mkdir()
    (tmp_path / "a.tif").rename(tmp_path / "labels/a.tif")
    case = Case("a", (tmp_path / "a_0000.tif",), tmp_path / "labels/a.tif")
    found = inspect_case(case, True, Tiff3DIO, described(file_ending=".tif"))
    assert (found.problem, found.spacing) == (None, [3.0, 0.8, 0.8])
    (tmp_path / "labels/a.json").write_text(json.dumps({"spacing": [5.0, 0.8, 0.8]}), encoding="utf-8")
    assert "spacing" in str(inspect_case(case, True, Tiff3DIO, described(file_ending=".tif")).problem)


def test_channels_are_those_of_the_image(tmp_path: Path) -> None:
    colours = described(file_ending=".png", channel_names={"0": "R", "1": "G", "2": "B"})
    grey = described(file_ending=".png", channel_names={"0": "US"})
    label = np.zeros((20, 30), np.uint8)
    label[5:9, 5:9] = 1
    for name, array in (("rgb", RNG.integers(0, 255, (20, 30, 3))), ("rgba", RNG.integers(0, 255, (20, 30, 4)))):
        io.imsave(tmp_path / f"{name}_0000.png", array.astype(np.uint8), check_contrast=False)
    io.imsave(tmp_path / "l.png", label, check_contrast=False)
    for n in range(3):
        io.imsave(tmp_path / f"grey_{n:04d}.png", label + 7, check_contrast=False)
    files = {name: (tmp_path / f"{name}_0000.png",) for name in ("rgb", "rgba")}
    files["grey"] = tuple(tmp_path / f"grey_{n:04d}.png" for n in range(3))

    def inspect(name: str, description: DatasetDescription) -> None:
        check_channels({name: files[name]}, description.num_channels, lambda: NaturalImage2DIO, tmp_path)
        inspect_case(Case(name, files[name], tmp_path / "l.png"), True, NaturalImage2DIO, description)

    inspect("rgb", colours)
    inspect("grey", colours)
    for name, description, found in (
        ("rgba", colours, "4 channels"),
        ("rgb", grey, "3 channels, dataset.json declares 1"),
    ):
        with pytest.raises(LimitedError, match=found):
            inspect(name, description)
