"""Several sources become one label: means, votes, agreement and calibration."""

from __future__ import annotations

import numpy as np
import pytest
from shapes import ellipsoid

from nnunet_limited.losses.label_space import ClassLabels, RegionLabels
from nnunet_limited.pseudo_labels.calibration import calibrate
from nnunet_limited.pseudo_labels.fusion import Calibration, fuse, slice_agreement, votes
from nnunet_limited.pseudo_labels.sources.base import SourcePrediction, without_small_components

NAN = np.nan
TWO, ONE = ClassLabels(((0,), (1,), (2,))), ClassLabels(((0,), (1,)))
REGIONS = RegionLabels(((1, 2), (2,)))


def line(*voxels: tuple[float, ...]) -> np.ndarray:
    """Return probabilities (c, n, 1, 1) of n voxels, each a slice of its own."""
    return np.array(voxels, np.float32).T[:, :, None, None]


def test_the_mean_and_its_mask() -> None:
    a = line((0.9, 0.1, 0.0), (0.2, 0.8, 0.0), (0.7, 0.3, 0.0), (0.97, 0.03, 0.0), (0.04, 0.96, 0.0), (1, 0, 0))
    b = line((0.6, 0.4, 0.0), (0.4, 0.6, 0.0), (0.2, 0.8, 0.0), (0.95, 0.05, 0.0), (0.04, 0.96, 0.0), (0, 0, 1))
    b[:, 4] = NAN
    fused = fuse({"a": a, "b": b}, TWO, 0, Calibration(0))
    np.testing.assert_allclose(fused.probability[1].ravel(), [0.25, 0.7, 0.55, 0.04, 0.96, 0], atol=1e-6)
    # Agreed, agreed, not agreed, agreed, only one says something but it is sure, not agreed.
    assert fused.valid.ravel().tolist() == [True, True, False, True, True, False]
    strict = fuse({"a": a, "b": b}, TWO, 0, Calibration(0.5))
    assert strict.agreement.tolist() == [1, 1, 0, 1, 1, 0]
    assert strict.valid.ravel().tolist() == [True, True, False, True, True, False]
    alone = fuse({"a": a}, TWO, 0)
    assert alone.valid.ravel().tolist() == [False, False, False, True, True, True]  # nobody agrees with it
    left_out = fuse({"a": a, "b": b}, TWO, 0, Calibration(0, left_out={"b": (1,)}))
    # b is not heard where it or a sees class 1, and is where not, also of the class 2 that it sees there.
    np.testing.assert_allclose(left_out.probability[1].ravel(), [0.25, 0.8, 0.3, 0.04, 0.96, 0], atol=1e-6)
    assert left_out.probability[2, 5, 0, 0] == 0.5
    assert left_out.valid.ravel().tolist() == [True, False, False, True, True, False]
    gone = fuse({"a": a, "b": b}, TWO, 0, Calibration(0, left_out={"b": (1, 2)}))
    assert np.array_equal(gone.probability, a)


def test_slices_that_agree_too_little_are_open() -> None:
    first = np.array([[[1, 1, 0], [1, 0, 0]]], np.float32)[..., None]
    second = np.array([[[1, 0, 0], [1, 0, 0]]], np.float32)[..., None]
    sources = {"a": np.concatenate([1 - first, first]), "b": np.concatenate([1 - second, second])}
    for axis in (0, 1):
        turned = {name: p.swapaxes(1, axis + 1) for name, p in sources.items()}
        kept = {limit: fuse(turned, TWO, axis, Calibration(limit)).valid.swapaxes(0, axis) for limit in (0.5, 0.6)}
        assert kept[0.5][..., 0].tolist() == [[True, False, True], [True, True, True]]
        assert kept[0.6][..., 0].tolist() == [[False, False, False], [True, True, True]]


def test_nobody_says_anything() -> None:
    silent = np.full((3, 2, 1, 1), NAN, np.float32)
    fused = fuse({"a": silent, "b": silent}, TWO, 0)
    assert fused.probability[0].ravel().tolist() == [1, 1]
    assert not fused.valid.any()  # background for want of anything else


def test_overlapping_regions() -> None:
    a, b = line((0.8, 0.6), (0.9, 0.2), (0.97, 0.95)), line((0.6, 0.3), (0.7, 0.1), (0.95, 0.93))
    fused = fuse({"a": a, "b": b}, REGIONS, 0, Calibration(0))
    np.testing.assert_allclose(fused.probability[:, 0].ravel(), [0.7, 0.45], atol=1e-6)
    assert fused.valid.ravel().tolist() == [False, True, True]
    # Of the second region only one speaks, who has to be sure; where nobody does, there is none.
    a, b = line((0.95, 0.51), (0.95, 0.97), (0.95, NAN)), line((0.95, NAN), (0.95, NAN), (0.95, NAN))
    assert fuse({"a": a, "b": b}, REGIONS, 0, Calibration(0)).valid.ravel().tolist() == [False, True, True]


def test_silence_is_no_vote() -> None:
    """A promptable model that was asked about class 1 only has nothing to say where others see class 2."""
    first = line((0.1, 0.9, 0), (0.1, 0, 0.9), (0.9, 0.1, 0), (0.4, 0, 0.6))
    second = line((0.2, 0.8, 0), (0.1, 0, 0.9), (0.9, 0.1, 0), (0.9, 0, 0.1))
    outlined = np.stack([line((0.9,), (0.1,), (0.1,), (0.1,))[0], np.full((4, 1, 1), NAN, np.float32)])
    asked = SourcePrediction(TWO.with_background(outlined), unasked=~np.isfinite(outlined))
    cast = votes({"one": SourcePrediction(first), "model": asked, "two": SourcePrediction(second)}, TWO)
    assert np.isnan(cast["model"]).all(0).ravel().tolist() == [False, True, False, True]
    assert np.array_equal(cast["one"], first)
    stacked = {name: p.reshape(3, 1, 4, 1) for name, p in cast.items()}  # in one slice
    fused = fuse(stacked, TWO, 0)
    assert fused.agreement[0] == pytest.approx(np.mean([1, 1, 1, 0.5]))  # class 1 of three pairs, class 2 of one
    assert fused.valid.ravel().tolist() == [True, True, True, False]
    alone = votes({"model": asked}, TWO)
    assert np.array_equal(alone["model"], asked.probability)
    regions = SourcePrediction(outlined)
    assert votes({"one": SourcePrediction(first[1:]), "model": regions}, REGIONS)["model"] is outlined


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_agreement_of_slices(axis: int) -> None:
    rng = np.random.default_rng(0)
    one, two = rng.uniform(size=(2, 3, 4, 5, 6))
    two[:, :, :, 0], one[1:, :, :2, 1], two[1:, :, :2, 1] = NAN, 0, 0
    got = slice_agreement([one, two], TWO, axis)
    for index in range(one.shape[axis + 1]):
        values = []
        for c in (1, 2):
            known = np.isfinite(np.take(two[c], index, axis))
            a, b = ((np.take(p[c], index, axis) > 0.5) & known for p in (one, two))
            if (a | b).any():
                values.append((a & b).sum() / (a | b).sum())
        assert got[index] == pytest.approx(np.mean(values) if values else 1)


def case(seed: int, good: float, bad: float) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return a truth of two classes and two sources, which are wrong in parts of their voxels."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, (16, 16, 16))
    made = {}
    for name, (first, second) in {"a": (good, good), "b": (good, bad)}.items():
        wrong = rng.uniform(size=truth.shape) < np.where(truth == 1, first, second)
        label = np.where(wrong, 0, truth)
        made[name] = np.stack([label == c for c in range(3)]).astype(np.float32) * 0.8 + 0.1
    made["b"] = made["b"] * 1.2  # the surer of the two
    return np.stack([truth == c for c in range(3)]).astype(np.float32), made


def test_calibration_leaves_out_what_hurts() -> None:
    cases = [case(seed, 0.1, 0.9) for seed in range(3)]
    made = calibrate(cases, TWO, [0] * 3)
    assert made.cases == 3
    assert made.left_out == {"b": (2,)}
    assert set(made.dice) == {"mean", "a", "b"}
    assert made.dice["b"][1] < 0.3 < 0.8 < made.dice["a"][1]
    for truth, sources in cases:  # what was left out does not vote against the class in its background's name
        fused, alone = fuse(sources, TWO, 0, made), fuse({"a": sources["a"]}, TWO, 0, made)
        there = truth[2] > 0
        assert (fused.probability.argmax(0) == 2)[there].mean() == (alone.probability.argmax(0) == 2)[there].mean()
    undecided = calibrate(cases, TWO, [0] * 3, decide=False)
    assert undecided == Calibration(dice=made.dice, cases=3)
    one = calibrate([(truth, {"a": sources["a"]}) for truth, sources in cases], TWO, [0] * 3)
    assert (one.min_agreement, one.left_out) == (0.5, {})  # nothing that it could agree with
    kept = calibrate([(truth, {"b": s["b"], "model": s["a"]}) for truth, s in cases], TWO, [0] * 3, True, ["model"])
    assert kept.left_out == {}  # not the model alone, which outlines what others see
    both = calibrate([case(seed, 0.1, 0.1) for seed in range(3)], TWO, [0] * 3)
    assert both.left_out == {}
    assert calibrate(cases[:1], TWO, [0]) == Calibration(cases=1)
    assert calibrate([], TWO, []) == Calibration()


def test_calibration_of_the_agreement() -> None:
    """Half of the slices are labelled well by both sources; in the others one of them is wrong."""
    truth = np.zeros((2, 10, 4, 4), np.float32)
    truth[1, :, 1:3, 1:3] = 1
    truth[0] = 1 - truth[1]
    right, wrong = truth.copy(), truth.copy()
    wrong[:, 5:] = np.roll(truth, 2, axis=2)[:, 5:]
    wrong = wrong * 1.5  # and surer of it
    known = calibrate([(truth, {"a": right, "b": wrong})] * 2, ONE, [0, 0])
    assert known.left_out == {"b": (1,)}
    other = truth.copy()
    other[:, 5:] = np.roll(truth, 2, axis=3)[:, 5:]
    apart = calibrate([(truth, {"a": wrong / 1.5, "b": other})] * 2, ONE, [0, 0])
    assert (apart.left_out, apart.min_agreement) == ({}, 0.05)  # both are wrong there, and do not overlap
    alike = calibrate([(truth, {"a": wrong, "b": wrong})] * 2, ONE, [0, 0])
    assert alike.min_agreement == 0  # nothing to tell the slices by
    unknown = truth.copy()
    unknown[:, 5:] = NAN  # not annotated, so nothing is wrong there
    partly = calibrate([(unknown, {"a": right, "b": wrong})] * 2, ONE, [0, 0])
    assert (partly.left_out, partly.dice["a"], partly.dice["b"]) == ({}, [1.0], [1.0])


def test_small_parts_are_dropped() -> None:
    big, small = ellipsoid((9, 30, 30), (4, 10, 10), (3, 6, 6)), ellipsoid((9, 30, 30), (4, 26, 26), (1.1, 1.1, 1.1))
    p = np.stack([~(big | small), big | small]).astype(np.float32) * 0.8 + 0.1
    made = without_small_components(p, ONE, 0.1)
    assert np.array_equal(ONE.foreground_masks(made)[0], big)
    np.testing.assert_allclose(made.sum(0), 1)
    assert np.array_equal(without_small_components(p, ONE, 0), p)
    assert np.array_equal(without_small_components(p[1:], RegionLabels(((1,),)), 0.1)[0] > 0.5, big)


def test_the_background_of_outlines() -> None:
    p = np.array([[0.8, NAN, NAN], [0.3, 0.6, NAN]], np.float32).reshape(2, 3, 1, 1)
    made = TWO.with_background(p)
    expected = [[0.2 / 1.3, 0.4, NAN], [0.8 / 1.3, 0, NAN], [0.3 / 1.3, 0.6, NAN]]
    np.testing.assert_allclose(made.reshape(3, 3), expected, atol=1e-6)
    assert REGIONS.with_background(p) is p
