import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from nnunet_limited.datasets.phantom import LABELS, SPACING_XYZ, phantom_case, write_phantom_dataset
from nnunet_limited.errors import LimitedError


@pytest.fixture(scope="module")
def cases() -> list[tuple[np.ndarray, np.ndarray]]:
    return [phantom_case(seed) for seed in range(20)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom_dataset(tmp_path_factory.mktemp("raw"), training=3, test=2)


def test_same_seed_same_case(cases):
    image, label = phantom_case(3)
    np.testing.assert_array_equal(image, cases[3][0])
    np.testing.assert_array_equal(label, cases[3][1])


def test_values_and_types(cases):
    for image, label in cases:
        assert image.shape == label.shape == (24, 64, 64)
        assert image.dtype == np.float32
        assert label.dtype == np.uint8
        np.testing.assert_array_equal(image, image.astype(np.int16))
        assert np.isfinite(image).all()
        assert image.std() > 0


def test_every_class_in_every_case(cases):
    for _, label in cases:
        counts = np.bincount(label.ravel(), minlength=4)
        assert len(counts) == 4
        assert counts[1] > counts[3]
        assert counts[1:].min() >= 60
        assert counts[0] > label.size / 2


def test_lesion_touches_the_organ_and_artery_spans_the_stack(cases):
    for _, label in cases:
        around = ndimage.binary_dilation(label == LABELS["lesion"])
        assert (around & (label == LABELS["organ"])).any()
        assert (label == LABELS["artery"]).any(axis=(1, 2)).all()


def test_cases_differ_in_size_place_and_contrast(cases):
    organs = [label == LABELS["organ"] for _, label in cases]
    sizes = np.array([organ.sum() for organ in organs])
    assert sizes.std() / sizes.mean() > 0.15
    assert np.std([ndimage.center_of_mass(organ) for organ in organs], axis=0).min() > 1.0
    overlap = [2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in combinations(organs, 2)]
    assert 0.2 < np.mean(overlap) < 0.8
    means = np.array([image[organ].mean() for (image, _), organ in zip(cases, organs, strict=True)])
    assert means.std() / means.mean() > 0.15


@pytest.mark.parametrize("name", ["organ", "artery", "lesion"])
def test_look_alikes(cases, name):
    """Connected unlabelled regions in the body have the class's intensity, in nearly every case."""
    found = 0
    for image, label in cases:
        body = ndimage.gaussian_filter(image, 1.5) > 0.15 * image.max()
        inside = ndimage.binary_erosion(body, iterations=4)
        smooth = ndimage.gaussian_filter(image, 0.7)
        low, high = np.percentile(smooth[label == LABELS[name]], (20, 95))
        away = ~ndimage.binary_dilation(label > 0, iterations=2)
        parts, count = ndimage.label(inside & away & (smooth >= low) & (smooth <= high))
        found += count > 0 and np.bincount(parts.ravel())[1:].max() >= 20
    assert found >= 14


def test_lesion_stands_out_from_organ(cases):
    for image, label in cases:
        core = ndimage.binary_erosion(label == LABELS["lesion"])
        around = ndimage.binary_dilation(core, iterations=6) & (label == LABELS["organ"])
        if core.any():
            assert image[core].mean() > 1.05 * np.median(image[around])


def test_another_shape_and_too_small():
    image, label = phantom_case(0, (16, 48, 56))
    assert image.shape == (16, 48, 56)
    assert set(np.unique(label)) == {0, 1, 2, 3}
    with pytest.raises(LimitedError, match="too small"):
        phantom_case(0, (4, 16, 16))


def test_dataset_is_readable_nnunet_raw(dataset):
    description = json.loads((dataset / "dataset.json").read_text(encoding="utf-8"))
    assert description["labels"] == LABELS
    assert description["channel_names"] == {"0": "MRI"}
    assert description["numTraining"] == 3
    assert description["file_ending"] == ".nii.gz"
    for part, names in (("Tr", ["case_000", "case_001", "case_002"]), ("Ts", ["case_003", "case_004"])):
        images = sorted(file.name for file in (dataset / f"images{part}").iterdir())
        labels = sorted(file.name for file in (dataset / f"labels{part}").iterdir())
        assert images == [f"{name}_0000.nii.gz" for name in names]
        assert labels == [f"{name}.nii.gz" for name in names]
        for image_name, label_name in zip(images, labels, strict=True):
            image = sitk.ReadImage(str(dataset / f"images{part}" / image_name))
            label = sitk.ReadImage(str(dataset / f"labels{part}" / label_name))
            assert image.GetSize() == label.GetSize() == (64, 64, 24)
            assert image.GetSpacing() == label.GetSpacing() == pytest.approx(SPACING_XYZ)
            assert image.GetOrigin() == label.GetOrigin()
            assert image.GetDirection() == label.GetDirection()
            assert set(np.unique(sitk.GetArrayViewFromImage(label))) == {0, 1, 2, 3}
    assert {file.name for file in dataset.iterdir()} == {
        "dataset.json", "imagesTr", "labelsTr", "imagesTs", "labelsTs"
    }  # fmt: skip


def _voxels(file: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def test_dataset_is_a_function_of_its_seed(dataset, tmp_path):
    same = write_phantom_dataset(tmp_path, "Dataset001_Same", training=1, test=1)
    other = write_phantom_dataset(tmp_path, "Dataset002_Other", training=1, test=1, seed=1)
    first = "imagesTr/case_000_0000.nii.gz"
    np.testing.assert_array_equal(_voxels(dataset / first), _voxels(same / first))
    held_out = _voxels(dataset / "labelsTs/case_003.nii.gz")
    np.testing.assert_array_equal(held_out, _voxels(same / "labelsTs/case_001.nii.gz"))
    assert (_voxels(same / first) != _voxels(other / first)).any()
    assert (_voxels(same / first) != _voxels(same / "imagesTs/case_001_0000.nii.gz")).any()


def test_dataset_can_be_finished_but_not_mixed(tmp_path):
    folder = write_phantom_dataset(tmp_path, training=2, test=1)
    (folder / "dataset.json").unlink()
    (folder / "labelsTr/case_001.nii.gz").write_bytes(b"cut off")
    write_phantom_dataset(tmp_path, training=2, test=1)
    assert json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["numTraining"] == 2
    assert _voxels(folder / "labelsTr/case_001.nii.gz").max() == 3
    with pytest.raises(LimitedError, match="does not belong to this phantom dataset"):
        write_phantom_dataset(tmp_path, training=1, test=0)
    assert json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["numTraining"] == 2
    with pytest.raises(LimitedError, match="training >= 1"):
        write_phantom_dataset(tmp_path, "Dataset003_None", training=0)
