"""The moving average and the perturbations of features against hand-made numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import gammaln
from torch import nn

from nnunet_limited.networks.ema import ema_decay, make_teacher, update_teacher, window_decay
from nnunet_limited.networks.perturb import channel_dropout, feature_drop, feature_noise, perturb_deep


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


@pytest.mark.parametrize("steps", [300, 1000, 4000])
@pytest.mark.parametrize("window", [0.01, 0.03, 0.1])
def test_the_window_is_a_fraction_of_the_steps_so_far(steps: int, window: float) -> None:
    """Step s counts about in proportion to s ** (1 / window - 1), so the mean age is a fraction of all steps."""
    weights = np.zeros(steps)
    for step in range(steps):
        decay = window_decay(step, window)
        weights *= decay
        weights[step] += 1 - decay
    assert weights.sum() == pytest.approx(1)
    step, power = np.arange(steps // 2, steps), 1 / window  # early on the window is shorter than a step
    expected = gammaln(step + 1) - gammaln(step + 2 - power)
    np.testing.assert_allclose(np.log(weights[step] / weights[-1]), expected - expected[-1], rtol=1e-6, atol=1e-6)
    age = (weights * np.arange(steps - 1, -1.0, -1)).sum()
    assert age == pytest.approx(steps * window / (1 + window), rel=0.1, abs=1)
    assert window_decay(0, window) == 0


def test_perturbations() -> None:
    features = [torch.rand(4, 50, 6, 6) + 0.5, torch.rand(4, 50, 3, 3) + 0.5]
    for before, after in zip(features, channel_dropout(features, 0.5), strict=True):
        kept = (after / before).flatten(2)
        assert ((kept == 0).all(2) | ((kept - 2).abs() < 1e-4).all(2)).all()
        assert 0.3 < (kept[..., 0] == 0).float().mean() < 0.7
    for before, after in zip(features, feature_noise(features), strict=True):
        assert 0.25 < (after / before - 1).abs().max() <= 0.3001
    features = [torch.rand(4, 3, 20, 20) ** 20 + 0.5, torch.rand(4, 3, 6, 6, 6) + 0.5]  # few voxels far above the rest
    for before, after in zip(features, feature_drop(features), strict=True):
        for sample, gone in zip(before.mean(1), (after == 0).all(1), strict=True):
            assert 0.09 < gone.float().mean() < 0.31
            assert sample[gone].min() > sample[~gone].max()


@pytest.mark.parametrize(
    ("strides", "fine"), [([1, 2, 4, 8], 2), ([1, 2], 1), ([1], 0), ([(1, 1), (1, 2), (2, 4), (2, 8)], 2)]
)
def test_fine_features_are_not_perturbed(strides: list[int | tuple[int, int]], fine: int) -> None:
    features = [torch.rand(1, 2, *np.array([16, 16]) // stride) for stride in strides]
    after = perturb_deep(features, lambda maps: [2 * f for f in maps])
    assert [bool((b == f).all()) for b, f in zip(after, features, strict=True)] == [n < fine for n in range(len(after))]
