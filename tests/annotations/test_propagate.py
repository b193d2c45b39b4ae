"""Labels of annotated slices, carried to the others."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_limited.annotations.propagate import annotated_slices, displacement, distances, propagate, spans

IGNORE = 3


def moving_disc(depth: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """An object that wanders and grows from slice to slice, and its image."""
    z, y, x = np.indices((depth, 40, 40)).astype(float)
    label = (np.hypot(y - 14 - z, x - 20) < 5 + 0.4 * z).astype(np.int16)
    label[np.hypot(y - 14 - z, x - 20) < 2 + 0.2 * z] = 2
    return (100 * label + np.random.RandomState(0).normal(0, 5, label.shape)).astype(np.float32), label


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_labels_follow_the_image(axis: int) -> None:
    image, label = (np.moveaxis(array, 0, axis) for array in moving_disc())
    sparse = np.full(label.shape, IGNORE, np.int16)
    here = (slice(None),) * axis + (3,)
    sparse[here] = label[here]
    made = propagate(image, sparse, [3], axis)
    assert np.array_equal(made[here], label[here])
    far = (slice(None),) * axis + (8,)
    for value in (1, 2):
        moved, copied = (dice(carried == value, label[far] == value) for carried in (made[far], label[here]))
        assert moved > 0.75
        assert copied < 0.5, "carried without moving it would be wrong"


def test_a_displacement_leads_to_where_a_voxel_came_from() -> None:
    y, x = np.indices((32, 32)).astype(float)
    fixed, moving = (100 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 40) for cy, cx in ((16, 16), (19, 14)))
    down, right = displacement(fixed, moving)[:, 14:19, 14:19].mean((1, 2))
    assert down == pytest.approx(3, abs=0.7)
    assert right == pytest.approx(-2, abs=0.7)


def test_every_slice_takes_the_label_of_the_nearest_annotated_one() -> None:
    assert spans([2, 7], 10) == [(2, 0, 5), (7, 5, 10)]
    assert distances([2, 7], 10).tolist() == [2, 1, 0, 1, 2, 2, 1, 0, 1, 2]
    assert distances([], 4).tolist() == []
    label = np.zeros((10, 3, 3), np.int16)
    label[2], label[7] = 1, 2
    made = propagate(np.zeros(label.shape, np.float32), label, [2, 7], 0)
    assert made[:, 1, 1].tolist() == [1] * 5 + [2] * 5


def test_a_slice_counts_as_annotated_if_nearly_all_of_it_is() -> None:
    label = np.full((5, 10, 10), IGNORE, np.int16)
    label[1], label[2], label[3], label[4] = 0, -1, 1, 2
    label[1, 0], label[3, 0, :9], label[4, 0], label[4, 1, 0] = -1, IGNORE, IGNORE, IGNORE
    assert annotated_slices(label, IGNORE, 0) == [1, 3], "outside of the image nothing needs to be annotated"
    assert annotated_slices(label, IGNORE, 1) == annotated_slices(label, IGNORE, 2) == []


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    axis=st.integers(0, 2),
    seed=st.integers(0, 99),
    share=st.floats(0.01, 1.0),
)
def test_only_annotated_labels_are_carried(shape: tuple[int, ...], axis: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    label = rng.choice([-1, 0, 10, 20], shape).astype(np.int16)
    chosen = sorted(rng.choice(shape[axis], max(1, int(share * shape[axis])), replace=False).tolist())
    image = rng.normal(size=shape).astype(np.float32)
    made = propagate(image, label, chosen, axis)
    before, after = np.moveaxis(label, axis, 0), np.moveaxis(made, axis, 0)
    assert made.shape == label.shape
    assert np.array_equal(after[chosen], before[chosen])
    for index, start, stop in spans(chosen, shape[axis]):
        assert set(np.unique(after[start:stop])) <= set(np.unique(before[index]))
    changed = np.moveaxis(label.copy(), axis, 0)
    others = [index for index in range(shape[axis]) if index not in chosen]
    changed[others] = rng.integers(0, 3, changed[others].shape)
    assert np.array_equal(propagate(image, np.moveaxis(changed, 0, axis), chosen, axis), made)
