"""Labels as people's programs write them, brought into a view of their dataset."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_limited.datasets.import_labels import import_labels
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.datasets.request import ImportRequest
from nnunet_limited.errors import LimitedError

IGNORE = 3
SHAPE = (6, 10, 12)  # z, y, x
DIRECTION = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def on_grid(array: np.ndarray, start: tuple[int, ...] = (0, 0, 0)) -> sitk.Image:
    """Return an image on the dataset's grid, whose first voxel is that at ``start`` (z, y, x)."""
    grid = sitk.Image(SHAPE[::-1], sitk.sitkUInt8)
    grid.SetSpacing((1.5, 2.0, 5.0))
    grid.SetOrigin((-20.0, 30.0, 7.0))
    grid.SetDirection(DIRECTION)
    image = sitk.GetImageFromArray(array, isVector=array.ndim == 4)
    image.SetSpacing(grid.GetSpacing())
    image.SetDirection(DIRECTION)
    image.SetOrigin(grid.TransformIndexToPhysicalPoint(start[::-1]))
    return image


@pytest.fixture
def raw(folders: Path) -> Path:
    """A dataset of three scans, the first with a dense label."""
    folder = folders / "raw" / "Dataset990_Scans"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for case in "abc":
        image = np.random.RandomState(ord(case)).normal(size=SHAPE).astype(np.float32)
        sitk.WriteImage(on_grid(image), str(folder / "imagesTr" / f"{case}_0000.nii.gz"))
    sitk.WriteImage(on_grid(np.ones(SHAPE, np.uint8)), str(folder / "labelsTr" / "a.nii.gz"))
    labels = {"background": 0, "liver": 1, "tumour": 2}
    content = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 3, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    (folders / "drawn").mkdir()
    return folder


def drawn_label() -> np.ndarray:
    label = np.full(SHAPE, 9, np.uint8)
    label[1, 2:4, 2:5], label[1, 5, 5], label[3, 7:9, 1] = 0, 1, 2
    return label


def brought(raw: Path, case: str, **request) -> np.ndarray:
    """Bring labels in; return what the view says of a case."""
    record = import_labels(ImportRequest(dataset="990", out="Dataset991_Sparse", **request), 1)
    assert record["ignore"] == IGNORE
    dataset = RawDataset.load("991")
    image = sitk.ReadImage(str(dataset.cases[case].label))
    assert image.GetSpacing() == pytest.approx((1.5, 2.0, 5.0))
    assert image.GetDirection() == pytest.approx(DIRECTION)
    return sitk.GetArrayFromImage(image)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_label_maps_of_every_format(raw: Path, folders: Path, ending: str) -> None:
    sitk.WriteImage(on_grid(drawn_label()), str(folders / "drawn" / f"b{ending}"))
    made = brought(raw, "b", labels=folders / "drawn", unlabeled=9)
    assert np.array_equal(made, np.where(drawn_label() == 9, IGNORE, drawn_label()))
    dataset = RawDataset.load("991")
    assert dataset.labeled == ["a", "b"]
    assert dataset.without_label == ["c"]
    assert dataset.cases["a"].label.resolve() == (raw / "labelsTr" / "a.nii.gz").resolve(), "the dense label is kept"
    assert dataset.cases["b"].truth is None
    assert dataset.cases["c"].images[0].resolve() == (raw / "imagesTr" / "c_0000.nii.gz").resolve()


def test_background_drawn_as_a_label_of_its_own(raw: Path, folders: Path) -> None:
    """Where a program keeps 0 for what was not drawn."""
    label = np.where(drawn_label() == 9, 0, np.where(drawn_label() == 0, 7, drawn_label())).astype(np.uint8)
    sitk.WriteImage(on_grid(label), str(folders / "drawn" / "a.nii.gz"))
    made = brought(raw, "a", labels=folders / "drawn", unlabeled=0, background=7)
    assert np.array_equal(made, np.where(drawn_label() == 9, IGNORE, drawn_label()))
    truth = RawDataset.load("991").cases["a"].truth
    assert (sitk.GetArrayFromImage(sitk.ReadImage(str(truth))) == 1).all(), "validated on the dense label"


@pytest.mark.parametrize("layers", [1, 2])
def test_segments_of_3d_slicer(raw: Path, folders: Path, layers: int) -> None:
    """A file that covers a part of the image, with segments known by their names, in one layer or several."""
    part = drawn_label()[1:4, 2:9, :6]
    numbers = {"Background": (0, 4, 0), "Tumour": (2, 1, 0), "liver": (1, 1, 1) if layers == 2 else (1, 3, 0)}
    array = np.zeros((*part.shape, layers), np.uint8)
    for value, number, layer in numbers.values():
        array[..., layer][part == value] = number
    image = on_grid(array if layers == 2 else array[..., 0], (1, 2, 0))
    for n, (name, (_, number, layer)) in enumerate(numbers.items()):
        image.SetMetaData(f"Segment{n}_Name", name)
        image.SetMetaData(f"Segment{n}_LabelValue", str(number))
        image.SetMetaData(f"Segment{n}_Layer", str(layer))
    sitk.WriteImage(image, str(folders / "drawn" / "c.seg.nrrd"))
    made = brought(raw, "c", labels=folders / "drawn", unlabeled=0, background=4)
    assert np.array_equal(made, np.where(drawn_label() == 9, IGNORE, drawn_label()))


def test_segments_that_overlap_are_refused(raw: Path, folders: Path) -> None:
    array = np.ones((*SHAPE, 2), np.uint8)
    array[..., 1] = 2
    image = on_grid(array)
    for n in range(2):
        image.SetMetaData(f"Segment{n}_LabelValue", str(n + 1))
        image.SetMetaData(f"Segment{n}_Layer", str(n))
    sitk.WriteImage(image, str(folders / "drawn" / "c.seg.nrrd"))
    with pytest.raises(LimitedError, match="overlaps"):
        brought(raw, "c", labels=folders / "drawn", unlabeled=0, background=4)
    assert not (folders / "raw" / "Dataset991_Sparse").exists()


@pytest.mark.parametrize("coordinates", ["voxel", "lps", "ras"])
@pytest.mark.parametrize("as_json", [False, True])
def test_points(raw: Path, folders: Path, coordinates: str, as_json: bool) -> None:
    grid = on_grid(np.zeros(SHAPE, np.uint8))
    clicks = [("b", "liver", (3, 4, 2)), ("b", "0", (9, 8, 5)), ("b", 2, (6, 1, 0))]  # x, y, z
    rows = []
    for case, name, voxel in clicks:
        place = voxel if coordinates == "voxel" else grid.TransformIndexToPhysicalPoint(voxel)
        place = (-place[0], -place[1], place[2]) if coordinates == "ras" else place
        rows.append({"case": case, "class": name, **dict(zip("xyz", place, strict=True))})
    file = folders / ("points.json" if as_json else "points.csv")
    lines = ["case,class,x,y,z", *(",".join([*map(str, row.values()), ""]) for row in rows)]  # spreadsheets end so
    file.write_text(json.dumps(rows) if as_json else "\n".join(lines), encoding="utf-8")
    made = brought(raw, "b", points=file, coordinates=coordinates, radius=1.0)
    expected = np.full(SHAPE, IGNORE)
    for value, (x, y, z) in ((1, (3, 4, 2)), (0, (9, 8, 5)), (2, (6, 1, 0))):
        expected[z, y, x - 1 : x + 2] = value  # 1.5 mm reach the next voxel along x only
    assert np.array_equal(made, expected)


def test_points_that_meet_say_nothing_where_they_do(raw: Path, folders: Path) -> None:
    file = folders / "points.csv"
    file.write_text("case,class,x,y,z\nb,1,3,4,2\nb,2,5,4,2\nb,0,9,9,5", encoding="utf-8")
    made = brought(raw, "b", points=file, radius=1.0)
    assert made[2, 4, 2:7].tolist() == [1, 1, IGNORE, 2, 2]


@pytest.mark.parametrize("coordinates", ["voxel", "lps"])
def test_boxes(raw: Path, folders: Path, coordinates: str) -> None:
    """Voxel corners are the first and last voxel, in either order; millimetres are those of their centres."""
    grid = on_grid(np.zeros(SHAPE, np.uint8))
    corners = [("tumour", (7, 3, 1), (4, 6, 2)), ("liver", (0, 0, 4), (1, 1, 5))]
    lines = ["case,class,x0,y0,z0,x1,y1,z1"]
    for name, *both in corners:
        places = [corner if coordinates == "voxel" else grid.TransformIndexToPhysicalPoint(corner) for corner in both]
        lines.append(f"c,{name}," + ",".join(str(v) for place in places for v in place))
    (folders / "boxes.csv").write_text("\n".join(lines), encoding="utf-8")
    made = brought(raw, "c", boxes=folders / "boxes.csv", coordinates=coordinates)
    expected = np.zeros(SHAPE)
    expected[1:3, 3:7, 4:8] = IGNORE
    expected[4:6, 0:2, 0:2] = IGNORE
    assert np.array_equal(made, expected)
    record = json.loads((folders / "raw" / "Dataset991_Sparse" / "annotations.json").read_text(encoding="utf-8"))
    assert record["cases"]["c"]["boxes"] == [[2, [1, 3, 4], [3, 7, 8]], [1, [4, 0, 0], [6, 2, 2]]]


def test_what_slicer_does_not_segment_is_not_annotated(raw: Path, folders: Path) -> None:
    """Whatever the value of the rest is said to be; and a name that is not a class is not a class."""
    image = on_grid((drawn_label() == 1).astype(np.uint8))
    image.SetMetaData("Segment0_LabelValue", "1")
    image.SetMetaData("Segment0_Name", "liver")
    sitk.WriteImage(image, str(folders / "drawn" / "c.seg.nrrd"))
    label = np.full(SHAPE, 9, np.uint8)
    label[0, 0, :2] = 0, 2
    sitk.WriteImage(on_grid(label), str(folders / "drawn" / "b.nii.gz"))
    made = brought(raw, "c", labels=folders / "drawn", unlabeled=9)
    assert np.array_equal(made, np.where(drawn_label() == 1, 1, IGNORE))
    image.SetMetaData("Segment0_Name", "Lever")
    sitk.WriteImage(image, str(folders / "drawn" / "c.seg.nrrd"))
    with pytest.raises(LimitedError, match=r"'Lever' is not a class; .*background, liver, tumour"):
        import_labels(ImportRequest(dataset="990", out="Dataset992_Sparse", labels=folders / "drawn", unlabeled=9), 1)


@pytest.mark.parametrize("source", ["labels", "points", "boxes"])
def test_single_images(folders: Path, source: str) -> None:
    """Images of two dimensions, whose z does not count."""
    folder = folders / "raw" / "Dataset990_Planes"
    (folder / "imagesTr").mkdir(parents=True)
    (folders / "drawn").mkdir()
    sitk.WriteImage(sitk.Image(12, 10, sitk.sitkFloat32) + 1, str(folder / "imagesTr" / "a_0000.nii.gz"))
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "numTraining": 1}
    (folder / "dataset.json").write_text(json.dumps({**content, "file_ending": ".nii.gz"}), encoding="utf-8")
    expected = np.full((10, 12), 2)
    expected[2, 3:6], expected[7, 1:3] = 1, 0
    request = {}
    if source == "labels":
        sitk.WriteImage(
            sitk.GetImageFromArray(np.where(expected == 2, 9, expected).astype(np.uint8)),
            str(folders / "drawn" / "a.nii.gz"),
        )
        request = {"labels": folders / "drawn", "unlabeled": 9}
    elif source == "points":
        (folders / "points.csv").write_text("\ufeffcase,class,x,y,z\na,1,4,2,0\na,0,8,7,0\n", encoding="utf-8")
        expected = np.full((10, 12), 2)
        expected[2, 3:6] = expected[1:4, 4] = 1
        expected[7, 7:10] = expected[6:9, 8] = 0
        request = {"points": folders / "points.csv", "radius": 1.0}
    else:
        (folders / "boxes.csv").write_text("case,class,x0,y0,z0,x1,y1,z1\na,1,3,2,0,5,4,0\n", encoding="utf-8")
        expected = np.zeros((10, 12))
        expected[2:5, 3:6] = 2
        request = {"boxes": folders / "boxes.csv"}
    record = import_labels(ImportRequest(dataset="990", out="Dataset991_Sparse", **request), 1)
    made = sitk.GetArrayFromImage(sitk.ReadImage(str(RawDataset.load("991").cases["a"].label)))
    assert np.array_equal(made, expected)
    assert record["cases"]["a"]["slices"] == 1
    assert record["cases"]["a"]["marks"] == (1 if source == "boxes" else 2)
