"""One step of a run of a comparison study, as the workflow calls it in the study's folder.

    python -m nnunet_limited.studies.comparison.job train Dataset004_Hippocampus/2d/l4s0/supervised/fold_0

The commands that a step calls, and their output, are in its log; a step that fails leaves a marker beside it.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.engine.run import FINAL
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import preprocessed_folder, results_folder
from nnunet_limited.splits.check import load_split
from nnunet_limited.studies.comparison.folder import PLANS, ComparisonFolder
from nnunet_limited.studies.comparison.study import ALL, Run, test_cases
from nnunet_limited.studies.engine.folder import RECORD
from nnunet_limited.studies.engine.stale import was_moved_aside
from nnunet_limited.studies.engine.steps import Call, TrainingRecord, device, do, draw_words, options, train
from nnunet_limited.studies.engine.study_file import write_left_out
from nnunet_limited.util.files import write_json


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
    study, raw = folder.study, RawDataset.load(run.dataset)
    others = folder.split_folder(run) / "left_out.txt"
    if study.cases is not None:
        write_left_out(others, raw, study)
    words = options(
        {
            "--name": run.split,
            "--seed": run.seed if study.published is None else None,  # the file fixes who is labelled
            "--labeled": run.labeled if run.labeled != ALL else None,
            "--published": study.published and raw.folder / study.published,
            "--test-cases": others if study.cases is not None else None,
            "--protocol": study.protocol,
        }
    )
    words += draw_words(study) if study.published is None else options({"--group-by": study.group_by})
    made = json.loads(call("nnunet-limited", "split", run.dataset, *words, "--json"))
    write_json(folder.split_folder(run) / "split.json", made["info"])


def _plan(folder: ComparisonFolder, run: Run, call: Call) -> None:
    study = folder.study
    words = options({"--split": run.split, "-c": study.configurations, "--size": study.size, "--patch": study.patch})
    planned = json.loads(call("nnunet-limited", "plan", run.dataset, *words, "--json"))
    write_json(folder.split_folder(run) / PLANS, planned)


def _train(folder: ComparisonFolder, run: Run, call: Call, devices: str) -> None:
    with device(devices):
        training, redo = folder.training(run), was_moved_aside(folder, run)
        record = train(call, folder.study, training, folder.others(run), redo)
    split = load_split(preprocessed_folder(run.dataset), run.split)
    whole: RunRecord = {**record, "split_hash": split.hash, "labeled_cases": len(split.folds[run.fold].train)}
    write_json(folder.run_folder(run) / RECORD, whole)


def _predict(folder: ComparisonFolder, run: Run, call: Call, devices: str) -> None:
    from nnunet_limited.host.predict import check_model

    record: RunRecord = folder.record(run)
    images = RawDataset.load(run.dataset).folder / folder.study.test.images
    out = folder.run_folder(run) / "predictions"
    words = options({"-i": images, "-o": out, "-d": run.dataset, "-p": record["plans"], "-c": run.configuration})
    words += options({"-tr": record["trainer"], "-f": run.fold})
    model = results_folder(run.dataset) / f"{record['trainer']}__{record['plans']}__{run.configuration}"
    check_model(model, [run.fold], FINAL)
    with device(devices) as chosen:
        call("nnUNetv2_predict", *words, "-device", chosen)
    write_json(folder.run_folder(run) / "predicted.json", {"predictions": str(out)})


def _evaluate(folder: ComparisonFolder, run: Run, call: Call) -> None:
    study = folder.study
    predictions, labels = compared(folder, run)
    raw, preprocessed = RawDataset.load(run.dataset), preprocessed_folder(run.dataset)
    for case in test_cases(study, raw) or load_split(preprocessed, run.split).folds[run.fold].val:
        if not (predictions / f"{case}{raw.description.file_ending}").is_file():
            raise LimitedError(f"{predictions} has no prediction of {case}; delete {run.identifier} and run again")
    words = options(
        {
            "--dataset-json": preprocessed / "dataset.json",
            "--tolerance": study.tolerance,
            "--voxels": study.voxels,
            "--allow-missing": True,  # the labels are those of all folds
            "--out": folder.run_folder(run) / "metrics.csv",
        }
    )
    call("nnunet-limited", "evaluate", str(predictions), str(labels), *words)


def compared(folder: ComparisonFolder, run: Run) -> tuple[Path, Path]:
    """Return the folder of a run's predictions, of the test set or else of the validation cases, and that of labels."""
    root, test = folder.path.resolve(), folder.study.test
    if test is not None:
        return folder.run_folder(run) / "predictions", root / "raw" / run.dataset / test.labels
    last = folder.path / folder.record(run)["results"][-1]
    return last / "validation", root / "preprocessed" / run.dataset / "gt_segmentations"


STEPS: dict[str, Any] = {"split": _split, "plan": _plan, "train": _train, "predict": _predict, "evaluate": _evaluate}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
