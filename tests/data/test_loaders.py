"""Both streams come from the same worker processes."""

from __future__ import annotations

import pickle

import pytest
from helpers import FROM_START

TEACHER = "LimitedMeanTeacherTrainer"


@pytest.mark.slow
def test_worker_processes_draw_both_streams(workspaces, monkeypatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    workspace = workspaces("2d")
    made = workspace.trainer(TEACHER, workspace.configure("workers", **FROM_START))
    made.on_train_start()
    made.on_train_epoch_start()
    try:
        batches = [next(made.dataloader_train) for _ in range(8)]
        crops = {batch["unlabeled"]["data"].numpy().tobytes() for batch in batches}
        assert len(crops) == 8  # the two processes draw different ones
        assert made.train_step(batches[0])["unsupervised_losses"] > 0
        explored, sightings = made.buffers["explored"], made.buffers["sightings"]
        assert explored.sum() > 8  # counted by the worker processes, in memory that this one sees
        assert sightings.is_shared()
    finally:
        made.dataloader_train._finish()
        made.dataloader_val._finish()
    again = pickle.loads(pickle.dumps(made.unlabeled_loader))
    assert next(again)["unlabeled"]["data"].shape == batches[0]["unlabeled"]["data"].shape
