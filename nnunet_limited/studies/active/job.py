"""One step of a simulated loop of active learning, as the workflow calls it in the folder of the simulation.

    python -m nnunet_limited.studies.active.job patch-20x20x20/supervised/clasp_pe/s0/round_1

A step is the queries of a round, the answers of the oracle, and a training on all labels so far.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.datasets.derived import RECORD
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.host.folders import preprocessed_folder, raw_folder
from nnunet_limited.host.images import read_label
from nnunet_limited.queries.record import RECORD as QUERIES
from nnunet_limited.splits.check import load_split
from nnunet_limited.studies.active.folder import LEFT_OUT, ORACLE, ActiveFolder
from nnunet_limited.studies.active.study import START, Step
from nnunet_limited.studies.engine.folder import RECORD as TRAINED
from nnunet_limited.studies.engine.steps import Call, TrainingRecord, device, do, draw_words, options, train
from nnunet_limited.util.files import read_object, write_json

METRICS_FILE = "metrics.csv"  # a row for each validation case and class
COSTS = ("items", "voxels", "foreground_voxels", "minutes")


class StepRecord(TrainingRecord):
    """The record of a step: its dataset and split, and the cost of all labels so far."""

    dataset: str
    split: str
    costs: dict[str, float]


def main(arguments: list[str]) -> int:
    """Do a step; return the exit status."""
    identifier, devices = arguments
    folder = ActiveFolder(Path("."))
    os.environ.update(folder.environment())
    step: Any = folder.run(identifier)
    return do(folder.log(step), identifier, lambda call: _step(folder, step, call, devices))


def _step(folder: ActiveFolder, step: Step, call: Call, devices: str) -> None:
    study, dataset = folder.study, folder.dataset_of(step)
    split = f"r{step.number}" if step.number else f"{step.target}{step.seed}"
    with device(devices):
        costs = _ask(folder, step, call) if step.number else _start(folder, step, split, call)
        words = options({"--split": split, "-c": study.configuration, "--size": study.size})
        planned = json.loads(call("nnunet-limited", "plan", dataset, *words, "--json"))
        record = train(call, study, folder.training(step, planned["plans"]), folder.others(step))
    preprocessed = preprocessed_folder(RawDataset.load(dataset).name)
    predictions = folder.path / record["results"][-1] / "validation"
    labels = preprocessed / "gt_segmentations"
    words = options({"--dataset-json": preprocessed / "dataset.json", "--out": folder.run_folder(step) / METRICS_FILE})
    words.append("--allow-missing")  # the labels are those of all folds
    call("nnunet-limited", "evaluate", str(predictions), str(labels), *words)
    whole: StepRecord = {**record, "dataset": dataset, "split": split, "costs": costs}
    write_json(folder.run_folder(step) / TRAINED, whole)


def _start(folder: ActiveFolder, step: Step, name: str, call: Call) -> dict[str, float]:
    """Make the split of a start, or the one with all labels; return what its labels cost."""
    study, raw = folder.study, RawDataset.load(str(folder.study.dataset))
    words = options(
        {
            "--name": name,
            "--seed": step.seed,
            "--labeled": study.labeled if step.target == START else None,
            "--test-cases": folder.path / LEFT_OUT if study.cases is not None else None,
            "--protocol": "benchmark",
        }
    )
    words += draw_words(study, **({} if step.target == START else {"labeled_from": None}))  # or all labels
    call("nnunet-limited", "split", str(study.dataset), *words, "--json")
    cases = load_split(preprocessed_folder(raw.name), name).folds[0].train
    labels = (read_label(raw.reader()(), Path(str(raw.cases[case].label)))[0] for case in cases)
    voxels, foreground = np.sum([(label.size, int((label > 0).sum())) for label in labels], axis=0)
    costs = {"voxels": float(voxels), "foreground_voxels": float(foreground), "minutes": 0.0}
    return {"items": len(cases), **costs}


def _ask(folder: ActiveFolder, step: Step, call: Call) -> dict[str, float]:
    """Let the model of the round before choose, and the oracle answer; return what all answers so far cost.

    Finished parts of an interrupted step are skipped.
    """
    study = folder.study
    before: StepRecord = folder.record(step.before)
    dataset, out = folder.dataset_of(step), folder.run_folder(step) / "queries"
    raw, preprocessed, oracle = raw_folder(dataset), preprocessed_folder(dataset), folder.path.resolve() / ORACLE
    if not (out / QUERIES).is_file():
        target = study.target(step.target)
        words = options({"-tr": before["trainer"], "-p": before["plans"], "-f": 0, "--out": out})
        words += options({"--strategy": step.strategy, "--seed": step.seed, "--rounds": study.rounds})
        words += options({f"--{key}": getattr(target, key) for key in ("items", "what", "size", "axis")})
        words += options({"--seconds": study.seconds, "--oracle": oracle})
        call("nnunet-limited", "query", before["dataset"], study.configuration, *words, "--json")
    if not (raw.is_dir() and (preprocessed / f"splits_r{step.number}.info.json").is_file()):
        for made in (raw, preprocessed):
            shutil.rmtree(made, ignore_errors=True)
        call("nnunet-limited", "absorb", str(out), "--out", dataset, "--oracle", str(oracle), "--json")
    shutil.rmtree(out / ".scores", ignore_errors=True)
    record = read_object(raw / RECORD, "record of annotations", "run again")
    new: dict[str, Any] = {key: sum(one[key] for one in record["cases"].values()) for key in COSTS[1:]}
    new["items"] = len(record["queries"])
    return {key: float(before["costs"][key] + new[key]) for key in COSTS}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
