"""Workspaces with a model of a few steps, and rounds of queries that are asked of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from helpers import DATASET, VARIANTS, Workspace, make_workspace

from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.planners.preprocessing import preprocess
from nnunet_limited.queries.query_round import QueryRound
from nnunet_limited.queries.request import QueryRequest
from nnunet_limited.queries.windows import Granularity
from nnunet_limited.runs.request import TrainRequest
from nnunet_limited.splits import load_split

TRAINER = "LimitedSupervisedTrainer"
PATCH = Granularity("patch", size=(4, 8, 8))
ROUND_FILES = ("queries.csv", "queries.json", "request.json")
MODELS = ("2d", "regions", "3d", "transposed")


def write(array: np.ndarray, like: Path, file: Path) -> None:
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(sitk.ReadImage(str(like)))
    sitk.WriteImage(image, str(file))


def resampled(root: Path) -> Workspace:
    """Make a workspace whose network sees another resolution than the scans have."""
    workspace = make_workspace(root, VARIANTS["3d"])
    file = workspace.preprocessed / f"{workspace.plans}.json"
    plans = json.loads(file.read_text(encoding="utf-8"))
    configuration = plans["configurations"]["3d_fullres"]
    configuration["spacing"] = [0.8, 1.3, 1.3]
    configuration["data_identifier"] += "_other"
    file.write_text(json.dumps(plans), encoding="utf-8")
    split, raw = load_split(workspace.preprocessed, "few"), RawDataset.load(DATASET)
    preprocess(plans, "3d_fullres", raw, {*split.labeled, *split.validation}, split.unlabeled, 1)
    return workspace


def request(workspace: Workspace, plans: str, out: Path, **changes) -> QueryRequest:
    model = TrainRequest(
        dataset=DATASET, configuration=workspace.variant.configuration, fold="0", trainer=TRAINER, plans=plans
    )
    given = {"items": 3, "granularity": PATCH, "model": model, "folds": (0,), "number": 1, **changes}
    return QueryRequest(DATASET, out, **given)


def ask(asked: QueryRequest):
    asker = QueryRound(asked)
    asker.score("cpu", list)
    return asker, asker.hand_over(asker.choose(), "cpu", list)
