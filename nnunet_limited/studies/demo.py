"""From nothing to a table and a picture: the whole way on a made-up dataset, in minutes on a CPU."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.datasets.phantom import LABELS, write_phantom_dataset
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.host.evaluation import dice_of_files
from nnunet_limited.host.folders import preprocessed_folder, raw_folder, results_folder
from nnunet_limited.host.predict import load_predictor, predict_folder
from nnunet_limited.planners.plan import PlanRequest, make_plans
from nnunet_limited.pseudo_labels.model import ModelSource
from nnunet_limited.report.comparison_picture import comparison_picture
from nnunet_limited.runs.launch import train_here
from nnunet_limited.runs.predict import CHECKPOINT
from nnunet_limited.runs.request import TrainRequest, find_trainer
from nnunet_limited.runs.variants import configure
from nnunet_limited.splits import SplitRequest, make_split, write_split
from nnunet_limited.splits.classes import class_reader
from nnunet_limited.util.files import write_json
from nnunet_limited.util.parallel import default_processes

DATASET, SPLIT, CONFIGURATION, FOLD = "Dataset990_Phantom", "l3", "2d", 0
TRAINERS = {"supervised": "LimitedSupervisedTrainer", "recipe": "LimitedRecipeTrainer"}
SETTINGS = {"num_epochs": 4, "num_iterations_per_epoch": 120, "num_val_iterations_per_epoch": 2, "save_every": 1}
PICTURE_ROWS = 3
SHAPE = (20, 48, 48)


def run_demo(out: Path, seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Make the phantom in ``out``, label 3 cases, train supervised and with the recipe, predict the held-out cases.

    Returns the scores.

    What an interrupted call finished is not done again.
    """
    for name in ("raw", "preprocessed", "results"):
        folder = out.resolve() / f"nnUNet_{name}"
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(folder)
    os.environ.setdefault("nnUNet_n_proc_DA", "0")

    say(f"1/5 writing the phantom dataset and a split with 3 labelled cases (seed {seed})")
    raw = raw_folder(DATASET)
    if not (raw / "dataset.json").is_file():
        write_phantom_dataset(raw.parent, DATASET, seed=seed, shape=SHAPE)
    dataset = RawDataset.load(DATASET)
    folder = preprocessed_folder(DATASET)
    split, partition = make_split(dataset, folder, SplitRequest(SPLIT, "3", seed=seed), class_reader(dataset))
    write_split(folder, split, partition)

    say("2/5 planning for the split and preprocessing")
    plans = make_plans(PlanRequest(DATASET, SPLIT, (CONFIGURATION,), size="tiny", processes=default_processes())).plans
    plans = configure(folder, plans, {**SETTINGS, "seed": seed}, "demo")

    scores: dict[str, dict[str, list[float]]] = {}
    predictions = {}
    for label, trainer in TRAINERS.items():
        fold = split.folds[FOLD]
        number, extra = 3, ""
        if label == "recipe":
            number, extra = 5, f" and {len(fold.unlabeled)} pseudo-labelled"
            teacher = find_trainer(trainer).teacher
            say(f"4/5 training {teacher}, which labels {len(fold.unlabeled)} cases")
            pseudo_label(teacher, plans)
        say(f"{number}/5 training {trainer} on {len(fold.train)} labelled{extra} cases, predicting the held-out ones")
        predictions[label] = out / "predictions" / trainer
        with contextlib.redirect_stdout(io.StringIO()):
            model = load_predictor(train(trainer, plans), [FOLD], "cpu", CHECKPOINT)
            predict_folder(model, raw / "imagesTs", predictions[label])
        scores[label] = evaluate(raw / "labelsTs", predictions[label])

    cases = sorted(scores["supervised"])
    means = {label: {case: float(np.mean(by_case[case])) for case in cases} for label, by_case in scores.items()}
    rows = [
        (
            case,
            raw / "imagesTs" / f"{case}_0000.nii.gz",
            raw / "labelsTs" / f"{case}.nii.gz",
            {label: predicted / f"{case}.nii.gz" for label, predicted in predictions.items()},
        )
        for case in cases[:PICTURE_ROWS]
    ]
    picture = out / "demo.png"
    comparison_picture(rows, picture, {value: name for name, value in LABELS.items() if value}, means)
    names = [name for name, value in LABELS.items() if value]
    dice = {
        label: {
            **{name: float(np.mean([by_case[c][i] for c in cases])) for i, name in enumerate(names)},
            "mean": float(np.mean([by_case[c] for c in cases])),
        }
        for label, by_case in scores.items()
    }
    result = {"seed": seed, "cases": len(cases), "dice": dice, "picture": str(picture)}
    write_json(out / "demo.json", result)
    return result


def train(trainer_name: str, plans: str) -> Path:
    """Train one fold to its end, going on from a checkpoint if there is one; return the folder of the folds."""
    results = results_folder(DATASET) / f"{trainer_name}__{plans}__{CONFIGURATION}"
    if not (results / f"fold_{FOLD}" / CHECKPOINT).is_file():
        train_here(DATASET, CONFIGURATION, FOLD, trainer_name, plans)
    return results


def pseudo_label(teacher: str, plans: str) -> None:
    """Train the teacher, and let it label the unlabelled cases of the fold."""
    source = ModelSource(
        TrainRequest(dataset=DATASET, configuration=CONFIGURATION, fold=str(FOLD), trainer=teacher, plans=plans),
        "model",
    )
    with contextlib.redirect_stdout(io.StringIO()):
        train(teacher, plans)
        for labels in source.check([FOLD]):
            source.make(labels, "cpu", iter)


def evaluate(truth: Path, predicted: Path) -> dict[str, list[float]]:
    """Return the Dice of each class for each case, with the host's own metric."""
    values = [value for value in LABELS.values() if value]
    files = sorted(truth.glob("*.nii.gz"))
    return {f.name.removesuffix(".nii.gz"): dice_of_files(f, predicted / f.name, values) for f in files}
