"""Uncertainty of voxels, against hand-computed values."""

from __future__ import annotations

import numpy as np
import torch

from nnunet_limited.losses.label_space import ClassLabels, RegionLabels
from nnunet_limited.queries.uncertainty import average, bald, disagreement, entropy, least_confidence, margin

CLASSES, REGIONS = ClassLabels(((0,), (1,), (2,))), RegionLabels(((1, 2), (2,)))


def test_scores_by_hand():
    a = torch.tensor([0.7, 0.2, 0.1]).double()[:, None]
    b = torch.tensor([0.1, 0.2, 0.7]).double()[:, None]
    mean_entropy = -(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1))
    entropy_of_mean = -(2 * 0.4 * np.log(0.4) + 0.2 * np.log(0.2))
    members = torch.stack([a, b])
    assert np.isclose(entropy(a, CLASSES).item(), mean_entropy)
    assert np.isclose(average(members, CLASSES).expected_entropy.item(), mean_entropy)
    assert np.isclose(bald(average(members, CLASSES)).item(), entropy_of_mean - mean_entropy)
    assert np.isclose(least_confidence(a, CLASSES).item(), 0.3)
    assert np.isclose(margin(a, CLASSES).item(), 0.5)


def test_scores_of_regions_by_hand():
    p = torch.tensor([0.9, 0.4]).double()[:, None]
    binary = [-(x * np.log(x) + (1 - x) * np.log(1 - x)) for x in (0.9, 0.4)]
    assert np.isclose(entropy(p, REGIONS).item(), sum(binary))
    assert np.isclose(least_confidence(p, REGIONS).item(), 0.4)
    assert np.isclose(margin(p, REGIONS).item(), 0.8)
    assert np.isclose(bald(average([p, p], REGIONS)).item(), 0)


def test_scores_at_the_ends():
    certain, equal = torch.tensor([1.0, 0.0])[:, None], torch.tensor([0.5, 0.5])[:, None]
    for score in (entropy, margin, least_confidence):
        assert score(certain, CLASSES).item() == 0
        assert score(certain, REGIONS).item() == 0
    assert np.isclose(entropy(equal, CLASSES).item(), np.log(2))
    assert margin(equal, CLASSES).item() == 1
    assert bald(average([certain, certain], CLASSES)).item() == 0


def test_average_of_members():
    members = torch.rand(4, 3, 5, 6).softmax(1)
    before = members.clone()
    ensemble = average(iter(members), CLASSES)
    assert torch.equal(members, before)
    assert torch.allclose(ensemble.mean, members.mean(0))
    assert torch.allclose(ensemble.expected_entropy, torch.stack([entropy(p, CLASSES) for p in members]).mean(0))


def test_disagreement_by_hand():
    labels = [np.array([1, 1, 0, 2]), np.array([1, 0, 0, 2]), np.array([1, 1, 0, 0])]
    first = [1 - 2 / 3, 0, 1 - 2 / 3]  # of the pairs (0, 1), (0, 2), (1, 2)
    second = [0, 1, 1]
    whole = disagreement(labels, [1, 2], lambda mask: np.array([mask.sum()]))
    assert np.isclose(whole[0], np.mean([*first, *second]))
    ends = disagreement(labels, [1, 2], lambda mask: np.array([mask[:2].sum(), mask[2:].sum()]))
    assert np.allclose(ends, [np.mean(first), np.mean(second)])  # each half has one class only
    assert disagreement(labels[:1], [1], lambda mask: np.array([mask.sum()])) == 0
    assert disagreement(labels, [5], lambda mask: np.array([mask.sum()])) == 0
