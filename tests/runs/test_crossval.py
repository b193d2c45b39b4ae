"""What a fold still lacks, and folds that two processes train."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest
from helpers import DATASET

from nnunet_limited.runs.crossval import missing_step, train_folds
from nnunet_limited.runs.request import TrainRequest
from nnunet_limited.util.locks import one_at_a_time


def test_a_fold_is_complete_with_the_probabilities_asked_for(tmp_path: Path) -> None:
    assert missing_step(tmp_path, True) == ("training", ())
    (tmp_path / "checkpoint_final.pth").touch()
    (tmp_path / "validation").mkdir()
    (tmp_path / "validation" / "summary.json").write_text('{"metric_per_case": [{}, {}]}', encoding="utf-8")
    assert missing_step(tmp_path, False) is None
    for name in ("a", "b"):
        assert missing_step(tmp_path, True) == ("validating", ("--val",))
        (tmp_path / "validation" / f"{name}.npz").touch()
    assert missing_step(tmp_path, True) is None


def test_a_fold_is_trained_once_by_two_at_a_time(workspaces, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits for the first and finds the fold complete."""
    workspace = workspaces("2d").activate("results_twice")
    request = TrainRequest(
        dataset=DATASET,
        configuration="2d",
        fold="0",
        trainer="LimitedSupervisedTrainer",
        plans=workspace.configure("twice"),
    )
    folder = request.results / "fold_0"
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: pytest.fail("trained"))
    lines: list[str] = []
    second = threading.Thread(target=train_folds, args=(request, [0], lines.append))
    with one_at_a_time(folder):
        second.start()
        second.join(1)
        assert second.is_alive()
        assert not lines
        (folder / "validation").mkdir(parents=True)
        (folder / "checkpoint_final.pth").touch()
        (folder / "validation" / "summary.json").write_text("{}", encoding="utf-8")
    second.join()
    assert lines == ["fold 0: complete"]
