"""Raw datasets that nnU-Net accepts are read as nnU-Net reads them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from nnunet_limited.datasets.description import DatasetDescription, check_description
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError

NAME = "Dataset801_Names"
PLAIN = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "organ": 1}, "file_ending": ".nii.gz"}


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a dataset of two labelled cases and one without label, whose files hold only their names."""
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    folder = tmp_path / NAME
    for name in ("imagesTr/a_0000", "imagesTr/b_0000", "imagesUn/u_0000", "labelsTr/a", "labelsTr/b"):
        put(folder / f"{name}.nii.gz")
    describe(folder)
    return folder


def put(file: Path, content: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content or str(file), encoding="utf-8")


def describe(folder: Path, **changes: Any) -> None:
    (folder / "dataset.json").write_text(json.dumps({**PLAIN, **changes}), encoding="utf-8")


def test_other_files_are_no_cases(raw: Path) -> None:
    for name in ("imagesTr/._a_0000.nii.gz", "imagesUn/Thumbs.db", "labelsTr/.DS_Store", "labelsTr/a.json"):
        put(raw / name)
    put(raw / "imagesTr/overview.png")
    put(raw / "labelsTr/backup/a.nii.gz")
    put(raw / "imagesTs/t.nrrd")
    found = RawDataset.load("801")
    assert (found.labeled, found.without_label) == (["a", "b"], ["u"])


def test_a_missing_label_makes_a_case_unlabelled(raw: Path) -> None:
    (raw / "labelsTr/b.nii.gz").unlink()
    assert RawDataset.load("801").without_label == ["b", "u"]
    shutil.rmtree(raw / "labelsTr")
    assert RawDataset.load("801").labeled == []


def test_links_to_files_and_folders_are_followed(raw: Path) -> None:
    (raw / "labelsTr").rename(raw / "elsewhere")
    (raw / "labelsTr").symlink_to("elsewhere")
    (raw / "imagesUn/v_0000.nii.gz").symlink_to(raw.parent / "v.nii.gz")
    put(raw.parent / "v.nii.gz")
    found = RawDataset.load("801")
    assert (found.labeled, found.without_label) == (["a", "b"], ["u", "v"])


def test_a_subset_that_dataset_json_lists_leaves_other_files_alone(raw: Path) -> None:
    put(raw / "labelsTr/other-label.nrrd")
    listed = {"a": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}}
    describe(raw, dataset=listed)
    assert RawDataset.load("801").labeled == ["a"]


@pytest.mark.parametrize("size", [10, 100_000])
def test_copies_of_labelled_images_are_found(raw: Path, size: int) -> None:
    put(raw / "imagesTr/a_0000.nii.gz", "x" * size)
    put(raw / "imagesUn/u_0000.nii.gz", "x" * (size - 1) + "y")
    put(raw / "imagesTr/c_0000.nii.gz", "x" * size)
    put(raw / "labelsTr/c.nii.gz")
    assert RawDataset.load("801").without_label == ["u"]  # two labelled cases may share an image: two raters
    put(raw / "imagesUn/u_0000.nii.gz", "x" * size)
    with pytest.raises(LimitedError, match=r"u_0000\.nii\.gz of the unlabelled case u is that of the labelled case a"):
        RawDataset.load("801")


@pytest.mark.parametrize(
    "changes",
    [
        {
            "labels": {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "active": 3},
            "regions_class_order": [1, 2, 3],
        },
        {
            "labels": {"background": 0, "kidney": [1, 2, 3], "mass": [2, 3], "tumour": 2},
            "regions_class_order": [1, 3, 2],
        },
        {"labels": {"background": 0, "one": [1, 3], "other": [2, 3]}, "regions_class_order": [1, 2]},
        {"labels": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}, "regions_class_order": [1, 2]},
        {"labels": {"ignore": 3, "whole": [1, 2], "background": 0, "core": 2}, "regions_class_order": [1, 2]},
        {"labels": {"background": 0, "organ": "1", "lesion": "2"}},
        {"labels": {"background": 0, "organ": [1]}, "regions_class_order": [1]},
        {"labels": {"background": 0, "organ": 1}, "regions_class_order": None},
        {"channel_names": {"0": "T1", "1": "T2", "10": "CT"}},
        {"channel_names": {"T2": "T2", "T1": "T1"}},
        {"channel_names": None, "modality": {"0": "CT"}},
        {"overwrite_image_reader_writer": "None"},
        {"overwrite_image_reader_writer": "SimpleITKIO", "file_ending": ".nii"},
        {"overwrite_image_reader_writer": "NibabelIOWithReorient"},
        {"file_ending": ".PNG"},
        {"file_ending": ".tiff", "name": "a", "licence": "b", "numTest": 0, "training": [], "test": [], "release": "1"},
        {"dataset_name": "a", "datasets": ["b"], "description": "c", "reference": "d", "tensorImageSize": "4D"},
    ],
)
def test_descriptions_that_nnunet_learns_rightly_are_accepted(changes: dict[str, Any]) -> None:
    content = {key: value for key, value in {**PLAIN, **changes}.items() if value is not None}
    check_description(content, Path("dataset.json"))


def test_one_label_in_a_list_is_no_region() -> None:
    labels = {"background": 0, "b": [2], "a": [1]}
    description = DatasetDescription({"labels": labels, "regions_class_order": [2, 1]})
    assert not description.has_regions
    assert list(description.foreground) == ["a", "b"]
