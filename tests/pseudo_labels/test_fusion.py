"""Several sources become one label: means, votes, agreement and calibration; labels carried by atlases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from shapes import ellipsoid, overlap, seen

from nnunet_limited.prompters.outlining import with_background
from nnunet_limited.pseudo_labels.atlas import Atlas, carry, local_similarity
from nnunet_limited.pseudo_labels.fusion import Trust, agreement, calibrate, fuse
from nnunet_limited.pseudo_labels.sources import Opinion, cleaned, foreground, foreground_classes, votes

NAN = np.nan


def line(*voxels: tuple[float, ...]) -> np.ndarray:
    """Return probabilities (c, n, 1, 1) of n voxels, each a slice of its own."""
    return np.array(voxels, np.float32).T[:, :, None, None]


def test_the_mean_and_where_it_is_kept() -> None:
    a = line((0.9, 0.1, 0.0), (0.2, 0.8, 0.0), (0.7, 0.3, 0.0), (0.97, 0.03, 0.0), (0.04, 0.96, 0.0), (1, 0, 0))
    b = line((0.6, 0.4, 0.0), (0.4, 0.6, 0.0), (0.2, 0.8, 0.0), (0.95, 0.05, 0.0), (0.04, 0.96, 0.0), (0, 0, 1))
    b[:, 4] = NAN
    fused = fuse({"a": a, "b": b}, Trust(agreement=0), False, 0)
    np.testing.assert_allclose(fused.probability[1].ravel(), [0.25, 0.7, 0.55, 0.04, 0.96, 0], atol=1e-6)
    # Agreed, agreed, not agreed, agreed, only one says something but it is sure, not agreed.
    assert fused.kept.ravel().tolist() == [True, True, False, True, True, False]
    strict = fuse({"a": a, "b": b}, Trust(agreement=0.5), False, 0)
    assert strict.agreement.tolist() == [1, 1, 0, 1, 1, 0]
    assert strict.kept.ravel().tolist() == [True, True, False, True, True, False]
    alone = fuse({"a": a}, Trust(), False, 0)
    assert alone.kept.ravel().tolist() == [False, False, False, True, True, True]  # nobody agrees with it
    left_out = fuse({"a": a, "b": b}, Trust(agreement=0, left_out={"b": (1,)}), False, 0)
    # b is not heard where it or a sees class 1, and is where not, also of the class 2 that it sees there.
    np.testing.assert_allclose(left_out.probability[1].ravel(), [0.25, 0.8, 0.3, 0.04, 0.96, 0], atol=1e-6)
    assert left_out.probability[2, 5, 0, 0] == 0.5
    assert left_out.kept.ravel().tolist() == [True, False, False, True, True, False]
    gone = fuse({"a": a, "b": b}, Trust(agreement=0, left_out={"b": (1, 2)}), False, 0)
    assert np.array_equal(gone.probability, a)


def test_slices_that_agree_too_little_are_open() -> None:
    first = np.array([[[1, 1, 0], [1, 0, 0]]], np.float32)[..., None]
    second = np.array([[[1, 0, 0], [1, 0, 0]]], np.float32)[..., None]
    sources = {"a": np.concatenate([1 - first, first]), "b": np.concatenate([1 - second, second])}
    for axis in (0, 1):
        turned = {name: p.swapaxes(1, axis + 1) for name, p in sources.items()}
        kept = {limit: fuse(turned, Trust(agreement=limit), False, axis).kept.swapaxes(0, axis) for limit in (0.5, 0.6)}
        assert kept[0.5][..., 0].tolist() == [[True, False, True], [True, True, True]]
        assert kept[0.6][..., 0].tolist() == [[False, False, False], [True, True, True]]


def test_nobody_says_anything() -> None:
    silent = np.full((3, 2, 1, 1), NAN, np.float32)
    fused = fuse({"a": silent, "b": silent}, Trust(), False, 0)
    assert fused.probability[0].ravel().tolist() == [1, 1]
    assert not fused.kept.any()  # background for want of anything else


def test_overlapping_regions() -> None:
    a, b = line((0.8, 0.6), (0.9, 0.2), (0.97, 0.95)), line((0.6, 0.3), (0.7, 0.1), (0.95, 0.93))
    fused = fuse({"a": a, "b": b}, Trust(agreement=0), True, 0)
    np.testing.assert_allclose(fused.probability[:, 0].ravel(), [0.7, 0.45], atol=1e-6)
    assert fused.kept.ravel().tolist() == [False, True, True]
    # Of the second region only one speaks, who has to be sure; where nobody does, there is none.
    a, b = line((0.95, 0.51), (0.95, 0.97), (0.95, NAN)), line((0.95, NAN), (0.95, NAN), (0.95, NAN))
    assert fuse({"a": a, "b": b}, Trust(agreement=0), True, 0).kept.ravel().tolist() == [False, True, True]


def test_silence_is_no_vote() -> None:
    """A promptable model that was asked about class 1 only has nothing to say where others see class 2."""
    first = line((0.1, 0.9, 0), (0.1, 0, 0.9), (0.9, 0.1, 0), (0.4, 0, 0.6))
    second = line((0.2, 0.8, 0), (0.1, 0, 0.9), (0.9, 0.1, 0), (0.9, 0, 0.1))
    outlined = np.stack([line((0.9,), (0.1,), (0.1,), (0.1,))[0], np.full((4, 1, 1), NAN, np.float32)])
    asked = Opinion(with_background(outlined, False), unasked=~np.isfinite(outlined))
    told = votes({"one": Opinion(first), "model": asked, "two": Opinion(second)})
    assert np.isnan(told["model"]).all(0).ravel().tolist() == [False, True, False, True]
    assert np.array_equal(told["one"], first)
    stacked = {name: p.reshape(3, 1, 4, 1) for name, p in told.items()}  # in one slice
    fused = fuse(stacked, Trust(), False, 0)
    assert fused.agreement[0] == pytest.approx(np.mean([1, 1, 1, 0.5]))  # class 1 of three pairs, class 2 of one
    assert fused.kept.ravel().tolist() == [True, True, True, False]
    alone = votes({"model": asked})
    assert np.array_equal(alone["model"], asked.probability)
    regions = Opinion(outlined)
    assert votes({"one": Opinion(first[1:]), "model": regions})["model"] is outlined


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_agreement_of_slices(axis: int) -> None:
    rng = np.random.default_rng(0)
    one, two = rng.uniform(size=(2, 3, 4, 5, 6))
    two[:, :, :, 0], one[1:, :, :2, 1], two[1:, :, :2, 1] = NAN, 0, 0
    got = agreement([one, two], False, axis)
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
    trust = calibrate(cases, False, [0] * 3)
    assert trust.cases == 3
    assert trust.left_out == {"b": (2,)}
    assert set(trust.dice) == {"mean", "a", "b"}
    assert trust.dice["b"][1] < 0.3 < 0.8 < trust.dice["a"][1]
    for truth, sources in cases:  # what was left out does not vote against the class in its background's name
        fused, alone = fuse(sources, trust, False, 0), fuse({"a": sources["a"]}, trust, False, 0)
        there = truth[2] > 0
        assert (fused.probability.argmax(0) == 2)[there].mean() == (alone.probability.argmax(0) == 2)[there].mean()
    told = calibrate(cases, False, [0] * 3, decide=False)
    assert told == Trust(dice=trust.dice, cases=3)
    one = calibrate([(truth, {"a": sources["a"]}) for truth, sources in cases], False, [0] * 3)
    assert (one.agreement, one.left_out) == (0.5, {})  # nothing that it could agree with
    kept = calibrate([(truth, {"b": s["b"], "model": s["a"]}) for truth, s in cases], False, [0] * 3, True, ["model"])
    assert kept.left_out == {}  # not the model alone, which outlines what others see
    both = calibrate([case(seed, 0.1, 0.1) for seed in range(3)], False, [0] * 3)
    assert both.left_out == {}
    assert calibrate(cases[:1], False, [0]) == Trust(cases=1)
    assert calibrate([], False, []) == Trust()


def test_calibration_of_the_agreement() -> None:
    """Half of the slices are labelled well by both sources; in the others one of them is wrong."""
    truth = np.zeros((2, 10, 4, 4), np.float32)
    truth[1, :, 1:3, 1:3] = 1
    truth[0] = 1 - truth[1]
    right, wrong = truth.copy(), truth.copy()
    wrong[:, 5:] = np.roll(truth, 2, axis=2)[:, 5:]
    wrong = wrong * 1.5  # and surer of it
    known = calibrate([(truth, {"a": right, "b": wrong})] * 2, False, [0, 0])
    assert known.left_out == {"b": (1,)}
    other = truth.copy()
    other[:, 5:] = np.roll(truth, 2, axis=3)[:, 5:]
    apart = calibrate([(truth, {"a": wrong / 1.5, "b": other})] * 2, False, [0, 0])
    assert (apart.left_out, apart.agreement) == ({}, 0.05)  # both are wrong there, and do not overlap
    alike = calibrate([(truth, {"a": wrong, "b": wrong})] * 2, False, [0, 0])
    assert alike.agreement == 0  # nothing to tell the slices by
    unknown = truth.copy()
    unknown[:, 5:] = NAN  # not annotated, so nothing is wrong there
    partly = calibrate([(unknown, {"a": right, "b": wrong})] * 2, False, [0, 0])
    assert (partly.left_out, partly.dice["a"], partly.dice["b"]) == ({}, [1.0], [1.0])


def test_small_parts_are_dropped() -> None:
    big, small = ellipsoid((9, 30, 30), (4, 10, 10), (3, 6, 6)), ellipsoid((9, 30, 30), (4, 26, 26), (1.1, 1.1, 1.1))
    p = np.stack([~(big | small), big | small]).astype(np.float32) * 0.8 + 0.1
    made = cleaned(p, False, 0.1)
    assert np.array_equal(foreground(made, False)[0], big)
    np.testing.assert_allclose(made.sum(0), 1)
    assert np.array_equal(cleaned(p, False, 0), p)
    assert np.array_equal(cleaned(p[1:], True, 0.1)[0] > 0.5, big)


def test_the_background_of_outlines() -> None:
    p = np.array([[0.8, NAN, NAN], [0.3, 0.6, NAN]], np.float32).reshape(2, 3, 1, 1)
    made = with_background(p, False)
    expected = [[0.2 / 1.3, 0.4, NAN], [0.8 / 1.3, 0, NAN], [0.3 / 1.3, 0.6, NAN]]
    np.testing.assert_allclose(made.reshape(3, 3), expected, atol=1e-6)
    assert with_background(p, True) is p


@pytest.mark.parametrize(("shape", "thick"), [((16, 28, 32), 1.0), ((6, 32, 36), 5.0), ((1, 48, 52), 1.0)])
def test_labels_are_carried_by_registration(shape: tuple[int, ...], thick: float) -> None:
    spacing = (thick, 1.0, 1.0)
    size = np.array(shape)
    flat = np.where(size == 1, 9.0, 1.0)
    there = ellipsoid(shape, tuple(0.45 * (size - 1)), tuple(0.28 * size * flat))
    here = ellipsoid(shape, tuple(0.45 * (size - 1) + [0, 4, 6]), tuple(0.33 * size * flat))
    atlas = Atlas(seen(there, 1), np.stack([~there, there]).astype(np.float32), spacing)
    made, seconds = carry(seen(here, 2), spacing, [atlas])
    assert len(seconds) == 1
    assert made.shape == (2, *shape)
    np.testing.assert_allclose(made.sum(0), 1, atol=1e-3)
    assert overlap(there, here) < 0.75
    assert overlap(made[1] > 0.5, here) > 0.85
    if shape[0] == 1:  # which is quick
        assert np.array_equal(carry(seen(here, 2), spacing, [atlas])[0], made)
        unlike = Atlas(seen(there, 1), np.stack([there, ~there]).astype(np.float32), spacing)
        two, seconds = carry(seen(here, 2), spacing, [atlas, unlike])
        assert len(seconds) == 2
        np.testing.assert_allclose(two[0, 0][10:-10, 10:-10], 0.5, atol=1e-3)  # alike, and contradict each other


def test_registration_bends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A straight band is carried onto a wavy one, which no affine transform can do."""
    rows, columns = np.indices((60, 64))
    straight, wavy = (abs(columns - 32 - shift) < 7 for shift in (0, 5 * np.sin(rows / 60 * 2 * np.pi)))
    atlas = Atlas(seen(straight, 1)[None], np.stack([~straight, straight])[:, None].astype(np.float32), (1.0, 1.0, 1.0))
    made, took = carry(seen(wavy, 2)[None], (1.0, 1.0, 1.0), [atlas], tmp_path)
    assert overlap(straight, wavy) < 0.8
    assert overlap(made[1, 0] > 0.5, wavy) > 0.9
    (known,) = tmp_path.iterdir()

    with monkeypatch.context() as patched:  # what has been registered is not registered again, and is the same
        patched.setattr(sitk.ImageRegistrationMethod, "Execute", lambda *_: pytest.fail("registered again"))
        again, seconds = carry(seen(wavy, 2)[None], (1.0, 1.0, 1.0), [atlas], tmp_path)
    assert seconds == pytest.approx(took, rel=0.5)  # of the first time
    np.testing.assert_array_equal(again, made)
    for damaged in (b"PK", known.read_bytes()[:-200]):
        known.write_bytes(damaged)
        np.testing.assert_array_equal(carry(seen(wavy, 2)[None], (1.0, 1.0, 1.0), [atlas], tmp_path)[0], made)
    carry(seen(wavy, 3)[None], (1.0, 1.0, 1.0), [atlas], tmp_path)  # another image is another registration
    carry(seen(wavy, 2)[None], (1.0, 1.0, 1.5), [atlas], tmp_path)  # and so is another spacing
    assert len(list(tmp_path.iterdir())) == 3
    assert known in tmp_path.iterdir()


def test_what_cannot_be_registered_is_no_atlas() -> None:
    thin, thick = np.zeros((2, 20, 20)), seen(ellipsoid((9, 20, 20), (4, 10, 10), (3, 6, 6)))
    atlas = Atlas(thick, np.stack([thick < 0.6, thick > 0.6]).astype(np.float32), (1.0, 1.0, 1.0))
    made, seconds = carry(thin, (1.0, 1.0, 1.0), [atlas])
    assert seconds == []
    assert np.isnan(made).all()
    wide = np.random.default_rng(0).normal(size=(5, 300, 300))  # too large, but not across its slices
    fine = (0.5, 1.0, 1.0)
    assert len(carry(wide, fine, [Atlas(wide, np.stack([wide < 0, wide > 0]).astype(np.float32), fine)])[1]) == 1


def test_registration_is_left_to_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads
    before, used = threads(), []

    def register(*_: object) -> object:
        used.append(threads())
        return sitk.Transform(3, sitk.sitkIdentity), 0.0

    monkeypatch.setattr("nnunet_limited.pseudo_labels.atlas.register", register)
    image = np.zeros((4, 5, 6))
    carry(image, (1.0, 1.0, 1.0), [Atlas(image, np.stack([image < 1, image > 1]).astype(np.float32), (1.0, 1.0, 1.0))])
    assert used == [1]
    assert threads() == before


def test_classes_have_the_order_of_the_host() -> None:
    labels = {"background": 0, "tumour": 2, "liver": 1, "ignore": 3}
    assert list(foreground_classes({"labels": labels})) == ["liver", "tumour"]
    regions = {"background": 0, "whole": [1, 2], "core": [2]}
    assert list(foreground_classes({"labels": regions, "regions_class_order": [1, 2]})) == ["whole", "core"]


def test_what_looks_alike_counts_more() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(6, 20, 20))
    noise = rng.normal(size=image.shape)
    np.testing.assert_allclose(local_similarity(image, 3 * image + 2, (5, 5, 5)), 1, atol=1e-5)
    np.testing.assert_allclose(local_similarity(image, -image, (1, 5, 5)), -1, atol=1e-5)
    assert abs(local_similarity(image, noise, (5, 5, 5)).mean()) < 0.05
    assert np.isfinite(local_similarity(np.zeros_like(image), image, (5, 5, 5))).all()
