"""Which classes are one object, and what a prediction loses: nothing if it is correct."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import CLASSES, LABELS, REGIONS

from nnunet_limited.data.components import ComponentRule, crop_edges, label_counts, labeled_counts, single_components
from nnunet_limited.host.cases import PreprocessedCases
from nnunet_limited.losses.label_space import ClassLabels, LabelSpace, RegionLabels

TWO = ClassLabels(((0,), (1,)))
NESTED = RegionLabels(((1, 2), (2,)))


def boxes(*corners: tuple[int, ...], shape: tuple[int, ...] = (40, 40), side: int = 5, value: int = 1) -> np.ndarray:
    label = np.zeros(shape, int)
    for corner in corners:
        label[tuple(slice(c, c + side) for c in corner)] = value
    return label


def rule_of(labels: LabelSpace, *cases: np.ndarray) -> ComponentRule:
    return ComponentRule(labels, single(labels, *cases))


def single(labels: LabelSpace, *cases: np.ndarray, flat: bool = False) -> frozenset[int]:
    return single_components([label_counts(case, labels, flat) for case in cases])


def hard(labels: LabelSpace, label: np.ndarray) -> torch.Tensor:
    return labels.encode(torch.from_numpy(label)[None, None], None)[0]


def lost(rule: ComponentRule, label: np.ndarray) -> float:
    """Return the fraction of the foreground of a crop that gets no weight."""
    found = rule.in_crops(hard(rule.labels, label), torch.ones(1, 1, *label.shape, dtype=torch.bool))
    return float((found[0, 0].numpy() & (label > 0)).sum() / (label > 0).sum())


@pytest.mark.parametrize("dims", [2, 3])
def test_a_perfect_prediction_loses_nothing(dims: int) -> None:
    shape = (40,) * dims
    lesions = boxes(*((x, y, 5)[:dims] for x in (2, 12, 22, 32) for y in (8, 24)), shape=shape)
    organs = boxes((10, 5, 5)[:dims], (10, 30, 5)[:dims], shape=shape)
    ring = boxes((5,) * dims, shape=shape, side=30)
    ring[(slice(10, 30),) * dims] = 0
    for case in (lesions, organs):
        assert lost(rule_of(TWO, case, case), case) == 0
    rule = rule_of(TWO, ring, ring)
    assert rule.single == {1}
    for start in range(12):  # crops that cut a ring, from one piece to several
        for end in (20, 25, 34):
            assert lost(rule, ring[:, start:end]) == 0
            assert lost(rule, ring[start:end, 8:end]) == 0
    nested = boxes((5,) * dims, shape=shape, side=30)
    for corner in ((8, 8, 8), (20, 20, 20)):
        nested[tuple(slice(c, c + 5) for c in corner[:dims])] = 2
    rule = rule_of(NESTED, nested, nested)
    assert rule.single == {1}
    assert lost(rule, nested) == 0


@pytest.mark.parametrize("labels", [TWO, NESTED], ids=["classes", "regions"])
def test_a_stray_island_is_found(labels: LabelSpace) -> None:
    organ = boxes((5, 5), side=20)
    rule = rule_of(labels, organ, organ)
    stray = organ + boxes((32, 32), side=2)
    found = rule.in_crops(hard(labels, stray), torch.ones(1, 1, 40, 40, dtype=torch.bool))[0, 0].numpy()
    assert np.array_equal(found, boxes((32, 32), side=2) > 0)
    assert np.array_equal(rule.in_case(stray)[0], found)
    assert lost(rule_of(labels, organ, stray + boxes((2, 32))), stray) == 0, "one labelled case has two"


def test_nested_islands() -> None:
    """A core in an island of the whole goes with it; a core of several pieces in the largest whole stays."""
    label = boxes((5, 5), side=20)
    label[8:10, 8:10] = label[15:18, 15:18] = 2
    rule = rule_of(NESTED, label)
    label[32:36, 32:36] = 1
    label[33:35, 33:35] = 2
    whole, core = rule.in_case(label)
    assert np.array_equal(whole, boxes((32, 32), side=4) > 0)
    assert not core.any()


def test_parts_at_the_border_are_no_islands() -> None:
    rule = ComponentRule(TWO, frozenset({1}))
    label = boxes((5, 5), (30, 30), side=8)
    inside = torch.ones(1, 1, 40, 40, dtype=torch.bool)
    assert rule.in_crops(hard(TWO, label), inside).sum() == 64
    assert not rule.in_crops(hard(TWO, label[:38]), inside[..., :38, :]).any()
    inside[..., 38:, :] = False
    assert not rule.in_crops(hard(TWO, label), inside).any()
    assert rule.in_case(label).sum() == 64, "a whole case has no border"
    assert crop_edges(inside)[0, 0, 37].all()
    assert not crop_edges(inside)[0, 0, 1:37, 1:39].any()


def test_slices_of_one_object_may_be_several() -> None:
    arch = boxes((0, 5, 5), shape=(30, 20, 40), side=30)
    arch[5:, :, 10:30] = 0  # one object, two in most slices
    assert single(TWO, arch) == {1}
    assert single(TWO, arch, flat=True) == set()


def test_nearly_all_cases_decide() -> None:
    organ, crumb = boxes((5, 5), side=20), boxes((32, 32), side=2)
    assert single(TWO, *[organ + crumb] * 3) == {1}, "the largest has 99 % of the voxels"
    two = boxes((5, 5), (20, 20))
    assert single(TWO, *[organ] * 19, two) == {1}
    assert single(TWO, *[organ] * 18, two) == set()
    assert single(TWO, organ * 0) == set(), "a class that no case has"
    assert single(CLASSES, boxes((5, 5), value=LABELS["core"])) == {2}
    assert single(REGIONS, boxes((5, 5), value=LABELS["core"])) == {1, 2}


def test_settings_of_the_rule() -> None:
    counts = [label_counts(boxes((5, 5)), CLASSES, flat=False)]
    for choice, numbers in (("largest", {1, 2}), ("all", set()), ("auto", {1})):
        assert ComponentRule.of(choice, CLASSES, counts).single == numbers
    assert ComponentRule.of("auto", CLASSES, []).single == set()


def test_counts_of_labelled_cases_are_those_of_their_labels(workspaces) -> None:
    workspace = workspaces("3d")
    run = workspace.trainer("LimitedBCPTrainer", workspace.configure("counts")).run
    found = labeled_counts(CLASSES, run.labeled_folder, run.fold.train, flat=True)
    assert len(found) == len(run.fold.train)
    dataset = PreprocessedCases(str(run.labeled_folder), list(run.fold.train))
    for case, counts in zip(run.fold.train, found, strict=True):
        label = dataset.load_case(case)[1][:][0]
        assert counts[0].tolist() == [0, *((label == value).sum() for value in (1, 2))]
        assert counts[1].tolist() == [0, *((label == value).any((1, 2)).sum() for value in (1, 2))]


def test_label_maps_are_numbered_alike() -> None:
    label = np.array([[0, 1, 2, 3, -1]])
    assert CLASSES.foreground_maps(label).tolist() == [[[0, 1, 2, 0, 0]]]
    assert REGIONS.foreground_maps(label).tolist() == [[[0, 1, 1, 0, 0]], [[0, 0, 2, 0, 0]], [[0, 3, 0, 0, 0]]]
    values = torch.from_numpy(np.maximum(label, 0) % 3)[None, None]
    for labels in (CLASSES, REGIONS):
        maps = labels.foreground_numbers(labels.encode(values, None)[0])[0].numpy()
        assert np.array_equal(maps, labels.foreground_maps(values[0, 0].numpy()))
