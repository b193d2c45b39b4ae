"""One step of a simulated loop of active learning, as the workflow calls it in the folder of the simulation.

    python -m nnunet_limited.studies.active.job patch-20x20x20/supervised/clasp_pe/s0/round_1

A step is the queries of a round, the answers of the oracle, and a training on all labels so far.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.datasets.derived import RECORD
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.queries.record import RECORD as QUERIES
from nnunet_limited.splits.check import load_split
from nnunet_limited.studies.active.folder import LEFT_OUT, ORACLE, ActiveFolder
from nnunet_limited.studies.active.study import FULL, START, Step
from nnunet_limited.studies.engine.folder import RECORD as TRAINED
from nnunet_limited.studies.engine.steps import Call, TrainingRecord, device, do, settings_of, train
from nnunet_limited.studies.engine.study_file import Method
from nnunet_limited.util.files import read_object, write_json

FULL_METHOD = Method.model_validate({"name": FULL, "trainer": "LimitedSupervisedTrainer"})
COSTS = ("items", "voxels", "foreground_voxels", "minutes")


class StepRecord(TrainingRecord):
    """The record of a step: its dataset and split, the cost of all labels so far, Dice of each validation case."""

    dataset: str
    split: str
    costs: dict[str, float]
    dice: dict[str, float]


def main(arguments: list[str]) -> int:
    """Do a step; return the exit status."""
    identifier, devices = arguments
    folder = ActiveFolder(Path("."))
    os.environ.update(folder.environment())
    step: Any = folder.run(identifier)
    return do(folder.log(step), identifier, lambda call: _step(folder, step, call, devices))


def _step(folder: ActiveFolder, step: Step, call: Call, devices: str) -> None:
    study = folder.study
    dataset = folder.dataset_of(step)
    with device(devices):
        if step.number:
            costs = _ask(folder, step, call)
            split = f"r{step.number}"
        else:
            costs = _start(folder, step, call)
            split = f"{step.target}{step.seed}"
        size = ["--size", study.size] if study.size else []
        planned = json.loads(
            call("nnunet-limited", "plan", dataset, "--split", split, "-c", study.configuration, *size, "--json")
        )
        method = FULL_METHOD if step.target == FULL else study.method(step.method)
        settings = settings_of(study, step.seed)
        record = train(call, method, dataset, study.configuration, planned["plans"], 0, settings)
    ending = RawDataset.load(dataset).description.file_ending
    summary = read_object(
        folder.path / record["results"][-1] / "validation" / "summary.json", "validation", "run again"
    )
    dice = dice_by_case(summary, ending)
    whole: StepRecord = {**record, "dataset": dataset, "split": split, "costs": costs, "dice": dice}
    write_json(folder.run_folder(step) / TRAINED, whole)


def _start(folder: ActiveFolder, step: Step, call: Call) -> dict[str, float]:
    """Make the split of a start, or the one with all labels; return what its labels cost."""
    study = folder.study
    raw = RawDataset.load(str(study.dataset))
    name = f"{step.target}{step.seed}"
    words = [
        "split",
        str(study.dataset),
        "--name",
        name,
        "--seed",
        str(step.seed),
        "--folds",
        str(study.number_of_folds),
    ]
    words += ["--labeled", str(study.labeled)] if step.target == START else []
    words += ["--test-cases", str(folder.path / LEFT_OUT)] if study.cases is not None else []
    call("nnunet-limited", *words, "--protocol", "benchmark", "--json")
    split = load_split(Path(os.environ["nnUNet_preprocessed"]) / raw.name, name)
    counts = [_foreground(raw, case) for case in split.folds[0].train]
    voxels, foreground = (float(sum(column)) for column in zip(*counts, strict=True))
    return {"items": len(counts), "voxels": voxels, "foreground_voxels": foreground, "minutes": 0.0}


def _foreground(raw: RawDataset, case: str) -> tuple[int, int]:
    """Return the number of voxels and of foreground voxels of a dense label."""
    label = raw.reader()().read_seg(str(raw.cases[case].label))[0]
    return label.size, int((label > 0).sum())


def _ask(folder: ActiveFolder, step: Step, call: Call) -> dict[str, float]:
    """Let the model of the round before choose, and the oracle answer; return what all answers so far cost.

    Finished parts of an interrupted step are skipped.
    """
    study = folder.study
    before: StepRecord = folder.record(step.before)
    dataset, out = folder.dataset_of(step), folder.run_folder(step) / "queries"
    raw, preprocessed = (Path(os.environ[f"nnUNet_{name}"]) / dataset for name in ("raw", "preprocessed"))
    oracle = folder.path.resolve() / ORACLE
    if not (out / QUERIES).is_file():
        target = study.target(step.target)
        words = ["query", before["dataset"], study.configuration, "-tr", before["trainer"], "-p", before["plans"]]
        words += ["-f", "0", "--out", str(out), "--strategy", step.strategy, "--seed", str(step.seed)]
        words += ["--items", str(target.items), "--what", target.what, "--rounds", str(study.rounds)]
        words += ["--size", target.size] if target.size else []
        words += ["--axis", str(target.axis)] if target.axis is not None else []
        words += ["--seconds", str(study.seconds), "--oracle", str(oracle)]
        call("nnunet-limited", *words, "--json")
    if not (preprocessed / f"splits_r{step.number}.info.json").is_file():
        for made in (raw, preprocessed):
            shutil.rmtree(made, ignore_errors=True)
        call("nnunet-limited", "absorb", str(out), "--out", dataset, "--oracle", str(oracle), "--json")
    shutil.rmtree(out / ".scores", ignore_errors=True)
    record = read_object(raw / RECORD, "record of annotations", "run again")
    new: dict[str, Any] = {key: sum(one[key] for one in record["cases"].values()) for key in COSTS[1:]}
    new["items"] = len(record["queries"])
    return {key: float(before["costs"][key] + new[key]) for key in COSTS}


def dice_by_case(summary: dict[str, Any], ending: str) -> dict[str, float]:
    """Return the mean Dice over the classes of each validation case, as nnU-Net measured it."""
    dice = {}
    for entry in summary["metric_per_case"]:
        values = [float(metrics["Dice"]) for metrics in entry["metrics"].values()]
        dice[Path(entry["prediction_file"]).name.removesuffix(ending)] = float(np.nanmean(values))
    return dice


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
