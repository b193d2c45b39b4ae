"""What annotators return, in a scan of which only a part was asked for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from drawings import SHAPE, dataset, on_grid, segmentation
from helpers import command

from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.queries.answers import Annotated, Answer, check_window, read_answer
from nnunet_limited.queries.record import load_round, window_hash
from nnunet_limited.queries.windows import Window
from nnunet_limited.splits import load_split

WINDOW = Window("a", (1, 2, 3), (3, 4, 5))
HANDED = np.full(SHAPE, 3, np.uint8)
HANDED[WINDOW.inside] = 0


def truth() -> np.ndarray:
    """Return a label with a liver in and outside of the window."""
    label = np.zeros(SHAPE, np.uint8)
    label[2, 3:9, 4:11], label[3, 4, 5] = 1, 2
    return label


def returned(
    root: Path, image: sitk.Image | np.ndarray, name: str = "a.nii.gz", previous: np.ndarray | None = None
) -> Annotated:
    """Write the answer to the window and read it on the scan."""
    sitk.WriteImage(on_grid(image) if isinstance(image, np.ndarray) else image, str(root / name), True)
    raw = RawDataset.load("990")
    before = None
    if previous is not None:
        before = root / "previous.nii.gz"
        sitk.WriteImage(on_grid(previous), str(before))
    hashes = (window_hash(HANDED, WINDOW),)
    return read_answer(Answer(raw.cases["a"], root / name, (WINDOW,), hashes, before, raw.description, 3, raw.reader()))


def expected(outside: int = 3) -> np.ndarray:
    label = np.full(SHAPE, outside, np.uint8)
    label[WINDOW.inside] = truth()[WINDOW.inside]
    return label


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha"])
def test_zero_in_place_of_ignore_is_no_annotation(folders: Path, name: str) -> None:
    """The annotator has deleted or hidden the ignore label and exported the rest."""
    dataset(folders)
    made = returned(folders, np.where(expected() == 3, 0, expected()).astype(np.uint8), name)
    assert np.array_equal(made.label, expected())
    assert made.windows == [(1.0, False)]
    assert made.not_taken == truth().size - 60


def test_foreground_outside_of_the_window_counts_and_background_does_not(folders: Path) -> None:
    dataset(folders)
    made = returned(folders, truth())
    assert np.array_equal(made.label, np.where((expected() == 3) & (truth() > 0), truth(), expected()))


def test_a_label_map_that_keeps_the_ignore_label_in_part(folders: Path) -> None:
    dataset(folders)
    label = expected()
    label[5, :2] = 0
    made = returned(folders, label)
    assert np.array_equal(made.label, expected())
    assert made.not_taken == 24


def test_what_was_annotated_before_stays(folders: Path) -> None:
    """Its voxels are 0 in the answer, as another segment was exported alone."""
    dataset(folders)
    previous = np.full(SHAPE, 3, np.uint8)
    previous[5, 5], previous[0] = 2, 0
    made = returned(folders, np.where(expected() == 3, 0, expected()).astype(np.uint8), previous=previous)
    assert np.array_equal(made.label, np.where(expected() == 3, previous, expected()))
    assert made.not_taken == truth().size - 60 - 120


def test_a_segment_named_background_counts_everywhere(folders: Path) -> None:
    dataset(folders)
    image = on_grid(np.where(truth() == 0, 7, truth()).astype(np.uint8))
    segmentation(folders / "x.seg.nrrd", image, {1: "liver", 2: "tumour", 7: "background"})
    made = returned(folders, image, "a.seg.nrrd")
    assert np.array_equal(made.label, truth())


@pytest.mark.parametrize("cold", [True, False])
def test_a_segmentation_in_which_nothing_was_drawn(folders: Path, cold: bool) -> None:
    """3D Slicer writes one voxel: there is background in the whole window, also if that is what was handed out."""
    dataset(folders)
    HANDED[WINDOW.inside] = 0 if cold else 1
    image = sitk.Image([1, 1, 1], sitk.sitkUInt8)
    segmentation(folders / "x.seg.nrrd", image, {1: "liver", 2: "tumour"})
    made = returned(folders, image, "a.seg.nrrd")
    HANDED[WINDOW.inside] = 0
    assert made.windows == [(1.0, False)]
    assert (made.label[WINDOW.inside] == 0).all()
    assert (made.label == 3).sum() == truth().size - 60
    with pytest.raises(LimitedError, match="has spacing"):  # a label map of one voxel may be of any scan
        returned(folders, sitk.Image([1, 1, 1], sitk.sitkUInt8), "a.mha")


def test_labels_with_other_numbers_are_refused(folders: Path) -> None:
    """A program has numbered the segments in turn, so that ignore is 2 as nobody drew a tumour."""
    dataset(folders)
    label = np.where(expected() == 2, 1, expected())
    with pytest.raises(LimitedError, match="has the value 2 in 100 % of the voxels that had the ignore label 3"):
        returned(folders, np.where(label == 3, 2, label).astype(np.uint8))


@pytest.mark.parametrize("value", [65537, 65539, 2**31 + 1])
def test_values_are_not_wrapped(folders: Path, value: int) -> None:
    dataset(folders)
    label = expected().astype(np.int64)
    label[0, 0, 0] = value
    with pytest.raises(LimitedError, match=f"has the value {value}"):
        returned(folders, label.astype(np.uint32))


def test_windows_outside_of_the_scan() -> None:
    for start, size in (((0, 0, 8), (1, 1, 5)), ((0, 0), (1, 1)), ((6, 0, 0), (1, 1, 1))):
        with pytest.raises(LimitedError, match=r"asks for the voxels from .* of case a"):
            check_window(Window("a", start, size), SHAPE)
    check_window(Window("a", (5, 9, 11), (1, 1, 1)), SHAPE)


def test_scans_added_since_the_query_are_offered(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """But not those of a patient who is validated on; their labels are not used."""
    raw = dataset(folders, dense="ab")
    out = folders / "round_1"
    assert command("split", "990", "--name", "s", "--folds", "2", "--group-by", "^.") == 0
    (validated,) = load_split(folders / "preprocessed" / raw.name, "s").fold(0).val
    pool = ("--split", "s", "-f", "0", "--strategy", "random", "--items", "1")
    assert command("query", "990", *pool, "--out", str(out)) == 0
    for case in ("a2", "b2", "d"):
        image = np.full(SHAPE, len(case) + ord(case[0]), np.float32)
        sitk.WriteImage(on_grid(image), str(raw / "imagesTr" / f"{case}_0000.nii.gz"))
        shutil.copy(raw / "labelsTr" / "a.nii.gz", raw / "labelsTr" / f"{case}.nii.gz")
    assert load_round(out).cases == ["c"]
    sitk.WriteImage(on_grid(truth()), str(out / "labels" / "c.nii.gz"))
    capsys.readouterr()
    assert command("absorb", str(out), "--out", "Dataset991_Next") == 0
    offered = sorted({"a2", "b2", "d"} - {f"{validated}2"})
    printed = " ".join(capsys.readouterr().out.split())
    assert f"Scans added since the query, unlabelled in the new split: {', '.join(offered)}." in printed
    assert f"Left out, as their patients are validated on: {validated}2." in printed
    split = load_split(folders / "preprocessed" / "Dataset991_Next", "r1")
    assert sorted(split.fold(0).unlabeled) == offered
    assert RawDataset.load("991").without_label == ["a2", "b2", "d"]


def test_an_oracle_writes_nothing_before_all_is_checked(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = dataset(folders, dense="a")
    out, oracle = folders / "round_1", folders / "oracle"
    assert command("query", "990", "--items", "2", "--strategy", "random", "--out", str(out)) == 0
    shutil.copytree(raw / "labelsTr", oracle)
    first, last = load_round(out).cases
    shutil.copy(oracle / "a.nii.gz", oracle / f"{first}.nii.gz")
    sitk.WriteImage(on_grid(truth())[:, :, 1:], str(oracle / f"{last}.nii.gz"))
    before = {file: file.read_bytes() for file in (out / "labels").iterdir()}
    assert command("absorb", str(out), "--out", "Dataset991_Next", "--oracle", str(oracle)) == 2
    assert f"{last}.nii.gz has shape (5, 10, 12)" in capsys.readouterr().err
    assert before == {file: file.read_bytes() for file in (out / "labels").iterdir()}


@pytest.mark.parametrize("name", ["mitk_answer.nrrd", "mitk_answer_named.nrrd"])
def test_an_initial_label_that_mitk_has_saved(folders: Path, name: str) -> None:
    """MITK calls the ignore label of the file "object-3"; the classes were added by their names."""
    dataset(folders)
    raw, file = RawDataset.load("990"), Path(__file__).parents[1] / "datasets" / "other_programs" / name
    hashes = (window_hash(HANDED, WINDOW),)
    made = read_answer(Answer(raw.cases["a"], file, (WINDOW,), hashes, None, raw.description, 3, raw.reader()))
    assert np.array_equal(made.label, expected())
    assert made.windows == [(1.0, False)]
