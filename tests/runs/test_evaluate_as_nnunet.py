"""``evaluate`` gives the Dice of ``nnUNetv2_evaluate_folder`` on every kind of data, and refuses what that refuses."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder2, load_summary_json
from skimage import io

from nnunet_limited.errors import LimitedError
from nnunet_limited.metrics.request import EvaluateRequest
from nnunet_limited.runs.evaluate import evaluate, summarise

SHAPE = (7, 15, 12)
CLASSES = {"background": 0, "organ": 1, "lesion": 2, "vessel": 3}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "active": 3}


class InThisProcess:
    """In place of the processes that nnU-Net starts, which take seconds."""

    def __init__(self, *_: Any) -> None:
        pass

    def Pool(self, *_: Any) -> InThisProcess:
        return self

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def starmap(self, function: Callable[..., Any], tasks: Any) -> list[Any]:
        return [function(*task) for task in tasks]


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnunetv2.evaluation.evaluate_predictions.multiprocessing.get_context", InThisProcess)


def by_sitk(file: Path, array: np.ndarray) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.8, 0.7, 3.0)[: array.ndim])
    image.SetOrigin((-40.0, 12.0, 100.0)[: array.ndim])
    sitk.WriteImage(image, str(file))


def as_type(dtype: Any) -> Callable[[Path, np.ndarray], None]:
    return lambda file, array: by_sitk(file, array.astype(dtype))


def flat(file: Path, array: np.ndarray) -> None:
    io.imsave(file, array[3], check_contrast=False)


def turned(file: Path, array: np.ndarray) -> None:
    """Write predictions and labels with axes of their own, which the reader turns to one order."""
    by_sitk(file, array)
    image = sitk.ReadImage(str(file))
    sitk.WriteImage(sitk.DICOMOrient(image, "PIR" if file.parent.name == "predicted" else "LAS"), str(file))


def scaled(file: Path, array: np.ndarray) -> None:
    """Write numbers that are multiplied by 0.5 when they are read."""
    nib.save(nib.Nifti1Image((2 * array).transpose(2, 1, 0), np.diag([-0.8, -0.7, 3.0, 1.0])), file)
    content = bytearray(gzip.decompress(file.read_bytes()))
    struct.pack_into("<2f", content, 112, 0.5, 0.0)
    file.write_bytes(gzip.compress(content))


# How label files are written, their ending, and what dataset.json has besides.
KINDS: dict[str, tuple[Callable[[Path, np.ndarray], None], str, dict[str, Any]]] = {
    "classes": (by_sitk, ".nii.gz", {}),
    "regions": (by_sitk, ".nii.gz", {"labels": REGIONS, "regions_class_order": [1, 2, 3]}),
    "ignore": (by_sitk, ".nii.gz", {"labels": {"background": 0, "organ": 1, "lesion": 2, "ignore": 3}}),
    "regions with ignore": (
        by_sitk,
        ".nii.gz",
        {"labels": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}, "regions_class_order": [1, 2]},
    ),
    "labels in another order": (by_sitk, ".nii.gz", {"labels": {"vessel": 3, "organ": 1, "background": 0, "b": 2}}),
    "float32": (as_type(np.float32), ".nii.gz", {}),
    "float64": (as_type(np.float64), ".mha", {}),
    "int16": (as_type(np.int16), ".nii.gz", {}),
    "scaled": (scaled, ".nii.gz", {}),
    "one slice": (lambda file, array: by_sitk(file, array[3:4]), ".nii.gz", {}),
    "2D NIfTI": (lambda file, array: by_sitk(file, array[3]), ".nii.gz", {}),
    "PNG": (flat, ".png", {}),
    "16-bit PNG": (lambda file, array: flat(file, array.astype(np.uint16)), ".png", {}),
    "NRRD": (by_sitk, ".nrrd", {}),
    "TIFF": (tifffile.imwrite, ".tif", {}),
    "uncompressed, by nibabel": (by_sitk, ".nii", {}),
    "turned by the reader": (turned, ".nii.gz", {"overwrite_image_reader_writer": "NibabelIOWithReorient"}),
}


def cases() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return predictions and labels: a plain case; a class in one, the other, or none of them; and an empty pair."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, SHAPE).astype(np.uint8)
    near = np.where(rng.random(SHAPE) < 0.7, truth, rng.integers(0, 4, SHAPE)).astype(np.uint8)
    empty = np.zeros(SHAPE, np.uint8)
    lost = np.where(near == 3, 0, near), np.where(truth == 2, 0, truth)
    return {"a": (near, truth), "b": lost, "c": (np.minimum(near, 1), np.minimum(truth, 1)), "d": (empty, empty)}


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that writes the folders of one kind of data."""

    def write(kind: str) -> Path:
        writer, ending, more = KINDS[kind]
        for number, folder in enumerate(("predicted", "truth")):
            (tmp_path / folder).mkdir()
            for case, pair in cases().items():
                writer(tmp_path / folder / f"{case}{ending}", pair[number])
        content = {"labels": CLASSES, "file_ending": ending, "channel_names": {"0": "MR"}, **more}
        (tmp_path / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
        (tmp_path / "plans.json").write_text("{}", encoding="utf-8")
        return tmp_path

    return write


def by_nnunet(root: Path, chill: bool = False) -> dict[str, Any]:
    folders = [str(root / name) for name in ("truth", "predicted", "dataset.json", "plans.json", "summary.json")]
    compute_metrics_on_folder2(*folders, num_processes=1, chill=chill)
    return load_summary_json(folders[-1])


def by_us(root: Path, **options: Any) -> Any:
    request = {"predictions": root / "predicted", "truth": root / "truth", "dataset_json": root / "dataset.json"}
    return evaluate(EvaluateRequest(**{**request, "processes": 1, **options}))


@pytest.mark.parametrize("kind", KINDS)
def test_the_dice_is_that_of_nnunet(make: Callable[[str], Path], kind: str) -> None:
    root = make(kind)
    theirs, ours = by_nnunet(root), by_us(root)
    expected = [one["metrics"] for one in theirs["metric_per_case"]]
    assert len(ours) == sum(map(len, expected))
    labels = json.loads((root / "dataset.json").read_text(encoding="utf-8"))["labels"]
    for name, rows in ours.groupby("class"):
        key = tuple(labels[name]) if isinstance(labels[name], list) else labels[name]
        key = key if key in expected[0] else (key,)
        assert rows["dice"].tolist() == pytest.approx([one[key]["Dice"] for one in expected], abs=1e-6, nan_ok=True)
        assert summarise(ours)["dice"][name] == pytest.approx(theirs["mean"][key]["Dice"], abs=1e-6)
    assert summarise(ours)["dice"]["mean"] == pytest.approx(theirs["foreground_mean"]["Dice"], abs=1e-6)
    assert ours.attrs["warnings"] == []


SPOILT: dict[str, Callable[[Path, Path], Any]] = {
    "a prediction is missing": lambda p, t: p.unlink(),
    "a label is missing": lambda p, t: t.unlink(),
    "all predictions are missing": lambda p, t: [file.unlink() for file in p.parent.iterdir()],
    "all labels are missing": lambda p, t: [file.unlink() for file in t.parent.iterdir()],
    "the prediction is larger": lambda p, t: by_sitk(p, np.zeros((8, 15, 12), np.uint8)),
    "the label is smaller": lambda p, t: by_sitk(t, np.zeros((7, 14, 12), np.uint8)),
    "the axes of the array are swapped": lambda p, t: by_sitk(p, np.zeros((12, 15, 7), np.uint8)),
    "the prediction is no image": lambda p, t: p.write_bytes(b"no image"),
    "the label is no image": lambda p, t: t.write_bytes(b"no image"),
    "the prediction is empty": lambda p, t: p.write_bytes(b""),
    "the label is empty": lambda p, t: t.write_bytes(b""),
    "the prediction is a dangling link": lambda p, t: (p.unlink(), p.symlink_to("nowhere.nii.gz")),
    "no folder of predictions": lambda p, t: p.parent.rename(p.parent.with_name("other")),
    "no folder of labels": lambda p, t: t.parent.rename(t.parent.with_name("other")),
    "no dataset.json": lambda p, t: (p.parents[1] / "dataset.json").unlink(),
    "dataset.json is damaged": lambda p, t: (p.parents[1] / "dataset.json").write_text("{", encoding="utf-8"),
    "dataset.json has no labels": lambda p, t: (p.parents[1] / "dataset.json").write_text(
        '{"file_ending": ".nii.gz"}', encoding="utf-8"
    ),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_what_nnunet_refuses_is_refused(make: Callable[[str], Path], spoilt: str) -> None:
    root = make("classes")
    SPOILT[spoilt](root / "predicted/a.nii.gz", root / "truth/a.nii.gz")
    with pytest.raises(Exception):  # noqa: B017, PT011 — of any class
        by_nnunet(root)
    with pytest.raises(LimitedError):
        by_us(root)


def test_missing_predictions_are_left_out_as_by_nnunet(make: Callable[[str], Path]) -> None:
    root = make("regions")
    (root / "predicted/a.nii.gz").unlink()
    expected = by_nnunet(root, chill=True)["mean"][(1, 2, 3)]["Dice"]
    ours = by_us(root, allow_missing=True)
    assert summarise(ours)["dice"]["whole"] == pytest.approx(expected, abs=1e-6)
    assert ours.attrs["missing"] == ["a"]
