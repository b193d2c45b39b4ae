"""What to type after a round."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import DATASET

from nnunet_limited.queries.absorb import next_commands
from nnunet_limited.splits import Fold


def test_what_to_type_next(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next query is as the first, with a trainer that fits the labels."""
    record = {
        "dataset": DATASET,
        "model": {"configuration": "2d", "plans": "p"},
        "round": 1,
        "rounds": 4,
        "split": "r1",
    }
    record |= {"granularity": ["patch", None, [4, 8, 8]], "items": 3, "strategy": "bald", "seconds": 20.0, "seed": 5}
    for unlabeled, trainer in ((("b",), "LimitedActiveTrainer"), ((), "LimitedSparseTrainer")):
        folds = (Fold(("a",), ("c",), ("b",)), Fold(("a",), ("c",), unlabeled))
        monkeypatch.setattr(
            "nnunet_limited.queries.absorb.load_split", lambda *_, folds=folds: SimpleNamespace(folds=folds)
        )
        _, train, query = next_commands("Dataset700_Next", record)
        assert f" -tr {trainer} " in train
        assert f" -tr {trainer} " in query
        assert "--items 3 --strategy bald --seconds 20 --seed 5 --rounds 4 --out round_2" in query
    assert "--strategy" not in next_commands("Dataset700_Next", {**record, "model": None})[-1]
