"""Pseudo-labels beside the labelled cases: missing classes, odd volumes, and which cases are dropped first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import CLASSES, REGIONS

from nnunet_limited.data.components import ComponentRule, label_counts
from nnunet_limited.data.pseudo_label_store import PseudoLabels
from nnunet_limited.losses.label_space import LabelSpace
from nnunet_limited.pseudo_labels.plausibility import Expectation, LabeledVolumes, class_volumes

SPACING = (2.0, 1.0, 1.0)
NAMES = {CLASSES: ("disc", "core"), REGIONS: ("whole", "core", "rim")}


def scan(*sizes: int) -> np.ndarray:
    """Return a label with so many voxels of classes 1, 2, …"""
    label = np.zeros((10, 10, 10), int)
    flat, start = label.reshape(-1), 0
    for value, size in enumerate(sizes, 1):
        flat[start : start + size] = value
        start += size
    return label


def volumes(*labels: np.ndarray, space: LabelSpace = CLASSES) -> LabeledVolumes:
    return LabeledVolumes.of(space, [(label_counts(label, space, False), SPACING) for label in labels])


def test_volumes_are_those_of_classes_or_regions() -> None:
    assert class_volumes(CLASSES, scan(10, 4), SPACING).tolist() == [20, 8]
    assert class_volumes(REGIONS, scan(10, 4), SPACING).tolist() == [28, 8, 20]
    found = volumes(scan(10, 4), scan(30, 0))
    assert found.smallest.tolist() == [20, 0]
    assert found.largest.tolist() == [60, 8]
    assert volumes(scan(10, 4, 5)).largest.tolist() == [30, 18], "ignored voxels may be of any class"


def test_volumes_out_of_the_labelled_range_are_implausible() -> None:
    known = volumes(scan(12, 4), scan(30, 0))
    for sizes, expected in (
        ((12, 4), (1, 1)),
        ((4, 12), (1, 1)),
        ((2, 0), (0.5, 1)),
        ((0, 0), (0, 1)),
        ((90, 24), (1, 0.5)),
        ((180, 0), (0.5, 1)),
    ):
        assert known.plausibility(scan(*sizes), SPACING).tolist() == pytest.approx(list(expected))
    assert volumes(scan(5)).plausibility(scan(5, 7), SPACING).tolist() == [1, 1], "no labelled case has class 2"


def test_a_missing_class_that_all_labelled_cases_have_counts_nothing() -> None:
    known, nan = volumes(scan(10, 4), scan(20, 0)), float("nan")
    assert known.stability(np.array([nan, nan]), scan(0), SPACING) == 0
    assert known.stability(np.array([0.8, nan]), scan(10), SPACING) == pytest.approx(0.8)
    assert known.stability(np.array([0.8, 0.4]), scan(10, 4), SPACING) == pytest.approx(0.6)
    assert known.stability(np.array([nan, 0.4]), scan(0, 4), SPACING) == pytest.approx(0.2)
    sometimes = volumes(scan(10), scan(0))
    assert sometimes.stability(np.array([nan, nan]), scan(0), SPACING) == 0, "no class counts"


@pytest.mark.parametrize("space", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_an_empty_case_is_dropped_first(tmp_path: Path, space: LabelSpace) -> None:
    """Each of five cases is labelled alike by two models, one of them with nothing."""
    rule = ComponentRule(space, frozenset())
    expected = Expectation(NAMES[space], volumes(scan(40, 10), scan(60, 20), space=space), rule)
    cases = {}
    for name, sizes in {"a": (50, 10), "b": (30, 9), "empty": (), "d": (70, 30), "e": (45, 15)}.items():
        label = scan(*sizes)
        other = np.roll(label, 1)
        confidence = np.full(label.shape, 0.9)
        cases[name] = expected.about(label, confidence, expected.agreement(label, other), SPACING)
    assert cases["empty"]["confidence"] is None
    assert set(cases["empty"]["implausible"]) == set(NAMES[space])
    assert cases["a"]["implausible"] == []
    for fraction, count in ((0.8, 4), (0.4, 2)):
        chosen = PseudoLabels(tmp_path, ".nii.gz", {}, cases).most_stable(fraction)
        assert "empty" not in chosen
        assert len(chosen) == count


def test_an_empty_case_is_dropped_first_where_a_labelled_case_has_no_lesion_either(tmp_path: Path) -> None:
    expected = Expectation(
        ("lesion", "edema"), volumes(scan(40), scan(60), scan(0)), ComponentRule(CLASSES, frozenset())
    )
    cases = {}
    for name, size in {"a": 50, "b": 30, "empty": 0, "d": 70, "e": 45}.items():
        label = scan(size)
        agreement = expected.agreement(label, np.roll(label, 3))
        cases[name] = expected.about(label, np.full(label.shape, 0.9), agreement, SPACING)
    assert cases["empty"]["stability"] == 0
    assert PseudoLabels(tmp_path, ".nii.gz", {}, cases).most_stable(0.8) == ["a", "b", "d", "e"]
    cases["empty"]["stability"] = 1.0  # in sets of earlier versions
    assert PseudoLabels(tmp_path, ".nii.gz", {}, cases).most_stable(0.8) == ["a", "b", "d", "e"]


def test_confidence_decides_between_equally_stable_cases(tmp_path: Path) -> None:
    confidences = {"a": 90.0, "b": 60.0, "c": None, "d": 80.0}
    cases = {name: {"stability": 0.9, "confidence": value} for name, value in confidences.items()}
    assert PseudoLabels(tmp_path, ".nii.gz", {}, cases).most_stable(0.5) == ["a", "d"]
    cases["c"]["stability"] = 1.0
    assert PseudoLabels(tmp_path, ".nii.gz", {}, cases).most_stable(0.5) == ["a", "d"], "nothing is not sure of itself"
    cases["c"]["stability"], cases["b"]["stability"] = 0.95, 0.92
    assert PseudoLabels(tmp_path, ".nii.gz", {}, cases).most_stable(0.5, by_confidence=False) == ["b", "c"]
