"""Losses, ramp-up and the moving average against hand-made numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from nnunet_limited.losses.consistency import (
    class_shares,
    masked_mean,
    mean_squared_difference,
    probabilities,
    rampup,
)
from nnunet_limited.networks.ema import ema_decay, make_teacher, update_teacher


@pytest.mark.parametrize("regions", [False, True])
def test_mean_squared_difference(regions: bool) -> None:
    logits, other = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    mask = torch.rand(2, 1, 4, 5) > 0.4
    p = torch.sigmoid(logits) if regions else torch.softmax(logits, 1)
    q = torch.sigmoid(other) if regions else torch.softmax(other, 1)
    expected = sum(((p - q) ** 2)[b, :, y, x].mean() for b, _, y, x in mask.nonzero().tolist()) / mask.sum()
    got = mean_squared_difference(probabilities(logits, regions), probabilities(other, regions), mask)
    torch.testing.assert_close(got, expected)


def test_target_gets_no_gradient_and_masked_voxels_none() -> None:
    logits = torch.randn(1, 2, 6, requires_grad=True)
    target = torch.rand(1, 2, 6, requires_grad=True)
    mask = torch.tensor([True, True, False, True, False, True])[None, None]
    mean_squared_difference(probabilities(logits, False), target, mask).backward()
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


def test_class_shares() -> None:
    probability = torch.tensor([[[0.9, 0.2, 0.1, 0.9], [0.1, 0.8, 0.9, 0.1]]])
    mask = torch.tensor([[[True, True, True, False]]])
    torch.testing.assert_close(class_shares(probability, mask, False), torch.tensor([1 / 3, 2 / 3]))
    torch.testing.assert_close(class_shares(probability, mask, True), torch.tensor([1 / 3, 2 / 3]))
    each = torch.tensor([[[True, True, False, False], [False, True, True, True]]])
    torch.testing.assert_close(class_shares(probability, each, True), torch.tensor([1 / 2, 2 / 3]))


def test_moving_average_visits_shared_tensors_once_and_copies_buffers() -> None:
    student = nn.Sequential(nn.Conv1d(1, 1, 1), nn.BatchNorm1d(1))
    student.append(student[0])  # one tensor under two names, as in nnU-Net's decoder
    teacher = make_teacher(student)
    start = teacher[0].weight.clone()
    with torch.no_grad():
        student[0].weight += 1
        student[1].running_mean += 3
    update_teacher(teacher, student, 0.75)
    torch.testing.assert_close(teacher[0].weight, start + 0.25)
    assert teacher[2].weight is teacher[0].weight
    assert torch.equal(teacher[1].running_mean, student[1].running_mean)


def test_decay() -> None:
    assert [ema_decay(t, 0.6) for t in range(4)] == [0, 0.5, 0.6, 0.6]
