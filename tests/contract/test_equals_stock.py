"""With the unsupervised weight 0 a trainer is nnU-Net's, number for number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from contract_runs import run, settings_for
from helpers import LIKE_STOCK, Stock, losses, stock_run, weights
from trainer_sets import SEMI_SUPERVISED, TEACHERS, TRAINERS, TRAINERS_OF_THE_BASE, combinations

NETWORKS = ["2d", "3d"]
FURTHER_KINDS = ["two_channels", "regions", "ignore", "anisotropic"]

pytestmark = pytest.mark.slow


# In further kinds of data the base's, whose labelled part all of them share.
@pytest.mark.parametrize(
    ("trainer", "variant"),
    combinations(TRAINERS, NETWORKS, 1) + [(t, v) for t in TRAINERS_OF_THE_BASE for v in FURTHER_KINDS],
)
def test_weight_zero_equals_stock(workspaces, trainer: str, variant: str) -> None:
    ours = run(workspaces(variant), trainer, "zero", **LIKE_STOCK)
    theirs, stock_weights = stock_run(variant, ours)
    mine = losses(ours)
    assert mine["train_losses"] == theirs["train_losses"]
    for a, b in zip(weights(ours.network), stock_weights, strict=True):
        assert torch.equal(a, b)
    if trainer not in TEACHERS:  # those validate the teacher
        assert mine == theirs


@pytest.mark.parametrize("trainer", SEMI_SUPERVISED)
def test_labelled_stream_does_not_depend_on_the_unlabelled_one(workspaces, trainer: str) -> None:
    workspace = workspaces("2d")
    ours = workspace.trainer(trainer, workspace.configure("stream", **settings_for()))
    ours.on_train_start()
    stock = Stock.like(ours)
    stock.on_train_start()
    for trained in (ours, stock):
        torch.manual_seed(3)
        np.random.seed(3)
        trained.seen = [next(trained.dataloader_train) for _ in range(3)]
    for mine, theirs in zip(ours.seen, stock.seen, strict=True):
        assert "unlabeled" in mine
        assert torch.equal(mine["data"], theirs["data"])
        assert list(mine["keys"]) == list(theirs["keys"])
