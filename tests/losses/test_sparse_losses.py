"""The terms for sparse labels against slow references, and their gradients against differences."""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from helpers import CLASSES, REGIONS
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

from nnunet_limited.losses.boxes import affinity, outside, projection, size_bounds, tightness, uncut
from nnunet_limited.losses.label_space import LabelSpace
from nnunet_limited.losses.sparse import TERMS, AnnotatedSamples, WithTerms, gated_crf

SHAPES = [(2, 3, 5, 6), (2, 3, 3, 4, 5)]
LOSSES = {name: term.loss for name, term in TERMS.items()} | {"crf": partial(gated_crf, radius=2)}


def space(regions: bool) -> LabelSpace:
    return REGIONS if regions else CLASSES


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
@pytest.mark.parametrize("name", LOSSES)
def test_term_equals_its_slow_reference(name: str, shape: tuple[int, ...], regions: bool) -> None:
    probability, image = sample(shape, regions)
    found = LOSSES[name](probability, image, space(regions)).item()
    assert found == pytest.approx(SLOW[name](probability.numpy(), image.numpy(), regions), rel=1e-9)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (1, 2, 2, 3, 4)])
@pytest.mark.parametrize("name", LOSSES)
def test_gradient_equals_differences(name: str, shape: tuple[int, ...], regions: bool) -> None:
    _, image = sample(shape, regions)
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64, requires_grad=True)

    def value(z: torch.Tensor) -> torch.Tensor:
        return LOSSES[name](torch.sigmoid(z) if regions else torch.softmax(z, 1), image, space(regions))

    assert torch.autograd.gradcheck(value, (logits,))
    assert torch.autograd.grad(value(logits), logits)[0].abs().max() > 1e-6


def test_a_crf_pulls_alike_voxels_together() -> None:
    """A prediction that follows the image's edge costs less than one that crosses it."""
    image = torch.zeros(1, 1, 8, 8)
    image[..., 4:] = 1
    along, across = torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 8, 8)
    along[:, 0, :, :4], along[:, 1, :, 4:] = 1, 1
    across[:, 0, :4], across[:, 1, 4:] = 1, 1
    assert gated_crf(along, image, CLASSES) < 0.01 * gated_crf(across, image, CLASSES)


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
    made = AnnotatedSamples(host_loss(regions), space(regions))
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
    made = WithTerms(torch.nn.CrossEntropyLoss(), [(0.5, lambda p, image: p[:, 1].mean() * image.mean())], CLASSES)
    plain = torch.nn.CrossEntropyLoss()(output, target[:, 0].long())
    assert torch.equal(made(output, target[:, 0].long()), plain)
    made.image = torch.full((2, 1, 4, 4), 2.0)
    expected = plain + 0.5 * torch.softmax(output, 1)[:, 1].mean() * 2
    torch.testing.assert_close(made(output, target[:, 0].long()), expected)


# ---- boxes -----------------------------------------------------------------------------------------------------------


def boxed(shape: tuple[int, ...], cut: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """A class and its boxes: two in the first sample, perhaps at the border, none in the second."""
    p = torch.rand((2, *shape), generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 0.9 + 0.05
    boxes = torch.zeros(2, *shape, dtype=torch.bool)
    boxes[(0, *(slice(1, 4) for _ in shape))] = True
    boxes[(0, *(slice(5, 7) for _ in shape))] = True
    if cut:
        boxes[(0, slice(0, 2), *(slice(1, 4) for _ in shape[1:]))] = True
    return p, boxes


def slow_slices(p: np.ndarray, boxes: np.ndarray):
    """Yield, for each axis and sample, probabilities inside boxes of each slice through a box, if boxes are whole."""
    for axis in range(1, p.ndim):
        for b in range(len(p)):
            moved, inside = np.moveaxis(p[b], axis - 1, 0), np.moveaxis(boxes[b], axis - 1, 0)
            others = [np.moveaxis(inside, a, 0) for a in range(1, inside.ndim)]
            whole = not any(o[0].any() or o[-1].any() for o in others)
            yield axis, [s[i] if i.any() and whole else None for s, i in zip(moved, inside, strict=True)]


def slow_projection(p: np.ndarray, boxes: np.ndarray) -> float:
    axes: dict[int, list[float]] = {axis: [] for axis in range(1, p.ndim)}
    for axis, found in slow_slices(p, boxes):
        largest = [s.max() for s in found if s is not None]
        if largest:
            axes[axis].append(1 - 2 * sum(largest) / (sum(v**2 for v in largest) + len(largest)))
    return float(np.mean([np.mean(values) if values else 0.0 for values in axes.values()]))


def barrier(z: float, t: float) -> float:
    return -math.log(-z) / t if z <= -1 / t**2 else t * z - math.log(1 / t**2) / t + 1 / t


def slow_tightness(p: np.ndarray, boxes: np.ndarray, t: float, width: int) -> float:
    axes: dict[int, list[float]] = {axis: [] for axis in range(1, p.ndim)}
    for axis, found in slow_slices(p, boxes):
        for strip in (found[i : i + width] for i in range(len(found) - width + 1)):
            if all(s is not None for s in strip):
                axes[axis].append(barrier(1 - sum(s.sum() for s in strip) / width, t))
    return float(np.mean([np.mean(values) if values else 0.0 for values in axes.values()]))


@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize("shape", [(8, 9), (8, 8, 9)])
def test_box_terms_equal_their_slow_references(shape: tuple[int, ...], cut: bool) -> None:
    p, boxes = boxed(shape, cut)
    a, inside = p.numpy(), boxes.numpy()
    assert projection(p, boxes).item() == pytest.approx(slow_projection(a, inside))
    assert tightness(p, boxes, 5.0, 2).item() == pytest.approx(slow_tightness(a, inside, 5.0, 2))
    mask = torch.ones_like(boxes)
    mask[:, 0] = False
    counted = ~inside & mask.numpy()
    assert outside(p, boxes, mask).item() == pytest.approx(-np.log(1 - a[counted]).mean())


@pytest.mark.parametrize("shape", [(8, 9), (8, 8, 9)])
def test_size_is_that_of_all_boxes_of_a_batch(shape: tuple[int, ...]) -> None:
    p, boxes = boxed(shape)
    boxes[(1, *(slice(2, 5) for _ in shape))] = True
    p[1] *= 0.3
    share = (p.numpy()[0][boxes[0]].sum() + p.numpy()[1][boxes[1]].sum()) / (boxes[0].sum() + boxes[1].sum()).item()
    for least, most, expected in (
        (0.1, 0.9, 0.0),
        (0.8, 0.9, -math.log(share / 0.8)),
        (0.1, 0.2, -math.log((1 - share) / 0.8)),
    ):
        assert size_bounds(p, boxes, least, most).item() == pytest.approx(expected, abs=1e-5)
    assert size_bounds(p, torch.zeros_like(boxes), 0.8, 0.9).item() == 0


@pytest.mark.parametrize("shape", [(8, 9), (8, 8, 9)])
def test_boxes_that_the_crop_cuts_off_are_left_out(shape: tuple[int, ...]) -> None:
    """With all boxes of that sample, of which some may hang together."""
    _, boxes = boxed(shape, cut=True)
    boxes[(1, *(slice(2, 5) for _ in shape))] = True
    found = uncut(boxes)
    assert not found[0].any()
    assert torch.equal(found[1], boxes[1])


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("shape", [(1, 3, 6, 7), (1, 2, 4, 5, 6)])
def test_affinity_equals_its_slow_reference(shape: tuple[int, ...], regions: bool) -> None:
    probability, image = sample(shape, regions)
    inside = torch.zeros(shape[0], *shape[2:], dtype=torch.bool)
    inside[:, 1:5, 1:4] = True
    p, values, total, pairs = probability.numpy(), 100 * unit(image.numpy()), 0.0, 0
    for i in np.ndindex(*shape[2:]):
        for offset in itertools.product((-2, 0, 2), repeat=len(i)):
            j = tuple(a + o for a, o in zip(i, offset, strict=True))
            if j <= i or not all(0 <= a < n for a, n in zip(j, shape[2:], strict=True)):
                continue
            apart = np.linalg.norm(values[(0, slice(None), *i)] - values[(0, slice(None), *j)])
            if math.exp(-apart / 2) >= 1e-6 and (inside[(0, *i)] or inside[(0, *j)]) and i[0] > 1 and j[0] > 1:
                a, b = p[(0, slice(None), *i)], p[(0, slice(None), *j)]
                total += np.mean(-np.log(a * b + (1 - a) * (1 - b))) if regions else -math.log(np.dot(a, b))
                pairs += 1
    assert pairs > 5
    mask = torch.ones_like(inside)
    mask[:, :2] = False
    found = affinity(probability, image, inside, mask, space(regions), threshold=1e-6)
    assert found.item() == pytest.approx(total / pairs)


def test_box_gradients_equal_differences() -> None:
    p, boxes = boxed((8, 9))
    p = p.clone().requires_grad_()
    mask = torch.ones_like(boxes)
    for term in (
        lambda q: outside(q, boxes, mask),
        lambda q: projection(q, boxes),
        lambda q: tightness(q, boxes, 5.0, 2),
        lambda q: size_bounds(q, boxes, 0.8, 0.9),
        lambda q: size_bounds(q, boxes, 0.1, 0.2),
    ):
        assert torch.autograd.gradcheck(term, (p,))
    both = torch.stack([1 - p, p], 1)
    image = torch.rand(2, 1, 8, 9, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda q: affinity(q, image, boxes, mask, CLASSES, threshold=1e-9), (both.detach().requires_grad_(),)
    )
