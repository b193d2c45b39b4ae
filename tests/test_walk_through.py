"""The commands a user types, one after the other, on small data: the package's and nnU-Net's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import DATASET, Variant, read, write_case, write_dataset
from skimage import io

BIN = Path(sys.executable).parent
SUPERVISED, TEACHER = "LimitedSupervisedTrainer", "LimitedMeanTeacherTrainer"
COPY_PASTE, RECIPE = "LimitedBidirectionalCopyPasteTrainer", "LimitedRecipeTrainer"


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("commands_here")]


def call(*arguments: str) -> str:
    done = subprocess.run([str(BIN / arguments[0]), *arguments[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def sets(settings: list[str]) -> list[str]:
    return [argument for setting in settings for argument in ("--set", setting)]


def raw_bytes(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def to_colours(raw: Path) -> None:
    """Replace the scans of a dataset by RGB images of their middle slices, one file of three channels each."""
    shutil.rmtree(raw / "labelsBoxes")
    for file in raw.rglob("*.nii.gz"):
        array = read(file)
        flat = array[len(array) // 2].clip(0, 255).astype(np.uint8)
        image = np.stack([flat, 255 - flat, flat // 2], -1) if file.parent.name.startswith("images") else flat
        io.imsave(file.with_name(file.name.replace(".nii.gz", ".png")), image, check_contrast=False)
        file.unlink()
    content = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    content |= {"file_ending": ".png", "channel_names": {"0": "R", "1": "G", "2": "B"}}
    (raw / "dataset.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("unlabeled_folder", [False, True])
def test_from_split_to_prediction(folders: Path, unlabeled_folder: bool) -> None:
    variant = Variant(cases=6)
    raw = write_dataset(folders / "raw", variant)
    if unlabeled_folder:  # a third of the images, which are colour images, has no label at all
        for number in range(3):
            write_case(raw, f"scan_{number}", variant, 100 + number, "imagesUn")
        to_colours(raw)
    before = raw_bytes(folders / "raw")
    labeled = [] if unlabeled_folder else ["--labeled", "2"]
    made = json.loads(call("nnunet-limited", "split", "990", "--name", "few", "--folds", "2", "--json", *labeled))
    assert len(made["folds"]) == 2
    plan = ("nnunet-limited", "plan", "990", "--split", "few", "--size", "tiny", "-c", "2d", "-np", "1", "--json")
    plans = json.loads(call(*plan))["plans"]
    stamps = {f: f.stat().st_mtime_ns for f in (folders / "preprocessed").rglob("*.b2nd")}
    assert json.loads(call(*plan))["plans"] == plans
    assert stamps == {f: f.stat().st_mtime_ns for f in (folders / "preprocessed").rglob("*.b2nd")}

    settings = ["--epochs", "1", "--iterations", "1", "--set", "num_val_iterations_per_epoch=1", "--npz"]
    if unlabeled_folder:
        recipe = ("nnunet-limited", "self-train", "990", "2d", "-p", plans, "--folds", "0", "--dice-only")
        done = json.loads(call(*recipe, *settings, "--json"))
        assert [result["trainer"] for result in done] == [COPY_PASTE, RECIPE]
        assert len({result["plans"] for result in done}) == 2
        assert done[-1]["baseline"] is None
        printed = call(*recipe, *settings)  # all of it is there
        for shown in (COPY_PASTE, f"crossval {DATASET} 2d -tr {SUPERVISED} -p {done[0]['plans']} --folds 0"):
            assert shown in " ".join(printed.split())
        for shown in ("nnUNetv2_find_best_configuration", f"nnUNetv2_predict -i INPUT -o OUTPUT -d {DATASET}"):
            assert f"{shown} " in " ".join(printed.split())
        result = done[-1]
    else:
        for trainer in (SUPERVISED, TEACHER):
            command = ["nnunet-limited", "crossval", "990", "2d", "-tr", trainer, "-p", plans, *settings, "--json"]
            result = json.loads(call(*command))
    name = result["plans"]
    assert name.startswith(plans)
    for metric in ("dice",) if unlabeled_folder else ("dice", "hd95", "nsd", "hd95_difference"):
        assert set(result[metric]) == {"disc", "core", "mean"}
    merged = json.loads(Path(result["merged"], "summary.json").read_text(encoding="utf-8"))
    validated = {case for fold in made["folds"][: 1 if unlabeled_folder else 2] for case in fold["val"]}
    assert {Path(case["prediction_file"]).name.split(".")[0] for case in merged["metric_per_case"]} == validated
    if unlabeled_folder:
        output = ["-o", str(folders / "out"), "-d", "990", "-p", name, "-c", "2d", "-f", "0", "-tr", result["trainer"]]
        call("nnUNetv2_predict", "-i", str(raw / "imagesTr"), *output, "-device", "cpu", "-npp", "1", "-nps", "1")
        assert len(list((folders / "out").glob("case_*.png"))) == variant.cases
        compared = json.loads(call("nnunet-limited", "evaluate", str(folders / "out"), str(raw / "labelsTr"), "--json"))
        assert {row["case"] for row in compared["cases"]} == {f"case_{number:02d}" for number in range(variant.cases)}
    else:
        assert result["baseline"]["trainer"] == SUPERVISED
        both = ["-tr", SUPERVISED, TEACHER]
        call("nnUNetv2_find_best_configuration", "990", "-p", name, "-c", "2d", *both, "-f", "0", "1", "-np", "1")
    assert raw_bytes(folders / "raw") == before


def test_stock_planning_and_one_key_is_enough(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")  # stock planning fails with 0
    variant = Variant(cases=6)
    write_dataset(folders / "raw", variant)
    call("nnUNetv2_plan_and_preprocess", "-d", "990", "-c", "2d", "-np", "1", "-npfp", "1")
    cases = [f"case_{i:02d}" for i in range(6)]
    split = [{"train": cases[:2], "val": cases[2:3], "unlabeled": cases[3:]}]
    (folders / "preprocessed" / DATASET / "splits_final.json").write_text(json.dumps(split), encoding="utf-8")
    settings = ["num_epochs=1", "num_iterations_per_epoch=2", "num_val_iterations_per_epoch=1", "start_fraction=0"]
    made = call("nnunet-limited", "configure", "nnUNetPlans", "--name", "short", *sets(settings), "--json")
    assert json.loads(made)["plans"] == "nnUNetPlans_short"
    call("nnUNetv2_train", "990", "2d", "0", "-tr", TEACHER, "-p", "nnUNetPlans_short", "-device", "cpu")
    results = folders / "results" / DATASET / f"{TEACHER}__nnUNetPlans_short__2d" / "fold_0"
    content = torch.load(results / "checkpoint_final.pth", weights_only=False)
    assert content["nnunet_limited"]["record"]["split"] == "final"
    assert len(list((folders / "preprocessed" / DATASET).glob("nnUNetPlans_2d_unlabeled_*/*.pkl"))) == 3
    summary = json.loads((results / "validation" / "summary.json").read_text(encoding="utf-8"))
    assert [Path(case["prediction_file"]).name for case in summary["metric_per_case"]] == ["case_02.nii.gz"]

    for folder in (folders / "preprocessed" / DATASET).glob("nnUNetPlans_2d_unlabeled_*"):
        shutil.rmtree(folder)
    options = ("--teacher", SUPERVISED, "--folds", "0", "-device", "cpu", "--dice-only", "--json")
    recipe = ("self-train", "990", "2d", "-p", "nnUNetPlans_short", *options)
    supervised, student = json.loads(call("nnunet-limited", *recipe))
    assert supervised["trainer"] == SUPERVISED
    assert student["baseline"]["dice"] == supervised["dice"]


@pytest.mark.progress_picture
def test_progress_pictures_are_drawn(workspaces) -> None:
    workspace = workspaces("2d")
    made = workspace.trainer(TEACHER, workspace.configure("picture", num_epochs=1))
    made.run_training()
    for name in ("progress.png", "progress_limited.png"):
        assert (Path(made.output_folder) / name).stat().st_size > 1000
