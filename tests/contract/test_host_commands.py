"""nnU-Net's own commands work on what our trainers leave behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import helpers
import numpy as np
import pytest
import SimpleITK as sitk
from contract_runs import run
from helpers import DATASET
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from trainer_sets import TRAINERS

from nnunet_limited import trainers


def predicting() -> list:
    """Return all trainers, those in full that predict like one before them: with the same partner, made alike."""
    seen, made = set(), []
    for name in TRAINERS:
        cls = getattr(trainers, name)
        kind = (cls.predictor_name, cls.build_network_architecture, cls.perform_actual_validation)
        made.append(pytest.param(name, marks=pytest.mark.full if kind in seen else ()))
        seen.add(kind)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("trainer", predicting())
def test_validation_equals_val_and_prediction(workspaces, tmp_path: Path, trainer: str) -> None:
    workspace = workspaces("2d")
    made = run(workspace, trainer, "validate", num_epochs=1, num_iterations_per_epoch=15)
    made.perform_actual_validation()
    folder = Path(made.output_folder)
    summary = json.loads((folder / "validation" / "summary.json").read_text(encoding="utf-8"))["metric_per_case"]
    shutil.rmtree(folder / "validation")

    again = workspace.trainer(trainer, made.plans_manager.plans_name)
    again.load_checkpoint(str(folder / "checkpoint_final.pth"))
    again.perform_actual_validation()
    assert (
        json.loads((folder / "validation" / "summary.json").read_text(encoding="utf-8"))["metric_per_case"] == summary
    )

    predictor = nnUNetPredictor(device=helpers.DEVICE, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder.parent), (0,))
    images = workspace.root / "raw" / DATASET / "imagesTr"
    for case in made.run.fold.val:
        predictor.predict_from_files_sequential([[str(images / f"{case}_0000.nii.gz")]], [str(tmp_path / case)])
        predicted = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"{case}.nii.gz")))
        validated = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "validation" / f"{case}.nii.gz")))
        assert predicted.any()
        assert np.array_equal(predicted, validated)


def test_folders_are_as_the_host_expects(workspaces) -> None:
    workspace = workspaces("2d")
    for folder in workspace.preprocessed.glob("nnUNetLimited_*"):
        if "_landmarks" in folder.name or "_label_counts" in folder.name:  # numbers of each case
            assert {file.suffix for file in folder.iterdir()} <= {".npz"}
            continue
        if folder.name.endswith("_sources"):  # what the cases of another folder were made from
            assert {file.suffix for file in folder.iterdir()} == {".json"}
            continue
        beside = "_pseudo_" in folder.name or folder.name.endswith("_boxes")  # labels of the cases in another folder
        stored = {".b2nd"} if beside else {".b2nd", ".pkl"}
        locations = {".npz"} if "_pseudo_" in folder.name else set()  # where stored pseudo-labels have foreground
        records = {".json"} if beside else set()
        assert {file.suffix for file in folder.iterdir()} == stored | locations | records
    assert not (workspace.preprocessed / "dataset_fingerprint.json").exists()
