"""Settings as text."""

from __future__ import annotations

from nnunet_limited.engine.settings import parse_assignments
from nnunet_limited.trainers.two_stage.self_training import SelfTrainingConfig


def test_settings_are_numbers_only_where_no_name_is_lost() -> None:
    given = ["a=0.3", "b=20", "c=none", "d=true", "e=007", "f=2024_01", "g=1e-3"]
    found = parse_assignments(given)
    assert found == {"a": 0.3, "b": 20, "c": None, "d": True, "e": "007", "f": "2024_01", "g": "1e-3"}
    assert SelfTrainingConfig(initial_lr="1e-3", pseudo_labels=2024).model_dump() == {
        **SelfTrainingConfig().model_dump(),
        "initial_lr": 0.001,
        "pseudo_labels": "2024",
    }
