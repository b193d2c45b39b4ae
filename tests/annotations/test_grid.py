"""Whether a label belongs to an image: shape, position in space and values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from scipy.spatial.transform import Rotation

from nnunet_limited.annotations.grid import Grid, check_grid, check_label, check_values, farthest, turned
from nnunet_limited.errors import LimitedError

FILE = Path("a.nii.gz")
RNG = np.random.default_rng(0)


def image(shape=(9, 14, 12), direction=None) -> sitk.Image:
    made = sitk.GetImageFromArray(RNG.integers(0, 3, shape).astype(np.uint8))
    made.SetSpacing((0.7, 0.8, 3.0)[: len(shape)])
    made.SetOrigin((-120.0, 33.0, 500.0)[: len(shape)])
    if direction is not None:
        made.SetDirection(np.ravel(direction).tolist())
    return made


def changed(original: sitk.Image, **values) -> Grid:
    made = sitk.Image(original)
    for name, value in values.items():
        getattr(made, f"Set{name}")(value)
    return Grid.of(made)


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "LAI", "PIR", "SAR", "ILA"])
@pytest.mark.parametrize("oblique", [False, True])
def test_axes_in_another_order_are_turned(orientation: str, oblique: bool) -> None:
    original = image()
    reoriented = sitk.DICOMOrient(original, orientation)
    if oblique:
        tilt = Rotation.from_euler("xyz", [9, -5, 14], degrees=True)
        for one in (original, reoriented):
            one.SetDirection((tilt.as_matrix() @ np.reshape(one.GetDirection(), (3, 3))).ravel().tolist())
            one.SetOrigin(tilt.apply(one.GetOrigin()).tolist())
    values, grid = turned(sitk.GetArrayFromImage(reoriented), Grid.of(reoriented), Grid.of(original))
    assert np.array_equal(values, sitk.GetArrayFromImage(original))
    assert check_grid(FILE, grid, Grid.of(original)) is None


def test_flat_images_are_turned_too() -> None:
    original = image((14, 12))
    array = sitk.GetArrayFromImage(original)
    other = sitk.GetImageFromArray(array[:, ::-1].T.copy())  # x is the old y, y is the old x from its end
    other.SetSpacing(original.GetSpacing()[::-1])
    other.SetDirection((0, -1, 1, 0))
    other.SetOrigin(original.TransformIndexToPhysicalPoint((11, 0)))
    mine, theirs = (replace(Grid.of(one), shape=(1, *one.GetSize()[::-1])) for one in (other, original))
    values, grid = turned(array[:, ::-1].T[None], mine, theirs)
    assert np.array_equal(values[0], array)
    assert farthest(grid, theirs) < 1e-6


def test_what_is_tilted_is_not_turned() -> None:
    original = image()
    tilted = Grid.of(image(direction=Rotation.from_euler("z", 45, degrees=True).as_matrix()))
    values, grid = turned(sitk.GetArrayFromImage(original), tilted, Grid.of(original))
    assert grid is tilted
    assert np.array_equal(values, sitk.GetArrayFromImage(original))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"Origin": (-119.0, 33.0, 500.0)}, "origin [-119.0, 33.0, 500.0], its image [-120.0, 33.0, 500.0]"),
        ({"Spacing": (0.7, 0.8, 3.5)}, "spacing [3.5, 0.8, 0.7]"),
        ({"Direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}, "direction"),
        ({"Direction": Rotation.from_euler("z", 10, degrees=True).as_matrix().ravel().tolist()}, "direction"),
        ({"Spacing": (1.0, 1.0, 1.0), "Origin": (0.0, 0.0, 0.0)}, "spacing [1.0, 1.0, 1.0]"),
    ],
)
def test_another_grid_is_refused(values, named: str) -> None:
    original = image()
    with pytest.raises(LimitedError, match="grid_of_image") as caught:
        check_grid(FILE, changed(original, **values), Grid.of(original))
    assert named in str(caught.value)
    assert check_grid(FILE, changed(original, **values), Grid.of(original), aligned=True) is None


def test_a_small_difference_is_a_warning_and_rounding_is_none() -> None:
    original = image()
    near, rounded = ((-120 + shift * 0.7, 33.0, 500.0) for shift in (0.9, 0.002))
    assert "0.9 voxels" in str(check_grid(FILE, changed(original, Origin=near), Grid.of(original)))
    assert check_grid(FILE, changed(original, Origin=rounded), Grid.of(original)) is None
    assert check_grid(FILE, changed(original, Spacing=(0.7, 0.8, 3.0 + 1e-6)), Grid.of(original)) is None


def test_shapes_and_spacings_count_where_files_have_no_position() -> None:
    plain = Grid((1, 30, 40), (999.0, 1.0, 1.0))
    assert check_grid(FILE, Grid((1, 30, 40), (999.0, 1.0, 1.0)), plain) is None
    assert check_grid(FILE, Grid((1, 30, 40), None), plain) is None
    with pytest.raises(LimitedError, match=r"shape \(1, 40, 30\)"):
        check_grid(FILE, Grid((1, 40, 30), (999.0, 1.0, 1.0)), plain, aligned=True)
    with pytest.raises(LimitedError, match="spacing"):
        check_grid(FILE, Grid((1, 30, 40), (999.0, 1.5, 1.0)), plain)


def test_a_sheared_grid_is_compared_as_it_is() -> None:
    affine = np.diag([1.0, 1, 2, 1])
    affine[0, 1] = 0.02
    sheared, straight = (Grid((9, 10, 11), (2.0, 1.0, 1.0), matrix) for matrix in (affine, np.diag([1.0, 1, 2, 1])))
    assert farthest(sheared, sheared) == 0
    assert 0 < farthest(sheared, straight) < 1
    mirrored = nib.as_closest_canonical(nib.Nifti1Image(np.zeros((11, 10, 9), np.uint8), np.diag([-1.0, 1, 2, 1])))
    assert farthest(Grid((9, 10, 11), (2.0, 1.0, 1.0), mirrored.affine), straight) > 5


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (0.5, "value 0.5"),
        (np.float32(0.99999994), "value 0.99999994"),
        (-1, "value -1"),
        (65537, "value 65537"),
        (4294967295, "value 4294967295"),
        (np.inf, "value inf"),
        (np.nan, "value nan"),
        (1e300, "value 1e+300"),
        (3, "value 3; dataset.json declares only 0, 1, 2"),
    ],
)
def test_values_are_compared_before_they_are_cast(value, named: str) -> None:
    values = np.zeros((2, 3, 4), np.result_type(type(value) if isinstance(value, np.generic) else np.array(value)))
    values[1, 2, 3] = value
    with pytest.raises(LimitedError, match=r"label a\.nii\.gz has the value") as caught:
        check_values(FILE, values, [0, 1, 2])
    assert named in str(caught.value)


def test_a_label_that_belongs_is_returned_as_whole_numbers() -> None:
    original = image()
    values = sitk.GetArrayFromImage(original).astype(np.float32)
    label, warning = check_label(FILE, values, Grid.of(original), Grid.of(original), [0, 1, 2])
    assert label.dtype == np.int16
    assert np.array_equal(label, values)
    assert warning is None
