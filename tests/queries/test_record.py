"""The record of a round on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nnunet_limited.errors import LimitedError
from nnunet_limited.queries.pool import CaseScores
from nnunet_limited.queries.record import load_round
from nnunet_limited.queries.windows import Granularity, Window, WindowGrid

# As version 0.1.0 wrote it.
CONTENT = {
    "dataset": "Dataset990_Blobs",
    "round": 1,
    "rounds": 5,
    "strategy": "clasp_pe",
    "seed": 0,
    "items": 2,
    "minutes": None,
    "granularity": ["patch", None, [4, 8, 8]],
    "overlap": 0.0,
    "seconds": 79.0,
    "oracle": False,
    "split": "few",
    "split_hash": "d0d1",
    "folds": [0],
    "features": None,
    "model": {
        "trainer": "LimitedSupervisedTrainer",
        "plans": "nnUNetPlans_few",
        "configuration": "2d",
        "checkpoints": {"0": "a1b2"},
    },
    "dice": [0.5],
    "cases": ["case_01", "case_06"],
    "prefilled": {"case_06": {"file": "8fd7", "regions": ["0b5b", "3a6c"]}},
    "queries": [
        {
            "case": "case_06",
            "start": [0, 16, 8],
            "size": [4, 8, 8],
            "score": 0.42,
            "minutes": 5.27,
            "why": "entropy 1.09 (higher in 12 % of the candidates)",
        },
        {"case": "case_06", "start": [4, 0, 0], "size": [4, 8, 8], "score": None, "minutes": None, "why": "random"},
    ],
}


def test_a_round_is_read_and_written_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "queries.json"
    file.write_text(json.dumps(CONTENT), encoding="utf-8")
    made = load_round(tmp_path)
    assert made.record.granularity == Granularity("patch", None, (4, 8, 8))
    assert made.windows_of("case_06") == [
        Window("case_06", (0, 16, 8), (4, 8, 8)),
        Window("case_06", (4, 0, 0), (4, 8, 8)),
    ]
    assert made.initial_labels["case_06"].windows == ("0b5b", "3a6c")
    made.write()
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written == CONTENT
    assert list(written) == list(CONTENT)
    assert (tmp_path / "queries.csv").read_text(encoding="utf-8").splitlines() == [
        "number,case,start,size,score,minutes,why",
        "1,case_06,0x16x8,4x8x8,0.42,5.27,entropy 1.09 (higher in 12 % of the candidates)",
        "2,case_06,4x0x0,4x8x8,,,random",
    ]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("seconds", "long", "seconds"), ("prefilled", None, "queries.json"), ("granularity", [1, "x", 3], "granularity")],
)
def test_a_changed_record_is_refused(tmp_path: Path, key: str, value: object, message: str) -> None:
    (tmp_path / "queries.json").write_text(json.dumps({**CONTENT, key: value}), encoding="utf-8")
    with pytest.raises(LimitedError, match=message):
        load_round(tmp_path)


def test_scores_of_a_case_are_read_as_they_were_written(tmp_path: Path) -> None:
    grid = WindowGrid((np.array([0, 2]), np.array([0])), (2, 3))
    scores = CaseScores(grid, np.array([1.0, 2.0]), np.array([0, 0.5]), {"entropy": np.array([0.1, 0.2])})
    scores.save(tmp_path / "case.npz")
    loaded = CaseScores.load(tmp_path / "case.npz")
    assert loaded.grid.windows("case") == grid.windows("case")
    assert loaded.minutes.tolist() == [1, 2]
    assert loaded.annotated.tolist() == [0, 0.5]
    assert loaded.scores["entropy"].tolist() == [0.1, 0.2]
    assert loaded.class_scores is None
    assert not loaded.features
