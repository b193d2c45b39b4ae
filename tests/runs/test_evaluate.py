"""Folders of predictions and labels, compared as nnU-Net compares them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from shapes import blob

from nnunet_limited.errors import LimitedError
from nnunet_limited.host.evaluation import mean_dice
from nnunet_limited.metrics.registry import METRICS, MaskPair, Metric, compare
from nnunet_limited.metrics.request import EvaluateRequest
from nnunet_limited.metrics.statistics import seed_means
from nnunet_limited.runs.evaluate import evaluate, summarise, write_rows

SPACINGS = {2: (2.0, 0.5), 3: (5.0, 0.8, 1.3)}


def asked(folders: tuple[Path, Path], **options) -> EvaluateRequest:
    return EvaluateRequest(predictions=folders[0], truth=folders[1], **{"processes": 1, **options})


def write(file: Path, values: np.ndarray, spacing: tuple[float, ...]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(values.astype(np.uint8))
    image.SetSpacing(spacing[::-1])
    sitk.WriteImage(image, str(file))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Predictions and labels of two anisotropic cases with regions and ignored voxels; the second has no core."""
    predicted, truth = tmp_path / "predicted", tmp_path / "truth"
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    description = {
        "labels": labels,
        "file_ending": ".nii.gz",
        "channel_names": {"0": "MR"},
        "regions_class_order": [1, 2],
    }
    for number, case in enumerate(("a", "b")):
        for folder, seed in ((predicted, number), (truth, number + 7)):
            values = blob((9, 20, 24), seed).astype(int)
            if case == "a":
                values[:, 9:11, 10:14] *= 2
            if folder == truth:
                values[:, :, :11] = 3
            write(folder / f"{case}.nii.gz", values, SPACINGS[3])
    (truth / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return predicted, truth


def test_folders_are_compared_as_nnunet_does(folders: tuple[Path, Path]) -> None:
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    predicted, truth = folders
    rows = evaluate(asked(folders))
    assert list(rows.columns[:8]) == ["case", "class", "dice", "iou", "hd95", "asd", "nsd", "volume_error"]
    assert list(zip(rows["case"], rows["class"], strict=True)) == [(c, k) for c in "ab" for k in ("whole", "core")]
    for row in rows.to_dict("records"):
        region = {"whole": (1, 2), "core": (2,)}[row["class"]]
        files = [str(folder / f"{row['case']}.nii.gz") for folder in (truth, predicted)]
        theirs = compute_metrics(*files, SimpleITKIO(), [region], 3)["metrics"][region]
        assert row["dice"] == pytest.approx(theirs["Dice"], abs=1e-6, nan_ok=True)
        assert row["iou"] == pytest.approx(theirs["IoU"], abs=1e-6, nan_ok=True)
    assert math.isnan(rows["dice"][3])
    summary = summarise(rows)["dice"]
    assert summary["core"] == rows["dice"][1], "a case without the class is left out"
    assert summary["mean"] == pytest.approx((summary["whole"] + summary["core"]) / 2)


@pytest.mark.slow
def test_the_mean_dice_is_the_foreground_mean_of_nnunet(folders: tuple[Path, Path]) -> None:
    """A class that is missing in one of the cases shows in which order the mean is taken."""
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    predicted, truth = folders
    regions = [(1, 2), (2,)]
    options = {"regions_or_labels": regions, "ignore_label": 3, "num_processes": 1}
    theirs = compute_metrics_on_folder(str(truth), str(predicted), None, SimpleITKIO(), ".nii.gz", **options)
    expected = theirs["foreground_mean"]["Dice"]
    rows = evaluate(asked(folders))
    assert summarise(rows)["dice"]["mean"] == pytest.approx(expected)
    assert mean_dice(theirs) == pytest.approx(expected)
    indexed = rows.assign(seed=0).set_index(["seed", "case", "class"])["dice"]
    assert seed_means(indexed)[0] == pytest.approx(expected)
    assert rows.groupby("case")["dice"].mean().mean() != pytest.approx(expected, abs=1e-3)
    assert mean_dice({"mean": {"1": {"Dice": 0.5}, "2": {"Dice": float("nan")}, "3": {"Dice": None}}}) == 0.5


def test_distances_are_in_voxels_on_request(folders: tuple[Path, Path]) -> None:
    in_mm, in_voxels = (evaluate(asked(folders, voxels=voxels)).iloc[0] for voxels in (False, True))
    assert in_mm["dice"] == in_voxels["dice"]
    assert in_mm["volume_error"] == pytest.approx(in_voxels["volume_error"] * math.prod(SPACINGS[3]))
    assert in_mm["asd"] != in_voxels["asd"]


def test_images_of_one_slice_are_flat(tmp_path: Path) -> None:
    """A file of one slice is measured as the image that it is: its thickness has no say."""
    prediction, truth = blob((24, 30), 0), blob((24, 30), 1)
    for folder, mask in (("predicted", prediction), ("truth", truth)):
        write(tmp_path / folder / "a.nii.gz", mask[None], (100.0, *SPACINGS[2]))
    description = {"labels": {"background": 0, "disc": 1}, "file_ending": ".nii.gz", "channel_names": {"0": "US"}}
    (tmp_path / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    request = asked((tmp_path / "predicted", tmp_path / "truth"), dataset_json=tmp_path / "dataset.json")
    expected = {"case": "a", "class": "disc", **compare(MaskPair(prediction, truth, SPACINGS[2]))}
    assert evaluate(request).iloc[0].to_dict() == pytest.approx(expected)


@pytest.mark.slow
def test_rows_are_written_and_read_again(folders: tuple[Path, Path], tmp_path: Path) -> None:
    rows = evaluate(asked(folders, processes=2))
    write_rows(tmp_path / "metrics.csv", rows)
    assert (tmp_path / "metrics.csv").read_text(encoding="utf-8").endswith(",nan\n"), "what has no value is nan"
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "metrics.csv", float_precision="round_trip"), rows)


def test_a_metric_needs_a_row_of_the_registry_only(folders: tuple[Path, Path], monkeypatch) -> None:
    voxels = Metric("voxels", "predicted voxels", "volume", False, lambda pair: pair.sizes[0])
    monkeypatch.setitem(METRICS, "voxels", voxels)
    rows = evaluate(asked(folders))
    assert rows.columns[-1] == "voxels"
    assert rows["voxels"][0] > rows["voxels"][1] > 0
    assert summarise(rows)["voxels"]["whole"] == rows["voxels"][[0, 2]].mean()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda p, t: (p / "b.nii.gz").rename(p / "c.nii.gz"), r"truth/c\.nii\.gz does not exist"),
        (lambda p, t: write(p / "b.nii.gz", np.zeros((9, 20, 23)), (1, 1, 1)), r"has shape \(9, 20, 23\)"),
        (lambda p, t: [file.unlink() for file in p.iterdir()], "holds no file"),
        (lambda p, t: (t / "dataset.json").unlink(), "name it with --dataset-json"),
    ],
)
def test_what_does_not_fit_is_refused(folders: tuple[Path, Path], wrong, message: str) -> None:
    wrong(*folders)
    with pytest.raises(LimitedError, match=message):
        evaluate(asked(folders))
