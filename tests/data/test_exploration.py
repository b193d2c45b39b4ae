"""Unlabelled crops cover a case evenly."""

from __future__ import annotations

import numpy as np
import pytest

from nnunet_limited.data.exploration import Exploration, additive_steps


def seen_fraction(corners: list[np.ndarray], shape: tuple[int, ...], patch: tuple[int, ...]) -> float:
    """Return the fraction of the voxels of a case that crops have seen; all lie inside."""
    seen = np.zeros(shape, bool)
    for lower in corners:
        assert (lower >= 0).all()
        assert (lower + patch <= shape).all()
        seen[tuple(slice(low, low + side) for low, side in zip(lower, patch, strict=True))] = True
    return float(seen.mean())


@pytest.mark.parametrize(
    ("shape", "patch"), [((64, 64, 64), (16, 16, 16)), ((40, 96, 32), (8, 16, 32)), ((50, 64, 64), (1, 32, 32))]
)
def test_crops_see_more_of_a_case_than_independent_ones(shape: tuple[int, ...], patch: tuple[int, ...]) -> None:
    exploration, rng, whole = Exploration(["a"], 0), np.random.default_rng(0), int(np.prod(shape) / np.prod(patch))
    places = [np.array(exploration.next_centre("a", shape, patch)) - np.array(patch) // 2 for _ in range(3 * whole)]
    uniform = [rng.integers(0, np.array(shape) - patch + 1) for _ in range(whole)]
    assert seen_fraction(places[:whole], shape, patch) > 0.05 + seen_fraction(uniform, shape, patch)
    assert seen_fraction(places, shape, patch) > 0.93


def test_crops_as_large_as_the_case_lie_in_its_middle() -> None:
    assert Exploration(["a"], 0).next_centre("a", (20, 31, 32), (20, 32, 64)) == [10, 15, 16]


def test_every_slice_comes_in_turn() -> None:
    exploration = Exploration(["a"], 3)
    slices = [exploration.next_centre("a", (20, 32, 32), (1, 32, 32))[0] for _ in range(34)]
    assert set(slices) == set(range(20))


def test_processes_share_one_sequence() -> None:
    alone = Exploration(["a", "b"], 0)
    pair = [Exploration(["a", "b"], 0, rank, 2) for rank in range(2)]
    places = [alone.next_centre("b", (64, 64, 64), (8, 8, 8)) for _ in range(6)]
    assert [p.next_centre("b", (64, 64, 64), (8, 8, 8)) for _ in range(3) for p in pair] == places
    assert Exploration(["a", "b"], 1).next_centre("b", (64, 64, 64), (8, 8, 8)) != places[0]
    assert alone.counts.tolist() == [0, 6]
    assert alone.counts.is_shared()


def test_processes_share_one_sequence_without_a_seed_too() -> None:
    places = [Exploration(["a", "b"], None).next_centre("b", (64, 64, 64), (8, 8, 8)) for _ in range(2)]
    assert places[0] == places[1]
    assert Exploration(["a", "b"], None).shifts[0].tolist() != Exploration(["a", "b"], None).shifts[1].tolist()


def test_steps_are_those_of_the_golden_ratio() -> None:
    assert additive_steps(1) == pytest.approx([0.6180339887])
    assert additive_steps(3) == pytest.approx([0.8191725134, 0.6710436067, 0.5497004779])
