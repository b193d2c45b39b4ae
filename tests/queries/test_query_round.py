"""Which cases a query may choose from; one that was interrupted is continued."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import DATASET
from rounds import ask, request

from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.queries.query_round import SCORES, CasePool, open_round
from nnunet_limited.queries.record import load_round
from nnunet_limited.queries.score import score_cases
from nnunet_limited.splits import Fold


@pytest.mark.slow
def test_an_interrupted_query_is_continued(models, tmp_path: Path, monkeypatch) -> None:
    workspace, plans = models("2d")
    whole = ask(request(workspace, plans, tmp_path / "whole"))[1]
    asked = request(workspace, plans, tmp_path / "round")
    query_round = open_round(asked)

    def stop(cases: list[str]):
        yield from cases[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_cases(query_round, "cpu", stop)
    done = {file: file.stat().st_mtime_ns for file in (tmp_path / "round" / SCORES).glob("*.npz")}
    assert len(done) == 2
    with pytest.raises(LimitedError, match="interrupted"):
        load_round(tmp_path / "round")
    with pytest.raises(LimitedError, match="started with seed=0, not 1"):
        open_round(asked.changed(seed=1))
    _, made = ask(asked)
    assert {file: file.stat().st_mtime_ns for file in done} == done
    assert made.queries == whole.queries
    open_round(asked)  # it is complete
    with pytest.raises(LimitedError, match="holds queries already"):
        open_round(asked.changed(seed=1))


def test_the_cases_to_choose_from(workspaces) -> None:
    """What every fold hides, and what every fold learns from in part; never what one of them validates on."""
    workspaces("2d")
    raw = RawDataset.load(DATASET)
    a, b, c, d, e, f = (f"case_{number:02d}" for number in range(6))
    folds = [Fold((a, b), (c,), (d, e, f)), Fold((a, c), (b,), (d, e)), Fold((a, b, c), (f,), (d, e))]
    pool = CasePool.of(raw, folds, lambda case: np.zeros(1))
    assert pool.unlabeled == (d, e)
    assert pool.sparse == ()  # there is no ignore label
    assert pool.annotated == (a, b, c)
    with_ignore = replace(raw, dataset_json={**raw.dataset_json, "labels": {"background": 0, "x": 1, "ignore": 2}})
    sparse = CasePool.of(with_ignore, folds, lambda case: np.array([0, 2]))
    assert sparse.sparse == (a,)  # b and c are validated on
    assert sparse.candidates == [a, d, e]
    assert CasePool.of(raw, [Fold((a,), (b,), (c,)), Fold((a, c), (b,), (d, c))], None).annotated == (
        a,
    )  # c is hidden once


def test_patients_in_validation_are_left_out(workspaces) -> None:
    workspaces("2d")
    raw = RawDataset.load(DATASET)
    folds = [Fold(("case_00",), ("case_01",), ("case_02", "case_03", "case_04"))]
    assert CasePool.of(raw, folds, lambda case: np.zeros(1)).unlabeled == ("case_02", "case_03", "case_04")
    raw = replace(raw, cases={name: raw.cases[case] for name, case in (
        ("a1", "case_00"), ("a2", "case_01"), ("b1", "case_02"), ("b2", "case_03"), ("c1", "case_04")
    )})  # fmt: skip
    folds = [Fold(("b1",), ("a1",), ("a2", "b2", "c1"))]
    assert CasePool.of(raw, folds, lambda case: np.zeros(1), "[abc]").unlabeled == ("b2", "c1")
