"""Cases of the last round are drawn more often."""

from __future__ import annotations

import numpy as np

from nnunet_limited.trainers.two_stage.active import sampling


def test_cases_of_the_last_round_are_drawn_more_often() -> None:
    chance = sampling(["a", "b", "c", "d", "e"], ["b"], 0.5)
    assert np.allclose(chance, [0.125, 0.5, 0.125, 0.125, 0.125])
    assert sampling(["a", "b"], ["b"], 0.5) is None  # it is half anyway
    assert sampling(["a", "b"], [], 0.5) is None
    assert sampling(["a", "b"], ["a", "b"], 0.9) is None
