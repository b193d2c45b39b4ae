"""Continued self-training uses the cases that it began with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import FROM_START

from nnunet_limited.data.pseudo_label_store import PseudoLabels
from nnunet_limited.engine import checkpoint
from nnunet_limited.engine.run import RECORD
from nnunet_limited.trainers.two_stage.self_training import CASES, LimitedSelfTrainingTrainer

NAME = "LimitedSelfTrainingTrainer"


@pytest.fixture
def stored(workspaces, monkeypatch: pytest.MonkeyPatch):
    """Return a function that gives the cases of the stored set stability and confidence."""
    original = LimitedSelfTrainingTrainer._stored

    def judge(stability: list[float], confidence: list[float]) -> None:
        def judged(run, config) -> PseudoLabels:
            labels = original(run, config)
            values = zip(run.fold.unlabeled, stability, confidence, strict=False)
            cases = {case: {"stability": s, "confidence": c} for case, s, c in values}
            return replace(labels, cases={case: cases.get(case, {"stability": 0.0}) for case in labels.cases})

        monkeypatch.setattr(LimitedSelfTrainingTrainer, "_stored", staticmethod(judged))

    return judge


def started(workspace, plans: str, resume: bool = False):
    made = workspace.trainer(NAME, plans, resume=resume)
    made.on_train_start()
    return made, made.unlabeled_loader.unlabeled._data.identifiers


def log(made) -> str:
    return Path(made.log_file).read_text(encoding="utf-8")


def test_a_continued_run_keeps_its_cases(workspaces, stored) -> None:
    workspace = workspaces("2d")
    plans = workspace.configure("cases", **FROM_START, stable_fraction=0.01)
    stored([0.9, 0.8], [50.0, 90.0])
    made, cases = started(workspace, plans)
    assert cases == [made.run.fold.unlabeled[1]]
    assert json.loads((made.run.results / RECORD).read_text())[CASES] == cases
    made.save_checkpoint(str(made.run.results / "checkpoint_latest.pth"))
    stored([0.9, 0.1], [90.0, 10.0])
    again, same = started(workspace, plans, resume=True)
    assert same == cases
    assert "by stability alone" not in log(again)
    assert json.loads((made.run.results / RECORD).read_text())[CASES] == cases


def test_a_run_begun_before_cases_were_recorded_keeps_the_order_of_stability(workspaces, stored) -> None:
    workspace = workspaces("2d")
    plans = workspace.configure("cases-before", **FROM_START, stable_fraction=0.01)
    stored([0.9, 0.8], [50.0, 90.0])
    made, _ = started(workspace, plans)
    del made.run.record[CASES]
    made.run.write_record()
    made.save_checkpoint(str(made.run.results / "checkpoint_latest.pth"))
    for _ in range(2):
        again, cases = started(workspace, plans, resume=True)
        assert cases == [made.run.fold.unlabeled[0]]
        assert "began when cases were chosen by stability alone" in log(again)
        assert CASES not in json.loads((made.run.results / RECORD).read_text())
        checkpoint.check(made.run.results / "checkpoint_latest.pth", type(again), again.run.record)
