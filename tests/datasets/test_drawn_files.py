"""Files of 3D Slicer, MITK, ITK-SNAP and other programs are imported voxel for voxel, or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import nrrd
import numpy as np
import pytest
import SimpleITK as sitk
import slicerio
from drawings import IGNORE, NAMES, SHAPE, by_pynrrd, dataset, imported, meant, on_grid, right, segmentation, strokes

from nnunet_limited.datasets.import_labels import import_labels
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.datasets.request import ImportRequest
from nnunet_limited.errors import LimitedError

SLICER = Path(slicerio.__file__).parent / "data"
MITK = "org.mitk.multilabel.segmentation"


@pytest.mark.parametrize("kind", ["Segmentation", "SegmentationOverlapping", "cropped", "plain"])
def test_files_that_3d_slicer_has_written(folders: Path, kind: str) -> None:
    """One layer and two, a part of the scan, and the same file as .nrrd."""
    written = SLICER / f"{kind if kind.startswith('Seg') else 'Segmentation'}.seg.nrrd"
    values, header = nrrd.read(str(written))
    layers = values if values.ndim == 4 else values[None]
    numbers = [n for n in range(20) if f"Segment{n}_Name" in header]
    classes = [header[f"Segment{n}_Name"] for n in reversed(numbers)]  # so that names count, not numbers
    expected = np.full(layers.shape[1:], len(classes) + 1)
    for n in numbers:
        inside = layers[int(header[f"Segment{n}_Layer"])] == int(header[f"Segment{n}_LabelValue"])
        expected[inside] = classes.index(header[f"Segment{n}_Name"]) + 1
    raw, drawn = folders / "raw" / "Dataset990_Chest", folders / "drawn"
    for folder in (raw / "imagesTr", raw / "labelsTr", drawn):
        folder.mkdir(parents=True)
    shutil.copy(SLICER / "CTChest4.nrrd", raw / "imagesTr" / "a_0000.nrrd")
    dense = sitk.ReadImage(str(SLICER / "CTChest4.nrrd")) * 0  # another scan teaches the background
    sitk.WriteImage(dense, str(raw / "imagesTr" / "b_0000.nrrd"))
    sitk.WriteImage(sitk.Cast(dense, sitk.sitkUInt8), str(raw / "labelsTr" / "b.nrrd"))
    labels = {"background": 0, **{name: n for n, name in enumerate(classes, 1)}}
    content = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nrrd"}
    (raw / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    if kind == "cropped":
        inside = np.s_[10:90, 5:120, 3:30]
        header["space origin"] = header["space origin"] + np.array([10, 5, 3]) @ header["space directions"]
        nrrd.write(str(drawn / "a.seg.nrrd"), values[inside], header)
        whole, expected = expected, np.full(expected.shape, len(classes) + 1)
        expected[inside] = whole[inside]
    else:
        shutil.copy(written, drawn / ("a.nrrd" if kind == "plain" else "a.seg.nrrd"))
    if kind == "SegmentationOverlapping":
        with pytest.raises(LimitedError, match="'overlapping sphere' overlaps another in 6182 voxels"):
            import_labels(
                ImportRequest(dataset="990", out="Dataset991_Chest", labels=drawn, unlabeled=0, background=99), 1
            )
        values[0][values[1] > 0] = 0  # erased where they overlap
        nrrd.write(str(drawn / "a.seg.nrrd"), values, header)
    import_labels(ImportRequest(dataset="990", out="Dataset991_Chest", labels=drawn, unlabeled=0, background=99), 1)
    made = sitk.GetArrayFromImage(sitk.ReadImage(str(RawDataset.load("991").cases["a"].label)))
    assert np.array_equal(made, expected.transpose(2, 1, 0))


def groups(*labels: dict[int, str]) -> dict[str, str]:
    """Return the header of a segmentation of MITK with groups of labels."""
    content = [{"labels": [{"name": n, "value": v, "locked": True} for v, n in group.items()]} for group in labels]
    return {f"{MITK}.version": "1", f"{MITK}.labelgroups": json.dumps(content)}


@pytest.mark.parametrize("names", [{1: "Label 1", 2: "Label 2", 9: "rest"}, {2: "liver", 1: "Tumour", 9: "background"}])
def test_a_segmentation_of_mitk(folders: Path, names: dict[int, str]) -> None:
    """Its numbers count unless the names of its labels are those of classes."""
    dataset(folders)
    by_number = strokes() if names[1] == "Label 1" else np.array([0, 2, 1, *range(3, 10)])[strokes()]
    by_pynrrd(folders / "drawn" / "b.nrrd", by_number.astype(np.uint8), groups(names))
    assert np.array_equal(imported(folders, "b"), right())


def test_groups_of_mitk(folders: Path) -> None:
    dataset(folders)
    layers = np.stack([np.where(strokes() == 1, 0, strokes()), np.where(strokes() == 1, 1, 0)], -1).astype(np.uint8)
    by_pynrrd(folders / "drawn" / "b.nrrd", layers, groups({2: "tumour", 9: "background"}, {1: "liver"}))
    assert np.array_equal(imported(folders, "b"), right())


def test_names_in_a_nrrd_decide(folders: Path) -> None:
    """The numbers in the file are those of other classes."""
    dataset(folders)
    drawn = np.array([0, 2, 1, 0, 0, 0, 0, 0, 0, 3], np.uint8)[strokes()]
    segmentation(folders / "drawn" / "b.nrrd", on_grid(drawn), {1: "tumour", 2: " Liver ", 3: "background"})
    assert np.array_equal(imported(folders, "b", background=3), right())


def test_a_segmentation_larger_than_the_scan(folders: Path) -> None:
    dataset(folders)
    padded = np.pad(strokes(), ((1, 0), (2, 2), (3, 0)))
    segmentation(folders / "drawn" / "b.seg.nrrd", on_grid(padded, (-1, -2, -3)), NAMES)
    sitk.WriteImage(on_grid(padded, (-1, -2, -3)), str(folders / "drawn" / "c.nii.gz"))
    assert np.array_equal(imported(folders, "b"), right())
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(RawDataset.load("991").cases["c"].label))), right())
    padded[0, 0, 0] = 2
    segmentation(folders / "drawn" / "b.seg.nrrd", on_grid(padded, (-1, -2, -3)), NAMES)
    shutil.rmtree(folders / "raw" / "Dataset991_Sparse")
    with pytest.raises(LimitedError, match="1 drawn voxels are outside"):
        imported(folders, "b")


def test_axes_in_another_order(folders: Path) -> None:
    """As programs write them that turn images to their own axes."""
    dataset(folders)
    image = on_grid(strokes())
    sitk.WriteImage(sitk.Flip(image, [True, False, True]), str(folders / "drawn" / "a.nii.gz"))
    sitk.WriteImage(sitk.PermuteAxes(image, [2, 0, 1]), str(folders / "drawn" / "b.mha"))
    segmentation(folders / "drawn" / "c.seg.nrrd", sitk.DICOMOrient(image, "RAS")[1:, 2:, :], NAMES)
    assert np.array_equal(imported(folders, "a"), right())
    for case in "bc":
        label = sitk.GetArrayFromImage(sitk.ReadImage(str(RawDataset.load("991").cases[case].label)))
        assert np.array_equal(label, right())


def test_one_volume_over_time(folders: Path) -> None:
    dataset(folders)
    sitk.WriteImage(sitk.JoinSeries(on_grid(strokes())), str(folders / "drawn" / "b.nii.gz"))
    assert np.array_equal(imported(folders, "b"), right())


@pytest.mark.parametrize("names", [("liver", "tumour", "background"), ("tumour", "liver", "background")])
def test_3d_slicer_before_4_11(folders: Path, names: tuple[str, ...]) -> None:
    """Each segment is 1 in a component of its own, and has no value."""
    dataset(folders)
    value = {name: number for number, name in NAMES.items()}
    layers = np.stack([strokes() == value[name] for name in names], -1).astype(np.uint8)
    fields = {f"Segment{n}_{key}": text for n, name in enumerate(names) for key, text in (("Name", name), ("ID", name))}
    by_pynrrd(folders / "drawn" / "b.seg.nrrd", layers, fields)
    assert np.array_equal(imported(folders, "b"), right())


def test_regions_have_names(folders: Path) -> None:
    """A region is the value that nnU-Net writes for it, and may be drawn over one that contains it."""
    labels = {"background": 0, "organ": [1, 2], "tumour": 2}
    dataset(folders, labels=labels, regions_class_order=[1, 2])
    names = {1: "organ", 2: "tumour", 9: "background"}
    segmentation(folders / "drawn" / "b.seg.nrrd", on_grid(strokes()), names)
    layers = np.stack([np.where(strokes() == 2, 1, strokes()), np.where(strokes() == 2, 2, 0)], -1).astype(np.uint8)
    image = on_grid(layers)
    for number, (value, name) in enumerate(names.items()):
        for key, text in (("LabelValue", value), ("Layer", int(value == 2)), ("Name", name)):
            image.SetMetaData(f"Segment{number}_{key}", str(text))
    sitk.WriteImage(image, str(folders / "drawn" / "c.seg.nrrd"))
    assert np.array_equal(imported(folders, "b"), right())
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(RawDataset.load("991").cases["c"].label))), right())


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.uint32, np.float64])
def test_values_beyond_16_bits_are_not_wrapped(folders: Path, dtype: Any) -> None:
    dataset(folders)
    label = strokes(0).astype(dtype)
    label[label == 0] = 65535
    sitk.WriteImage(on_grid(label), str(folders / "drawn" / "b.nii.gz"))
    assert np.array_equal(imported(folders, "b", unlabeled=65535), right())
    if dtype != np.uint16:
        label[0, 0, 0] = 65537
        sitk.WriteImage(on_grid(label), str(folders / "drawn" / "b.nii.gz"))
        shutil.rmtree(folders / "raw" / "Dataset991_Sparse")
        with pytest.raises(LimitedError, match="has the value 65537, which is neither a class"):
            imported(folders, "b", unlabeled=65535)


def test_classes_that_only_kept_labels_teach(folders: Path) -> None:
    """Neither background nor tumour is drawn, but another scan keeps a dense label."""
    dataset(folders, dense="a")
    sitk.WriteImage(on_grid((strokes() == 1).astype(np.uint8)), str(folders / "drawn" / "b.nii.gz"))
    assert set(np.unique(imported(folders, "b"))) == {1, IGNORE}
    shutil.rmtree(folders / "raw" / "Dataset991_Sparse")
    (folders / "drawn" / "b.nii.gz").rename(folders / "drawn" / "a.nii.gz")  # its own label is validated on
    with pytest.raises(LimitedError, match=r"label 0 \(background\) is drawn in no case; draw it"):
        imported(folders, "a")


def test_one_file_without_the_value_of_unannotated_voxels(folders: Path) -> None:
    """It is fully annotated, which the record tells; if all are, the value is wrong."""
    dataset(folders)
    label = np.where(strokes(0) == 9, 0, strokes(0)).astype(np.uint8)
    sitk.WriteImage(on_grid(label), str(folders / "drawn" / "b.nii.gz"))
    with pytest.raises(LimitedError, match=r"--unlabeled 255: no label file in .* has this value"):
        imported(folders, "b", unlabeled=255, background=0)
    sparse = np.where(strokes(255) == 9, 0, strokes(255)).astype(np.uint8)
    sitk.WriteImage(on_grid(sparse), str(folders / "drawn" / "a.nii.gz"))
    assert np.array_equal(imported(folders, "b", unlabeled=255, background=0), label)
    record = json.loads((folders / "raw/Dataset991_Sparse/annotations.json").read_text(encoding="utf-8"))
    assert [case for case, about in record["cases"].items() if about["complete"]] == ["b"]


def test_scans_with_a_shear_are_read_by_nibabel(folders: Path) -> None:
    """As dataset.json asks, for label files, boxes and points."""
    raw = folders / "raw" / "Dataset990_Shear"
    affine = np.diag([-1, 1, 2, 1.0])
    affine[0, 1], affine[:3, 3] = 0.02, (5, 6, 7)

    def put(array: np.ndarray, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        image = nibabel.Nifti1Image(array.transpose(2, 1, 0), affine)
        image.set_sform(affine, 2)
        image.set_qform(None, 0)
        nibabel.save(image, file)

    for case in "ab":
        put(np.full(SHAPE, ord(case), np.float32), raw / "imagesTr" / f"{case}_0000.nii.gz")
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1, "tumour": 2}, "numTraining": 0}
    content |= {"file_ending": ".nii.gz", "overwrite_image_reader_writer": "NibabelIO"}
    (raw / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    put(strokes(), folders / "drawn" / "a.nii.gz")
    import_labels(
        ImportRequest(dataset="990", out="Dataset991_S", labels=folders / "drawn", unlabeled=0, background=9), 1
    )
    made = nibabel.load(RawDataset.load("991").cases["a"].label)
    assert np.array_equal(np.asarray(made.dataobj).transpose(2, 1, 0), right())
    assert np.allclose(made.affine, affine)
    rows = ["case,class,x,y,z"]
    for name, voxel in (("liver", (3, 4, 2)), ("tumour", (6, 1, 0)), ("background", (9, 8, 5))):
        place = affine @ (*voxel, 1)
        rows.append(f"a,{name},{place[0]},{place[1]},{place[2]}")
    (folders / "points.csv").write_text("\n".join(rows), encoding="utf-8")
    points = ImportRequest(
        dataset="990", out="Dataset992_S", points=folders / "points.csv", coordinates="ras", radius=0
    )
    import_labels(points, 1)
    label = np.asarray(nibabel.load(RawDataset.load("992").cases["a"].label).dataobj)
    assert [label[3, 4, 2], label[6, 1, 0], label[9, 8, 5], (label != IGNORE).sum()] == [1, 2, 0, 3]


@pytest.mark.parametrize("coordinates", ["voxel", "lps", "ras"])
def test_boxes_that_end_between_voxels(folders: Path, coordinates: str) -> None:
    """As the regions of interest of 3D Slicer: a box holds the voxels whose middle is inside."""
    dataset(folders)
    corners = [(3.5, 2.5, 0.5), (7.5, 6.5, 3.5)]
    if coordinates != "voxel":
        corners = [on_grid(strokes()).TransformContinuousIndexToPhysicalPoint(corner) for corner in corners]
        corners = [(-x, -y, z) if coordinates == "ras" else (x, y, z) for x, y, z in corners]
    ends = ",".join(str(v) for corner in corners for v in corner)
    text = f"case,class,x0,y0,z0,x1,y1,z1\na,liver,{ends}\na,tumour,{ends}\n"
    (folders / "boxes.csv").write_text(text, encoding="utf-8")
    imported(folders, "a", boxes=folders / "boxes.csv", coordinates=coordinates)
    record = json.loads((folders / "raw/Dataset991_Sparse/annotations.json").read_text(encoding="utf-8"))
    assert record["cases"]["a"]["boxes"][0] == [1, [1, 3, 4], [4, 7, 8]]


def test_labels_of_png_images(folders: Path) -> None:
    raw = folders / "raw" / "Dataset990_Planes"
    (raw / "imagesTr").mkdir(parents=True)
    (folders / "drawn").mkdir()
    for case in "ab":
        sitk.WriteImage(sitk.Image(12, 10, sitk.sitkUInt8) + ord(case), str(raw / "imagesTr" / f"{case}_0000.png"))
    content = {"channel_names": {"0": "x"}, "labels": {"background": 0, "liver": 1, "tumour": 2}, "numTraining": 0}
    (raw / "dataset.json").write_text(json.dumps({**content, "file_ending": ".png"}), encoding="utf-8")
    drawn = strokes().max(0)
    sitk.WriteImage(sitk.GetImageFromArray(drawn), str(folders / "drawn" / "a.png"))
    assert np.array_equal(imported(folders, "a"), meant(drawn))


def test_a_drawing_that_has_lost_its_header(folders: Path) -> None:
    """Its array is that of the scan, which dataset.json can say."""
    dataset(folders)
    sitk.WriteImage(sitk.GetImageFromArray(strokes()), str(folders / "drawn" / "b.nii.gz"))
    with pytest.raises(LimitedError, match=r'"grid_of_image": true'):
        imported(folders, "b")
    shutil.rmtree(folders / "raw" / "Dataset990_Scans")
    shutil.rmtree(folders / "drawn")
    dataset(folders, grid_of_image=True)
    sitk.WriteImage(sitk.GetImageFromArray(strokes()), str(folders / "drawn" / "b.nii.gz"))
    assert np.array_equal(imported(folders, "b"), right())


@pytest.mark.parametrize("shift", [0.5, 0.9, -0.6])
@pytest.mark.parametrize("orientation", ["RAS", "PIR"])
def test_a_part_of_a_voxel_is_no_shift_in_any_order_of_axes(folders: Path, shift: float, orientation: str) -> None:
    dataset(folders)
    image = on_grid(strokes())
    image.SetOrigin(image.TransformContinuousIndexToPhysicalPoint((shift, 0.0, 0.0)))
    sitk.WriteImage(sitk.DICOMOrient(image, orientation), str(folders / "drawn" / "a.nii.gz"))
    assert np.array_equal(imported(folders, "a"), right())
