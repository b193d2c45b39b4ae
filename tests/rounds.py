"""Workspaces with a model of a few steps, and rounds of queries that are asked of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers import DATASET, VARIANTS, Workspace, make_workspace

from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.planners.preprocessing import DATA_PREFIX, preprocess, preprocessing_hash
from nnunet_limited.queries.choose import choose_windows
from nnunet_limited.queries.hand_over import hand_over
from nnunet_limited.queries.query_round import QueryRound, open_round
from nnunet_limited.queries.record import Round
from nnunet_limited.queries.request import QueryRequest
from nnunet_limited.queries.score import score_cases
from nnunet_limited.queries.windows import Granularity
from nnunet_limited.splits import load_split

TRAINER = "LimitedSupervisedTrainer"
PATCH = Granularity("patch", size=(4, 8, 8))
PATCHES = {"what": "patch", "size": (4, 8, 8)}
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
    shaped_by = preprocessing_hash(plans, configuration, workspace.variant.labels)
    configuration["data_identifier"] = f"{DATA_PREFIX}{shaped_by}_3d_fullres"
    file.write_text(json.dumps(plans), encoding="utf-8")
    split, raw = load_split(workspace.preprocessed, "few"), RawDataset.load(DATASET)
    preprocess(plans, "3d_fullres", raw, {*split.labeled, *split.validation}, split.unlabeled, 1)
    return workspace


def request(workspace: Workspace, plans: str, out: Path, **changes) -> QueryRequest:
    """Return a request for three patches by the model of fold 0."""
    model = {"configuration": workspace.variant.configuration, "trainer": TRAINER, "plans": plans, "folds": (0,)}
    return QueryRequest(**{"dataset": DATASET, "out": out, "items": 3, **PATCHES, **model, **changes})


def ask(asked: QueryRequest, pictures: bool = False) -> tuple[QueryRound, Round]:
    """Run a query; return its round and what was handed over, without the pictures, which take longest."""
    query_round = open_round(asked)
    score_cases(query_round, "cpu", list)
    with pytest.MonkeyPatch.context() as patch:
        if not pictures:
            patch.setattr("nnunet_limited.queries.hand_over.write_pictures", lambda *_: None)
        return query_round, hand_over(query_round, choose_windows(query_round), "cpu", list)
