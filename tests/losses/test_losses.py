"""Losses, ramp-up and the moving average against hand-made numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import CLASSES, REGIONS, segmentation_reference

from nnunet_limited.losses.consistency import masked_mean, mean_squared_difference, rampup
from nnunet_limited.losses.label_space import RegionLabels
from nnunet_limited.losses.pseudo_label import deep_supervised_loss, segmentation_loss


@pytest.mark.parametrize("regions", [False, True])
def test_mean_squared_difference(regions: bool) -> None:
    logits, other = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    mask = torch.rand(2, 1, 4, 5) > 0.4
    p = torch.sigmoid(logits) if regions else torch.softmax(logits, 1)
    q = torch.sigmoid(other) if regions else torch.softmax(other, 1)
    expected = sum(((p - q) ** 2)[b, :, y, x].mean() for b, _, y, x in mask.nonzero().tolist()) / mask.sum()
    labels = REGIONS if regions else CLASSES
    got = mean_squared_difference(labels.probabilities(logits), labels.probabilities(other), mask)
    torch.testing.assert_close(got, expected)


def test_target_gets_no_gradient_and_masked_voxels_none() -> None:
    logits = torch.randn(1, 2, 6, requires_grad=True)
    target = torch.rand(1, 2, 6, requires_grad=True)
    mask = torch.tensor([True, True, False, True, False, True])[None, None]
    mean_squared_difference(CLASSES.probabilities(logits), target, mask).backward()
    assert target.grad is None
    assert logits.grad is not None
    assert not logits.grad[..., ~mask[0, 0]].any()
    assert logits.grad[..., mask[0, 0]].all()


def test_empty_mask_gives_zero_with_zero_gradient() -> None:
    value = torch.randn(1, 2, 3, requires_grad=True)
    loss = masked_mean(value, torch.zeros(1, 1, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert value.grad is not None
    assert not value.grad.any()


def test_rampup() -> None:
    assert rampup(1) == rampup(7) == 1
    assert rampup(0) == rampup(-1) == pytest.approx(math.exp(-5))
    assert rampup(0.5) == pytest.approx(math.exp(-1.25))


def test_class_fractions() -> None:
    probability = torch.tensor([[[0.9, 0.2, 0.1, 0.9], [0.1, 0.8, 0.9, 0.1]]])
    mask = torch.tensor([[[True, True, True, False]]])
    torch.testing.assert_close(CLASSES.class_fractions(probability, mask), torch.tensor([1 / 3, 2 / 3]))
    torch.testing.assert_close(REGIONS.class_fractions(probability, mask), torch.tensor([1 / 3, 2 / 3]))
    each = torch.tensor([[[True, True, False, False], [False, True, True, True]]])
    torch.testing.assert_close(REGIONS.class_fractions(probability, each), torch.tensor([1 / 2, 2 / 3]))


def test_entropy_and_divergence_are_over_the_class_axis() -> None:
    p, q = (torch.softmax(torch.randn(2, 3, 4, 5), 1) for _ in range(2))
    for b, y, x in np.ndindex(2, 4, 5):
        a, c = p[b, :, y, x], q[b, :, y, x]
        categorical = torch.distributions.Categorical(a)
        other = torch.distributions.Categorical(c)
        torch.testing.assert_close(CLASSES.entropy(p)[b, 0, y, x], categorical.entropy() / math.log(3))
        expected = torch.distributions.kl_divergence(categorical, other)
        torch.testing.assert_close(CLASSES.divergence(p, q)[b, 0, y, x], expected, rtol=1e-4, atol=1e-5)
        binary, others = torch.distributions.Bernoulli(a), torch.distributions.Bernoulli(c)
        torch.testing.assert_close(REGIONS.entropy(p)[b, 0, y, x], binary.entropy().mean() / math.log(2))
        expected = torch.distributions.kl_divergence(binary, others).sum()
        torch.testing.assert_close(REGIONS.divergence(p, q)[b, 0, y, x], expected, rtol=1e-4, atol=1e-5)


def test_entropy_of_a_boundary() -> None:
    """Between two of three classes, or in or out of one of three regions."""
    between, maybe = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([1.0, 0.5, 0.0])
    for labels, p in ((CLASSES, between), (REGIONS, maybe)):
        assert labels.entropy(p[None, :, None]).item() == pytest.approx(labels.boundary_entropy, abs=1e-5)


def test_entropy_of_a_saturated_softmax_has_a_finite_gradient() -> None:
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    CLASSES.entropy(torch.softmax(logits, 1)).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("regions", [False, True])
def test_voxels_that_do_not_count_are_in_no_sum_of_the_loss(regions: bool) -> None:
    labels = REGIONS if regions else CLASSES
    logits, target = torch.randn(2, 3, 6, 6), labels.harden(torch.rand(2, 3, 6, 6))
    mask = torch.rand(2, 1, 6, 6) > 0.2
    counted = mask & (torch.rand(2, 1, 6, 6) > 0.5)
    got = segmentation_loss(logits, target, counted, mask, labels)
    torch.testing.assert_close(got, segmentation_reference(logits, target, counted, int(mask.sum()), regions))
    spoiled = torch.where(counted, logits, 1e4 * torch.randn(logits.shape))
    assert segmentation_loss(spoiled, target, counted, mask, labels) == got
    assert segmentation_loss(logits, target, torch.zeros_like(counted), mask, labels) == 0
    weight = counted * torch.rand(2, 1, 6, 6)
    expected = segmentation_reference(logits, target, weight, int(mask.sum()), regions)
    torch.testing.assert_close(segmentation_loss(logits, target, weight, mask, labels), expected)
    torch.testing.assert_close(
        segmentation_loss(logits, target, weight.expand_as(logits), mask, REGIONS),
        segmentation_reference(logits, target, weight, int(mask.sum()), True),
    )


@pytest.mark.parametrize("regions", [False, True])
def test_coarse_heads_are_compared_with_the_voxels_in_the_middle_of_their_own(regions: bool) -> None:
    labels = REGIONS if regions else CLASSES
    heads = [torch.randn(2, 3, 8 // n, 8 // n, requires_grad=True) for n in (1, 2, 4)]
    target = labels.harden(torch.rand(2, 3, 8, 8))
    valid = torch.rand(2, 1, 8, 8) > 0.2
    counted = valid & (torch.rand(2, 1, 8, 8) > 0.3)
    got = deep_supervised_loss(heads, target, counted, valid, labels, (0.5, 0.25, 0.0))
    got.backward()
    expected = torch.zeros(())
    for logits, factor, first, step in ((heads[0], 2 / 3, 0, 1), (heads[1], 1 / 3, 1, 2)):
        t, c, v = (value[..., first::step, first::step] for value in (target, counted, valid))
        expected = expected + factor * segmentation_reference(logits, t, c, int(v.sum()), regions)
        assert not logits.grad[~c.expand_as(logits)].any()
        assert logits.grad[c.expand_as(logits)].any()
    torch.testing.assert_close(got, expected)
    assert not heads[2].grad.any()


def test_confidence_is_that_of_the_hard_label() -> None:
    p = torch.tensor([[0.1, 0.7, 0.2]])[..., None]
    assert CLASSES.confidence(p).flatten().tolist() == pytest.approx([0.7])
    assert REGIONS.confidence(p).flatten().tolist() == pytest.approx([0.9, 0.7, 0.8])


def test_labels_become_probabilities() -> None:
    label = torch.tensor([[[0.0, 2, 1, 3]]])
    encoded, kept = CLASSES.encode_target(label)
    assert encoded.argmax(1).tolist() == [[0, 2, 1, 0]]
    assert kept.tolist() == [[[True, True, True, False]]]
    regions = torch.tensor([[[0.0, 1, 1], [0, 0, 1], [1, 0, 0]]])
    labels = RegionLabels(((1, 2), (2,)), 3)
    encoded, kept = labels.encode_target(regions)
    assert torch.equal(encoded, regions[:, :2])
    assert kept.tolist() == [[[False, True, True]]]
    encoded, kept = labels.encode(torch.tensor([[[0, 1, 2, 3, -1]]]), 3)
    assert encoded.tolist() == [[[0, 1, 1, 0, 0], [0, 0, 1, 0, 0]]]
    assert kept.tolist() == [[[True, True, True, False, False]]]
