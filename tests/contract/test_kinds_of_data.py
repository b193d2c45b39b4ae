"""Every trainer trains on every kind of data."""

from __future__ import annotations

import pytest
from contract_runs import assert_complete, run
from trainer_sets import TRAINERS, TRAINERS_OF_THE_BASE, combinations

# All train in 2D where they are resumed; variant and fold.
KINDS = [
    ("3d", 0),
    ("two_channels", 0),
    ("regions", 0),
    ("ignore", 0),
    ("all_annotated", 0),
    ("ignore_regions", 0),
    ("anisotropic", 0),
    ("one_labeled", 1),
    ("deployment", "all"),
]
WHOLE_SLICES = {"ignore": "planes_2d", "ignore_regions": "planes_regions"}

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("trainer", "variant", "fold"), combinations(TRAINERS, KINDS, 2))
def test_every_kind_of_data_trains(workspaces, trainer: str, variant: str, fold: int | str) -> None:
    if trainer == "LimitedSlicePropagationTrainer":  # which refuses labels without a whole slice
        variant = WHOLE_SLICES.get(variant, variant)
    assert_complete(run(workspaces(variant), trainer, "kinds", fold=fold, num_epochs=1))


@pytest.mark.parametrize("trainer", TRAINERS_OF_THE_BASE)
@pytest.mark.parametrize(("variant", "fold"), [("one_labeled", 0), ("deployment", 0), ("2d", "all")])
def test_every_fold_trains(untouched, trainer: str, variant: str, fold: int | str) -> None:
    """Folds that see what is hidden from others."""
    assert_complete(run(untouched(variant), trainer, "folds", fold=fold, num_epochs=1, log_pseudo_label_dice=True))
