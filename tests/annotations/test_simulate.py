"""Every simulator of sparse labels, on arrays of any shape with anything in them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnunet_limited.annotations.annotation import Annotation, classes
from nnunet_limited.annotations.objects import boxes, patches, points, slices
from nnunet_limited.annotations.scribbles import scribbles

IGNORE = 4
SIMULATORS = {
    "spline": scribbles,
    "skeleton": partial(scribbles, style="skeleton"),
    "every slice of another axis": partial(scribbles, axis=-1),
    "two slices of scribbles": partial(scribbles, count=2),
    "centre slice": slices,
    "random slices": partial(slices, count=2, placement="random"),
    "equidistant slices": partial(slices, count=3, placement="equidistant"),
    "orthogonal slices": partial(slices, axes=(0, 1, 2)),
    "tight boxes": boxes,
    "jittered boxes": partial(boxes, margin=0.3),
    "points": points,
    "points at random": partial(points, placement="random", per_object=2),
    "anisotropic points": partial(points, spacing=(8.0, 1.0, 1.5)),
    "patches": partial(patches, size=(2, 3, 3), count=4),
}
PLANE = {"spline", "skeleton", "tight boxes", "jittered boxes", "points", "points at random"}  # that take 2D too


def blobs(shape: tuple[int, ...], seed: int, ignored: bool) -> np.ndarray:
    """Return a label with a few touching objects, objects of one voxel, empty slices and, perhaps, ignored voxels."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    grid = np.indices(shape)
    for _ in range(rng.integers(0, 6)):
        middle, radius = rng.uniform(0, shape), rng.uniform(0.5, 0.5 + max(shape) / 3)
        near = sum((g - m) ** 2 for g, m in zip(grid, middle, strict=True)) <= radius**2
        label[near] = rng.integers(1, IGNORE)
    if ignored:
        label[rng.random(shape) < 0.1] = IGNORE
    return label


def smooth(dimensions: int) -> st.SearchStrategy[np.ndarray]:
    return st.builds(blobs, st.tuples(*[st.integers(1, 24)] * dimensions), st.integers(0, 2**32 - 1), st.booleans())


def noise(dimensions: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * dimensions), elements=st.integers(0, IGNORE))


ANY = smooth(3) | noise(3)
ANY_PLANE = smooth(2) | noise(2)


def annotate(name: str, label: np.ndarray, seed: int) -> Annotation:
    if label.ndim == 2 and name == "patches":
        return patches(label, IGNORE, np.random.default_rng(seed), (3, 3), 4)
    return SIMULATORS[name](label, IGNORE, np.random.default_rng(seed))


def check(name: str, label: np.ndarray, seed: int) -> None:
    before = label.copy()
    made = annotate(name, label, seed)
    again = annotate(name, label, seed)
    annotated = made.label != IGNORE
    assert made.label.shape == label.shape
    assert made.label.dtype == label.dtype
    assert (label == before).all(), "the dense label was changed"
    assert (made.label == again.label).all(), "the same seed, another annotation"
    assert made[1:] == again[1:]
    assert (made.label[annotated] == label[annotated]).all(), "a wrong voxel"
    cost = made.cost(IGNORE, 6.0)
    assert cost["voxels"] == annotated.sum()
    assert cost["foreground_voxels"] == ((made.label > 0) & annotated).sum()
    assert cost["minutes"] == pytest.approx(made.marks / 10)
    assert (made.marks > 0) == (made.slices > 0) or not annotated.any()


@pytest.mark.parametrize("name", SIMULATORS)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(label=ANY, seed=st.integers(0, 2**32 - 1))
def test_volume(name: str, label: np.ndarray, seed: int) -> None:
    """The same seed gives the same annotation, it agrees with the dense label, and its cost adds up."""
    check(name, label, seed)


@pytest.mark.parametrize("name", sorted(PLANE | {"patches"}))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(label=ANY_PLANE, seed=st.integers(0, 2**32 - 1))
def test_plane(name: str, label: np.ndarray, seed: int) -> None:
    """What holds of volumes holds of single images."""
    check(name, label, seed)


@pytest.mark.parametrize("name", ["spline", "skeleton", "every slice of another axis"])
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(label=ANY, seed=st.integers(0, 2**32 - 1))
def test_scribbles_reach_every_object(name: str, label: np.ndarray, seed: int) -> None:
    """Every class of every slice, and every object in 3D, gets a stroke."""
    from scipy import ndimage

    made = annotate(name, label, seed).label
    moved, dense = (np.moveaxis(array, -1 if "another" in name else 0, 0) for array in (made, label))
    for drawn, one in zip(moved, dense, strict=True):
        assert classes(drawn, IGNORE) == classes(one, IGNORE)
    for value in classes(label, IGNORE):
        objects, number = ndimage.label(label == value)
        assert set(range(1, number + 1)) <= set(np.unique(objects[made == value]))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(label=ANY, seed=st.integers(0, 2**32 - 1), count=st.integers(1, 5), axis=st.integers(0, 2))
@pytest.mark.parametrize("placement", ["centre", "equidistant", "random"])
def test_slices_keep_to_their_budget(placement: str, label: np.ndarray, seed: int, count: int, axis: int) -> None:
    """There are as many slices as asked for, complete, through the foreground if there is any."""
    made = slices(label, IGNORE, np.random.default_rng(seed), (axis,), count, placement)
    drawn, dense = np.moveaxis(made.label, axis, 0), np.moveaxis(label, axis, 0)
    annotated = [index for index in range(len(dense)) if (drawn[index] == dense[index]).all()]
    foreground = [index for index in range(len(dense)) if set(classes(dense[index], IGNORE)) - {0}]
    assert made.slices == min(count, len(foreground) or len(dense))
    touched = {index for index in range(len(dense)) if (drawn[index] != IGNORE).any()}
    assert touched <= set(annotated)
    assert len(touched) <= made.slices
    if foreground:
        assert touched <= set(foreground)
    if placement == "centre" and foreground:
        best = max(len(set(classes(one, IGNORE)) - {0}) for one in dense)
        assert max(len(set(classes(drawn[index], IGNORE)) - {0}) for index in touched) == best


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(label=ANY | ANY_PLANE, seed=st.integers(0, 2**32 - 1), margin=st.floats(0, 0.5))
def test_boxes_enclose_every_object(label: np.ndarray, seed: int, margin: float) -> None:
    """No foreground is outside the boxes, a box without margin is tight, and all outside is background."""
    made = boxes(label, IGNORE, np.random.default_rng(seed), margin)
    inside = np.zeros(label.shape, bool)
    for box in made.boxes:
        inside[box.inside] = True
        assert (label[box.inside] == box.value).any()
        assert all(0 <= a < b <= n for a, b, n in zip(box.start, box.stop, label.shape, strict=True))
        if margin == 0:
            within = label[box.inside] == box.value
            for axis in range(label.ndim):
                faces = np.moveaxis(within, axis, 0)
                assert faces[0].any()
                assert faces[-1].any()
    assert not ((label > 0) & (label != IGNORE) & ~inside).any()
    assert (made.label == np.where(inside | (label == IGNORE), IGNORE, 0)).all()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(label=ANY, seed=st.integers(0, 2**32 - 1), per_object=st.integers(1, 3), background=st.integers(0, 4))
@pytest.mark.parametrize("placement", ["centre", "random"])
def test_points_keep_to_their_budget(
    placement: str, label: np.ndarray, seed: int, per_object: int, background: int
) -> None:
    """Every class is clicked, no object more often than asked for, and a point of radius 0 is one voxel."""
    rng = np.random.default_rng(seed)
    made = points(label, IGNORE, rng, (4.0, 1.0, 1.0), per_object, placement, background, 0.0)
    objects = len(boxes(label, IGNORE, rng).boxes)
    foreground = (made.label > 0) & (made.label != IGNORE)
    assert objects <= foreground.sum() <= per_object * objects
    clicked = (made.label == 0).sum()
    assert clicked <= background
    assert clicked or not background or not (label == 0).any()
    assert set(classes(label, IGNORE)) - {0} <= set(np.unique(made.label))
    assert made.marks <= per_object * objects + background


def test_a_point_is_a_disc_where_slices_are_far_apart() -> None:
    """Its radius is a length, so it stays in its slice."""
    label = np.ones((5, 9, 9), np.uint8)
    flat = points(label, IGNORE, np.random.default_rng(0), (5.0, 1.0, 1.0), background=0).label != IGNORE
    round_ = points(label, IGNORE, np.random.default_rng(0), (1.0, 1.0, 1.0), background=0).label != IGNORE
    assert flat.any(axis=(1, 2)).sum() == 1
    assert flat.sum() == 13  # offsets within a distance of 2 in a plane
    assert round_.any(axis=(1, 2)).sum() == 5
    assert flat[2, 4, 4], "the middle of the object"


def test_patches_keep_to_their_budget() -> None:
    """There are as many as asked for, of the size asked for, and every class has one."""
    label = np.digitize(np.indices((16, 20, 24)).sum(0), (30, 34, 38)).astype(np.uint8)
    assert len(classes(label, IGNORE)) == 4
    made = patches(label, IGNORE, np.random.default_rng(1), (3, 4, 5), 4)
    assert classes(made.label, IGNORE) == classes(label, IGNORE)
    assert (made.label != IGNORE).sum() <= 4 * 3 * 4 * 5
    for seed in range(30):  # some at the border of the image
        one = patches(label, IGNORE, np.random.default_rng(seed), (9, 11, 13), 1)
        assert (one.label != IGNORE).sum() == 9 * 11 * 13


def test_a_point_ends_where_its_object_ends() -> None:
    """What is clicked is one object, whatever is beside it."""
    label = np.zeros((5, 5, 5), np.uint8)
    label[2, 2, 2] = 1
    made = points(label, IGNORE, np.random.default_rng(0), background=0)
    assert (made.label != IGNORE).sum() == 1
