"""Which files of a folder count as labels or images of a dataset, which are passed over and which are refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nnunet_limited.datasets.listing import channels_by_case, files_by_case, image_ending, one_file_by_case
from nnunet_limited.errors import LimitedError

CASES = ("case_00", "case_01", "Liver 7", "M\u00fcller")
HARMLESS = ["dataset.json", "plans.json", "predict_from_raw_data_args.json", "case_00.json", "case_00.nii.gz.json"]
HARMLESS += ["Thumbs.db", ".DS_Store", "._case_01.nii.gz", ".case_01.nii.gz.12.tmp.nii.gz", "README", "case_00.npz"]
HARMLESS += ["case_00.nii.gz.bak", "case_00.nii.gz~", "case_01.nii.gz.md5", ".case_00.nii.gz.icloud", "case_01.txt"]
HARMLESS += ["notes.txt", "case_00.pkl", "Scene.mrml", "Scene.png", "case_00.png", "case_00.raw"]


def put(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def test_files_that_are_no_images_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "case_00.nii.gz", *HARMLESS)
    for name in ("old", "case_00 before", "case_012"):
        put(tmp_path / name, "case_00.nii.gz", "case_01.png", ".case_01.nii.gz")
    assert one_file_by_case(tmp_path, [".nii.gz"], CASES) == {"case_00": tmp_path / "case_00.nii.gz"}
    assert list(files_by_case(tmp_path, [".nii.gz"])) == ["case_00"]


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("case_01.nii", "ending .nii, but only .nii.gz or .seg.nrrd is read"),
        ("case_01.NII.GZ", "ending .NII.GZ"),
        ("case_01.nrrd", "ending .nrrd"),
        ("case_01.nhdr", "ending .nhdr"),
        ("case_01.mhd", "ending .mhd"),
        ("case_01.nii.gz.zip", "ending .nii.gz.zip"),
        ("case_01.png", "ending .png"),
        ("case_01.nii.gz.part", "ending .nii.gz.part"),
        ("case_01.nii.gz ", "ending '.nii.gz '"),
        ("case_01.gz", "has no ending of an image"),
        ("Case_01", "has no ending of an image"),
        ("other.mha", "ending .mha"),
        ("Case_01.nii.gz", "rename it to case_01.nii.gz"),
        ("case_01-label.nii.gz", "rename it to case_01.nii.gz"),
        ("case_01_0000.nii.gz", "rename it to case_01.nii.gz"),
        ("case_01.nii.gz.nii.gz", "rename it to case_01.nii.gz"),
        ("liver 7 Segmentation.seg.nrrd", "rename it to Liver 7.seg.nrrd"),
        ("case_012.nii.gz", "like no case"),
        ("case_01.nii.gz.old", "ending .nii.gz.old"),
        ("case_01.nii.gz.1", "ending .nii.gz.1"),
        ("case_01.seg.nrrd.dvc", "ending .seg.nrrd.dvc"),
        ("case_01.vtk", "ending .vtk"),
        ("case_01.tar.gz", "ending .tar.gz"),
        (".case_01.nii.gz.icloud", "ending .nii.gz.icloud"),
        ("Mu\u0308ller.nii.gz", "encodes accents otherwise than case M\u00fcller"),
    ],
)
def test_images_that_are_not_recognised_are_refused(tmp_path: Path, name: str, remedy: str) -> None:
    put(tmp_path, "case_00.nii.gz", name)
    with pytest.raises(LimitedError) as error:
        files_by_case(tmp_path, [".nii.gz", ".seg.nrrd"], CASES)
    assert str(tmp_path / name) in str(error.value)
    assert remedy in str(error.value)


@pytest.mark.parametrize("what", ["link", "pipe", "folder with ending", "folder of a case"])
def test_what_is_no_file_is_refused(tmp_path: Path, what: str) -> None:
    file = tmp_path / "case_01.nii.gz"
    if what == "link":
        file.symlink_to(tmp_path / "gone.nii.gz")
    elif what == "pipe":
        os.mkfifo(file)
    elif what == "folder with ending":
        file.mkdir()
    else:
        file = tmp_path / "case_01"
        file.mkdir()
    with pytest.raises(LimitedError, match=str(file)):
        files_by_case(tmp_path, [".nii.gz"], CASES)


@pytest.mark.parametrize(
    ("name", "header", "accepted"),
    [
        ("case_00.nrrd", "NRRD0004\ntype: short\ndata file: ../secret.raw\n\n", False),
        ("case_00.nrrd", "NRRD0004\ntype: short\ndatafile: case_00.raw.gz\n\n", False),
        ("case_00.nrrd", "NRRD0004\ntype: short\ndata file:=a name\n\ndata file: voxels", True),
        ("case_00.mha", "ObjectType = Image\nElementDataFile = case_00.raw\n", False),
        ("case_00.mha", "ObjectType = Image\nElementDataFile = LOCAL\n", True),
    ],
)
def test_voxels_in_another_file_are_refused(tmp_path: Path, name: str, header: str, accepted: bool) -> None:
    (tmp_path / name).write_text(header, encoding="utf-8")
    if accepted:
        assert files_by_case(tmp_path, [Path(name).suffix], CASES)
    else:
        with pytest.raises(LimitedError, match="keeps its voxels in another file"):
            files_by_case(tmp_path, [Path(name).suffix], CASES)


def test_a_case_has_one_file(tmp_path: Path) -> None:
    put(tmp_path, "case_00.nii.gz", "case_00.seg.nrrd")
    assert [file.name for file in files_by_case(tmp_path, [".nii.gz", ".seg.nrrd"], CASES)["case_00"]] == [
        "case_00.nii.gz",
        "case_00.seg.nrrd",
    ]
    with pytest.raises(LimitedError, match="two label files"):
        one_file_by_case(tmp_path, [".nii.gz", ".seg.nrrd"], CASES)


def test_images_have_a_channel_number_and_the_ending(tmp_path: Path) -> None:
    put(tmp_path, "a_0001.nii.gz", "a_0000.nii.gz", "._a_0000.nii.gz", "Scene.png")
    assert [file.name for file in channels_by_case(tmp_path, ".nii.gz")["a"]] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    for name in ("b_0000.nii", "b_0000.NII.GZ", "b_0000.png", "b_000.nii.gz", "b_0000", "b_0001.gz"):
        put(tmp_path, name)
        with pytest.raises(LimitedError, match=name):
            channels_by_case(tmp_path, ".nii.gz")
        (tmp_path / name).unlink()


def test_folders_beside_images(tmp_path: Path) -> None:
    """Copies of scans that are there, and what is no scan, may lie in folders."""
    put(tmp_path, "a_0000.nii.gz")
    put(tmp_path / "before", "a_0000.nii.gz", "b_0000.png", "notes", ".b_0000.nii.gz")
    assert list(channels_by_case(tmp_path, ".nii.gz")) == ["a"]
    put(tmp_path / "before", "b_0000.nii.gz")
    with pytest.raises(LimitedError, match=r"b_0000\.nii\.gz is in a folder, which is not read; move the file into"):
        channels_by_case(tmp_path, ".nii.gz")


def test_endings_are_read_without_regard_to_the_case_of_letters() -> None:
    assert [image_ending(name) for name in ("a.b.NII.gz", "a.seg.nrrd", "a.ome.tif", "a.nii.json", ".x.nii")] == [
        ".NII.gz",
        ".seg.nrrd",
        ".tif",
        "",
        "",
    ]
