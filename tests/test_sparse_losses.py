"""The terms for sparse labels against slow references, and their gradients against differences."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

from nnunet_limited.losses.consistency import entropy
from nnunet_limited.losses.sparse import AnnotatedSamples, WithTerms, gated_crf, mumford_shah, total_variation

SHAPES = [(2, 3, 5, 6), (2, 3, 3, 4, 5)]
TERMS = {
    "entropy": lambda p, image, regions: entropy(p, regions).mean(),
    "crf": lambda p, image, regions: gated_crf(p, image, regions, radius=2),
    "contour": lambda p, image, regions: total_variation(p, regions),
    "mumford_shah": mumford_shah,
}


def sample(shape: tuple[int, ...], regions: bool) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64)
    image = torch.randn((shape[0], 2, *shape[2:]), generator=generator, dtype=torch.float64)
    return torch.sigmoid(logits) if regions else torch.softmax(logits, 1), image


def unit(image: np.ndarray) -> np.ndarray:
    made = np.empty_like(image)
    for b, c in np.ndindex(image.shape[:2]):
        made[b, c] = (image[b, c] - image[b, c].min()) / (image[b, c].max() - image[b, c].min())
    return made


def slow_crf(p: np.ndarray, image: np.ndarray, regions: bool, radius: int = 2) -> float:
    image, total = unit(image), 0.0
    for b in range(len(p)):
        for i in np.ndindex(p.shape[2:]):
            for dy, dx in itertools.product(range(-radius, radius + 1), repeat=2):
                j = (*i[:-2], i[-2] + dy, i[-1] + dx)
                if (dy, dx) == (0, 0) or not (0 <= j[-2] < p.shape[-2] and 0 <= j[-1] < p.shape[-1]):
                    continue
                mine, theirs = p[(b, slice(None), *i)], p[(b, slice(None), *j)]
                differ = np.mean(mine * (1 - theirs) + theirs * (1 - mine)) if regions else 1 - np.dot(mine, theirs)
                apart = np.mean((image[(b, slice(None), *i)] - image[(b, slice(None), *j)]) ** 2)
                total += differ * math.exp(-(dy**2 + dx**2) / (2 * 6.0**2)) * math.exp(-apart / (2 * 0.1**2))
    return total / (len(p) * np.prod(p.shape[2:]))


def slow_contour(p: np.ndarray, image: np.ndarray, regions: bool) -> float:
    p = p if regions else p[:, 1:]
    ranges = [range(n) for n in p.shape[2:]]

    def window(values: np.ndarray, i: tuple[int, ...]) -> np.ndarray:
        return values[tuple(slice(max(a - 1, 0), a + 2) for a in i)]

    total = 0.0
    for b, c in np.ndindex(p.shape[:2]):
        eroded = np.empty(p.shape[2:])
        for i in itertools.product(*ranges):
            eroded[i] = window(p[b, c], i).min()
        total += sum(window(eroded, i).max() - eroded[i] for i in itertools.product(*ranges))
    return total / p.size


def slow_mumford_shah(p: np.ndarray, image: np.ndarray, regions: bool) -> float:
    image, total = unit(image), 0.0
    voxels = len(p) * np.prod(p.shape[2:])
    classes = np.concatenate([p, 1 - p], 1) if regions else p
    for b, c, k in itertools.product(range(len(p)), range(classes.shape[1]), range(image.shape[1])):
        mean = (image[b, k] * classes[b, c]).sum() / classes[b, c].sum()
        total += ((image[b, k] - mean) ** 2 * classes[b, c]).sum() / voxels / image.shape[1]
    for axis in range(2, p.ndim):
        steps = np.abs(np.diff(p, axis=axis))
        total += steps.sum() / (steps.size / steps.shape[1])
    return total


def slow_entropy(p: np.ndarray, image: np.ndarray, regions: bool) -> float:
    if regions:
        return float(np.mean(-p * np.log2(p) - (1 - p) * np.log2(1 - p)))
    return float(np.mean((-p * np.log(p)).sum(1)) / math.log(p.shape[1]))


SLOW = {"entropy": slow_entropy, "crf": slow_crf, "contour": slow_contour, "mumford_shah": slow_mumford_shah}


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", TERMS)
def test_term_equals_its_slow_reference(name: str, shape: tuple[int, ...], regions: bool) -> None:
    probability, image = sample(shape, regions)
    found = TERMS[name](probability, image, regions).item()
    assert found == pytest.approx(SLOW[name](probability.numpy(), image.numpy(), regions), rel=1e-9)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (1, 2, 2, 3, 4)])
@pytest.mark.parametrize("name", TERMS)
def test_gradient_equals_differences(name: str, shape: tuple[int, ...], regions: bool) -> None:
    _, image = sample(shape, regions)
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64, requires_grad=True)

    def value(z: torch.Tensor) -> torch.Tensor:
        return TERMS[name](torch.sigmoid(z) if regions else torch.softmax(z, 1), image, regions)

    assert torch.autograd.gradcheck(value, (logits,))
    assert torch.autograd.grad(value(logits), logits)[0].abs().max() > 1e-6


def test_a_crf_pulls_alike_voxels_together() -> None:
    """A prediction that follows the image's edge costs less than one that crosses it."""
    image = torch.zeros(1, 1, 8, 8)
    image[..., 4:] = 1
    along, across = torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)
    along[:, 0, :, :4], along[:, 1, :, 4:] = 1, 1
    across[:, 0, :4], across[:, 1, 4:] = 1, 1
    assert gated_crf(along, image, False) < 0.01 * gated_crf(across, image, False)


def host_loss(regions: bool) -> torch.nn.Module:
    dice = {"batch_dice": False, "smooth": 1e-5, "do_bg": regions, "ddp": False}
    if regions:
        return DC_and_BCE_loss({}, dice, use_ignore_label=True, dice_class=MemoryEfficientSoftDiceLoss)
    return DC_and_CE_loss(dice, {}, ignore_label=3, dice_class=MemoryEfficientSoftDiceLoss)


@pytest.mark.parametrize("regions", [False, True])
def test_samples_without_annotation_do_not_count(regions: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    output = torch.randn(3, 3, 6, 6, generator=generator, requires_grad=True)
    if regions:
        target = torch.rand(3, 4, 6, 6, generator=generator) > 0.5
        target[1, -1] = True
    else:
        target = torch.randint(0, 4, (3, 1, 6, 6), generator=generator)
        target[1] = 3
    made = AnnotatedSamples(host_loss(regions), 3, regions)
    loss = made(output, target)
    torch.testing.assert_close(loss, host_loss(regions)(output[[0, 2]], target[[0, 2]]))
    assert loss.item() != pytest.approx(host_loss(regions)(output, target).item(), abs=0.05)
    gradient = torch.autograd.grad(loss, output)[0]
    assert not gradient[1].any()
    assert gradient[[0, 2]].any()
    nothing = made(output[1:2], target[1:2])
    assert nothing.item() == 0
    assert not torch.autograd.grad(nothing, output)[0].any()
    whole = torch.ones_like(target) if not regions else torch.zeros_like(target)
    assert torch.equal(made(output, whole), host_loss(regions)(output, whole))


def test_terms_are_added_in_training_only() -> None:
    output, target = torch.randn(2, 2, 4, 4), torch.zeros(2, 1, 4, 4)
    made = WithTerms(torch.nn.CrossEntropyLoss(), [(0.5, lambda p, image: p[:, 1].mean() * image.mean())], False)
    plain = torch.nn.CrossEntropyLoss()(output, target[:, 0].long())
    assert torch.equal(made(output, target[:, 0].long()), plain)
    made.image = torch.full((2, 1, 4, 4), 2.0)
    expected = plain + 0.5 * torch.softmax(output, 1)[:, 1].mean() * 2
    torch.testing.assert_close(made(output, target[:, 0].long()), expected)
