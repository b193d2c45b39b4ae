"""The scores of folds: what is read, what is measured once, and what they are compared with."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers import DATASET

from nnunet_limited.runs import scores as module
from nnunet_limited.runs.request import TrainRequest
from nnunet_limited.runs.scores import Scores, can_measure_distances, read_scores, worse_in_most_folds

TRUTH = np.zeros((4, 12, 12), np.uint8)
TRUTH[:, 3:9, 3:9] = 1


def scores(hd95: list[float], nsd: list[float]) -> Scores:
    return Scores("t", "p", {name: {"mean": v} for name, v in (("dice", [0.5]), ("hd95", hd95), ("nsd", nsd))})


@pytest.fixture
def validated(folders: Path) -> tuple[TrainRequest, Path]:
    """A validated fold with one class that is predicted a voxel too far to one side, and one that no case has."""
    request = TrainRequest(dataset=DATASET, configuration="2d", fold="0", trainer="T", plans="P")
    truth = folders / "preprocessed" / DATASET / "gt_segmentations"
    base = folders / "results" / DATASET / "T__P__2d"
    (base / "fold_0" / "validation").mkdir(parents=True)
    truth.mkdir(parents=True)
    (folders / "raw" / DATASET).mkdir()
    description = {"labels": {"background": 0, "disc": 1, "core": 2}, "channel_names": {"0": "MRI"}}
    description |= {"numTraining": 1, "file_ending": ".nii.gz"}
    for file in (base / "dataset.json", folders / "preprocessed" / DATASET / "dataset.json"):
        file.write_text(json.dumps(description), encoding="utf-8")
    for folder, shift in ((truth, 0), (base / "fold_0" / "validation", 1)):
        image = sitk.GetImageFromArray(np.roll(TRUTH, shift, axis=2))
        image.SetSpacing((2.0, 2.0, 5.0))
        sitk.WriteImage(image, str(folder / "case_00.nii.gz"))
    summary = {"mean": {"1": {"Dice": 5 / 6}, "2": {"Dice": None}}, "metric_per_case": [{}]}
    (base / "fold_0" / "validation" / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return request, base


def test_distances_are_measured_once(validated, monkeypatch: pytest.MonkeyPatch) -> None:
    request, base = validated
    found = read_scores(request, base, [0], distances=True)
    assert found is not None
    assert found.values["dice"]["disc"] == [pytest.approx(5 / 6)]
    assert found.values["hd95"]["disc"] == [pytest.approx(2.0)]
    assert found.values["hd95"]["mean"] == [pytest.approx(2.0)]  # the class that no case has is left out
    assert np.isnan(found.values["nsd"]["core"]).all()
    assert found.values["dice"]["mean"] == [pytest.approx(5 / 6)]
    assert found.as_dict()["hd95"]["disc"] == {"mean": pytest.approx(2.0), "sd": 0.0}
    monkeypatch.setattr(module, "evaluate", lambda request: pytest.fail("measured again"))
    again = read_scores(request, base, [0], distances=True)
    assert again is not None
    assert again.values["hd95"]["disc"] == found.values["hd95"]["disc"]


def test_distances_of_older_predictions_do_not_count(validated) -> None:
    request, base = validated
    folder = base / "fold_0" / "validation"
    assert read_scores(request, base, [0], distances=True) is not None
    truth = sitk.ReadImage(str(request.folder / "gt_segmentations" / "case_00.nii.gz"))
    sitk.WriteImage(truth, str(folder / "case_00.nii.gz"))
    newer = (folder / "metrics.csv").stat().st_mtime + 1
    os.utime(folder / "summary.json", (newer, newer))
    found = read_scores(request, base, [0], distances=True)
    assert found is not None
    assert found.values["hd95"]["disc"] == [0.0]


def test_dice_alone_needs_no_files_of_predictions(validated) -> None:
    request, base = validated
    (base / "fold_0" / "validation" / "case_00.nii.gz").unlink()
    found = read_scores(request, base, [0], distances=False)
    assert found is not None
    assert set(found.values) == {"dice"}
    assert read_scores(request, base, [0, 1], distances=False) is None
    assert can_measure_distances()


def test_no_gain_where_distances_are_worse_in_most_folds() -> None:
    baseline = scores([5, 5, 5], [0.5, 0.5, 0.5])
    assert worse_in_most_folds(scores([4, 6, 7], [0.6, 0.4, 0.6]), baseline) == ["HD95 is worse in 2 of 3"]
    assert worse_in_most_folds(scores([4, 4, 7], [0.4, 0.4, 0.4]), baseline) == ["NSD is worse in 3 of 3"]
    assert worse_in_most_folds(scores([5, 5, 5], [0.5, 0.5, np.nan]), baseline) == []
    assert scores([4, 4, 7], [1, 1, np.nan]).differences(baseline)["nsd"]["mean"] == 0.5
