"""One step of a run of a comparison study, as the workflow calls it in the study's folder.

    python -m nnunet_limited.studies.comparison.job train Dataset004_Hippocampus/2d/l4s0/supervised/fold_0

The commands that a step calls, and their output, are in its log; a step that fails leaves a marker beside it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.splits.check import load_split
from nnunet_limited.studies.comparison.folder import ComparisonFolder
from nnunet_limited.studies.comparison.study import ALL, Run, test_cases
from nnunet_limited.studies.engine.folder import RECORD
from nnunet_limited.studies.engine.steps import Call, TrainingRecord, device, do, settings_of, train
from nnunet_limited.studies.engine.study_file import left_out
from nnunet_limited.util.files import read_object, replacing, write_json


class RunRecord(TrainingRecord):
    """The record of a run of a comparison study."""

    split_hash: str
    labeled_cases: int


def main(arguments: list[str]) -> int:
    """Do a step; return the exit status."""
    step, identifier, *devices = arguments
    folder = ComparisonFolder(Path("."))
    os.environ.update(folder.environment())
    if step in ("split", "plan"):
        dataset, split = identifier.split("/")
        run = next(run for run in folder.study.runs() if (run.dataset, run.split) == (dataset, split))
    else:
        run = folder.run(identifier)
    return do(folder.log(run, step), f"{identifier}: {step}", lambda call: STEPS[step](folder, run, call, *devices))


def _split(folder: ComparisonFolder, run: Run, call: Call) -> None:
    study = folder.study
    words = ["split", run.dataset, "--name", run.split, "--seed", str(run.seed)]
    words += ["--labeled", run.labeled] if run.labeled != ALL else []
    if study.published is not None:
        words += ["--published", str(RawDataset.load(run.dataset).folder / study.published)]
    else:
        words += ["--folds", str(study.number_of_folds)]
    if study.cases is not None:
        others = folder.split_folder(run) / "left_out.txt"
        with replacing(others) as temporary:
            temporary.write_text(
                "\n".join(["# not used", *left_out(RawDataset.load(run.dataset), study.cases)]), encoding="utf-8"
            )
        words += ["--test-cases", str(others)]
    words += ["--protocol", study.protocol] if study.protocol else []
    words += ["--group-by", study.group_by] if study.group_by else []
    made = json.loads(call("nnunet-limited", *words, "--json"))
    write_json(folder.split_folder(run) / "split.json", made["info"])


def _plan(folder: ComparisonFolder, run: Run, call: Call) -> None:
    study = folder.study
    words = ["plan", run.dataset, "--split", run.split]
    words += [word for configuration in study.configurations for word in ("-c", configuration)]
    words += ["--size", study.size] if study.size else []
    words += ["--patch", study.patch] if study.patch else []
    planned = json.loads(call("nnunet-limited", *words, "--json"))
    write_json(folder.split_folder(run) / "plans.json", planned)


def _train(folder: ComparisonFolder, run: Run, call: Call, devices: str) -> None:
    study = folder.study
    plans = read_object(folder.split_folder(run) / "plans.json", "record of plans", "delete its folder")["plans"]
    method = study.method(run.method)
    with device(devices):
        record = train(call, method, run.dataset, run.configuration, plans, run.fold, settings_of(study, run.seed))
    split = load_split(Path(os.environ["nnUNet_preprocessed"]) / run.dataset, run.split)
    whole: RunRecord = {**record, "split_hash": split.hash, "labeled_cases": len(split.folds[run.fold].train)}
    write_json(folder.run_folder(run) / RECORD, whole)


def _predict(folder: ComparisonFolder, run: Run, call: Call, devices: str) -> None:
    study = folder.study
    record: RunRecord = folder.record(run)
    assert study.test is not None
    images = RawDataset.load(run.dataset).folder / study.test.images
    out = folder.run_folder(run) / "predictions"
    words = ["-i", str(images), "-o", str(out), "-d", run.dataset, "-p", record["plans"], "-c", run.configuration]
    words += ["-tr", record["trainer"], "-f", str(run.fold)]
    with device(devices) as chosen:
        call("nnUNetv2_predict", *words, "-device", chosen)
    write_json(folder.run_folder(run) / "predicted.json", {"predictions": str(out)})


def _evaluate(folder: ComparisonFolder, run: Run, call: Call) -> None:
    study = folder.study
    description = Path(os.environ["nnUNet_preprocessed"]) / run.dataset / "dataset.json"
    predictions, labels = compared(folder, run)
    raw = RawDataset.load(run.dataset)
    split = load_split(Path(os.environ["nnUNet_preprocessed"]) / run.dataset, run.split)
    for case in test_cases(study, raw) or split.folds[run.fold].val:
        if not (predictions / f"{case}{raw.description.file_ending}").is_file():
            raise LimitedError(f"{predictions} has no prediction of {case}; delete {run.identifier} and run again")
    words = ["evaluate", str(predictions), str(labels), "--dataset-json", str(description)]
    words += ["--tolerance", str(study.tolerance), *(["--voxels"] if study.voxels else [])]
    call("nnunet-limited", *words, "--out", str(folder.run_folder(run) / "metrics.csv"))


def compared(folder: ComparisonFolder, run: Run) -> tuple[Path, Path]:
    """Return the folder of a run's predictions, of the test set or else of the validation cases, and that of labels."""
    study = folder.study
    root = folder.path.resolve()
    if study.test is not None:
        labels = root / "raw" / run.dataset / study.test.labels
        return folder.run_folder(run) / "predictions", labels
    last = folder.path / folder.record(run)["results"][-1]
    return last / "validation", root / "preprocessed" / run.dataset / "gt_segmentations"


STEPS: dict[str, Callable[..., None]] = {
    "split": _split,
    "plan": _plan,
    "train": _train,
    "predict": _predict,
    "evaluate": _evaluate,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
