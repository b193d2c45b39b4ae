"""The demo: a synthetic dataset, a split, two trainings, a table and a picture, in minutes on a CPU."""

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from nnunet_limited.datasets.phantom import LABELS, write_phantom_dataset
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.engine.run import FINAL
from nnunet_limited.host.evaluation import dice_of_files
from nnunet_limited.host.folders import preprocessed_folder, raw_folder, results_folder
from nnunet_limited.host.predict import load_predictor, predict_folder
from nnunet_limited.metrics.registry import SAFEGUARDS
from nnunet_limited.metrics.request import EvaluateRequest
from nnunet_limited.planners.plan import make_plans
from nnunet_limited.planners.request import PlanRequest
from nnunet_limited.pseudo_labels.job import ModelLabeller, PseudoLabelJob
from nnunet_limited.report.comparison_picture import CaseFiles, comparison_picture
from nnunet_limited.runs.evaluate import evaluate, summarise
from nnunet_limited.runs.launch import train_here
from nnunet_limited.runs.request import TrainRequest, find_trainer
from nnunet_limited.runs.scores import can_measure_distances
from nnunet_limited.runs.variants import configure
from nnunet_limited.splits import Fold, SplitRequest
from nnunet_limited.splits.make import create_split
from nnunet_limited.util.files import write_json

DATASET, SPLIT, CONFIGURATION, FOLD = "Dataset990_Phantom", "l3", "2d", 0
TRAINERS = {"supervised": "LimitedSupervisedTrainer", "recipe": "LimitedRecipeTrainer"}
SETTINGS = {"num_epochs": 4, "num_iterations_per_epoch": 120, "num_val_iterations_per_epoch": 2, "save_every": 1}
CLASSES = {value: name for name, value in LABELS.items() if value}


def run_demo(out: Path, seed: int, log: Callable[[str], None]) -> dict[str, Any]:
    """Make the phantom in ``out``, label 3 cases, train supervised and with the recipe, predict the held-out cases.

    Returns the scores, which ``demo.json`` holds too. Finished parts of an interrupted call are skipped.
    """
    for name in ("raw", "preprocessed", "results"):
        folder = out.resolve() / f"nnUNet_{name}"
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(folder)
    os.environ.setdefault("nnUNet_n_proc_DA", "0")

    log(f"1/5 writing the phantom dataset and a split with 3 labelled cases (seed {seed})")
    fold = make_data(seed)
    log("2/5 planning for the split and preprocessing")
    planned = make_plans(PlanRequest(dataset=DATASET, split=SPLIT, configurations=(CONFIGURATION,), size="tiny"))
    plans = configure(preprocessed_folder(DATASET), planned.plans, {**SETTINGS, "seed": seed}, "demo")

    predictions = {}
    for label, trainer in TRAINERS.items():
        number, extra = 3, ""
        if label == "recipe":
            number, extra = 5, f" and {len(fold.unlabeled)} pseudo-labelled"
            teacher = find_trainer(trainer).teacher
            log(f"4/5 training {teacher}, which labels {len(fold.unlabeled)} cases")
            pseudo_label(teacher, plans)
        log(f"{number}/5 training {trainer} on {len(fold.train)} labelled{extra} cases, predicting the held-out ones")
        predictions[label] = out / "predictions" / trainer
        with contextlib.redirect_stdout(io.StringIO()):
            model = load_predictor(train(trainer, plans), [FOLD], "cpu", FINAL)
            predict_folder(model, raw_folder(DATASET) / "imagesTs", predictions[label])
    scores = {label: dice_per_case(raw_folder(DATASET) / "labelsTs", folder) for label, folder in predictions.items()}
    picture = out / "demo.png"
    draw(predictions, scores, picture)
    dice = {label: mean_of_classes(table) for label, table in scores.items()}
    result = {"seed": seed, "cases": len(scores["supervised"]), "dice": dice, **distances(predictions)}
    result["picture"] = str(picture)
    write_json(out / "demo.json", result)
    return result


def make_data(seed: int) -> Fold:
    """Write the phantom dataset and its split; return the fold to train."""
    raw = raw_folder(DATASET)
    if not (raw / "dataset.json").is_file():
        write_phantom_dataset(raw.parent, DATASET, seed=seed, shape=(20, 48, 48))
    split, _ = create_split(RawDataset.load(DATASET), SplitRequest(name=SPLIT, labeled="3", seed=seed))
    return split.folds[FOLD]


def train(trainer_name: str, plans: str) -> Path:
    """Train one fold, continuing from its checkpoint if there is one; return the folder of the folds."""
    results = results_folder(DATASET) / f"{trainer_name}__{plans}__{CONFIGURATION}"
    if not (results / f"fold_{FOLD}" / FINAL).is_file():
        train_here(DATASET, CONFIGURATION, FOLD, trainer_name, plans)
    return results


def pseudo_label(teacher: str, plans: str) -> None:
    """Train the teacher, and let it label the unlabelled cases of the fold."""
    model = TrainRequest(dataset=DATASET, configuration=CONFIGURATION, fold=str(FOLD), trainer=teacher, plans=plans)
    job = PseudoLabelJob(ModelLabeller(model), "model")
    with contextlib.redirect_stdout(io.StringIO()):
        train(teacher, plans)
        for labels in job.check([FOLD]):
            job.make(labels, "cpu", iter)


def dice_per_case(truth: Path, predicted: Path) -> pd.DataFrame:
    """Return the Dice of each case (row) and class (column) by nnU-Net's own metric, and as ``mean`` over classes."""
    files = sorted(truth.glob("*.nii.gz"))
    rows = [dice_of_files(file, predicted / file.name, list(CLASSES)) for file in files]
    table = pd.DataFrame(rows, [file.name.removesuffix(".nii.gz") for file in files], list(CLASSES.values()))
    return table.assign(mean=table.mean(axis=1))


def mean_of_classes(table: pd.DataFrame) -> dict[str, float]:
    """Return the mean over cases of each class, and as ``mean`` that over classes, as nnU-Net defines it."""
    means = table.drop(columns="mean").mean()
    return {**means.to_dict(), "mean": float(means.mean())}


def distances(predictions: dict[str, Path]) -> dict[str, dict[str, dict[str, float]]]:
    """Return HD95 and NSD by metric, method and class; none where MONAI, which measures them, is not installed."""
    if not can_measure_distances():
        return {}
    raw = raw_folder(DATASET)
    found = {}
    for label, folder in predictions.items():
        request = EvaluateRequest(predictions=folder, truth=raw / "labelsTs", dataset_json=raw / "dataset.json")
        found[label] = summarise(evaluate(request))
    return {metric: {label: table[metric].to_dict() for label, table in found.items()} for metric in SAFEGUARDS}


def draw(predictions: dict[str, Path], scores: dict[str, pd.DataFrame], picture: Path) -> None:
    """Draw the first cases with the predictions of each method."""
    raw, rows = raw_folder(DATASET), []
    for case in scores["supervised"].index[:3]:
        predicted = {label: folder / f"{case}.nii.gz" for label, folder in predictions.items()}
        files = raw / "imagesTs" / f"{case}_0000.nii.gz", raw / "labelsTs" / f"{case}.nii.gz"
        rows.append(CaseFiles(case, *files, predicted))
    comparison_picture(rows, picture, CLASSES, {label: table["mean"].to_dict() for label, table in scores.items()})
