"""What is special to each method, against a reference of a few lines."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CLASSES, FROM_START, segmentation_reference, softmax
from torch.nn import functional

from nnunet_limited.errors import LimitedError
from nnunet_limited.losses.pseudo_label import dice_loss
from nnunet_limited.trainers.semi_supervised.urpc import LimitedUncertaintyRectifiedPyramidTrainer, pyramid_consistency
from nnunet_limited.util.random_state import RandomStream


def gradient(loss: torch.Tensor, network) -> list[torch.Tensor]:
    found = torch.autograd.grad(loss, list(network.parameters()), retain_graph=True, allow_unused=True)
    return [torch.zeros(1) if g is None else g for g in found]


def assert_equal_gradients(one: list[torch.Tensor], other: list[torch.Tensor]) -> None:
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_entropy_minimization(start) -> None:
    made, crops = start("LimitedEntropyMinimizationTrainer")
    p = softmax(made.network(crops.strong))
    expected = (-(p * p.log()).sum(1, keepdim=True) / math.log(3))[crops.valid].mean()
    torch.testing.assert_close(made.unsupervised_loss(crops).loss, expected)


def test_uncertain_voxels_do_not_count(start, monkeypatch) -> None:
    made, crops = start("LimitedUncertaintyAwareMeanTeacherTrainer")
    uncertainty = torch.rand(crops.valid.shape)
    monkeypatch.setattr(made, "uncertainty", lambda image: uncertainty)
    made.iteration = 3  # halfway through the run, long after the ramp-up
    limit = (0.75 + 0.25 * math.exp(-5 / 4)) * math.log(2) / math.log(3)
    counted = (crops.valid & (uncertainty < limit)).expand(-1, 3, -1, -1)
    difference = softmax(made.network(crops.strong)) - softmax(made.partners["teacher"](crops.weak))
    torch.testing.assert_close(made.unsupervised_loss(crops).loss, (difference[counted] ** 2).mean())


@pytest.mark.parametrize("trainer", ["LimitedUncertaintyAwareMeanTeacherTrainer", "LimitedSlicePropagationTrainer"])
def test_the_limit_of_the_uncertainty_rises_over_the_whole_run(start, monkeypatch, trainer: str) -> None:
    """Some voxels are left out until the last tenth of the run, whatever the ramp-up of the weight."""
    made, crops = start(trainer, num_iterations_per_epoch=50)
    uncertainty = torch.linspace(0, 1, crops.valid.numel()).reshape(crops.valid.shape)
    monkeypatch.setattr(type(made.labels), "entropy", lambda labels, probability: uncertainty)
    limits, whole = [], crops._replace(valid=torch.ones_like(crops.valid))
    module = "nnunet_limited.trainers.sparse.slices"
    monkeypatch.setattr(f"{module}.cross_entropy", lambda z, target, weight, *rest: limits.append(weight) or z.mean())
    for made.iteration in (0, 25, 50, 75, 90, 99):
        valid = made.unsupervised_loss(whole).valid
        if trainer.startswith("LimitedUncertainty"):
            limits += [valid, valid]  # two networks in slice propagation
    fractions = [mask.float().mean().item() for mask in limits[::2]]
    two_classes = math.log(2) / math.log(3)
    expected = [0.75 + 0.25 * math.exp(-5 * (1 - n / 100) ** 2) for n in (0, 25, 50, 75, 90, 99)]
    assert fractions == pytest.approx([two_classes * limit for limit in expected], abs=0.002)


def test_uncertainty_is_the_entropy_of_the_mean_prediction(start, monkeypatch) -> None:
    made, crops = start("LimitedUncertaintyAwareMeanTeacherTrainer", stochastic_passes=2)
    passes = iter([torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.1, 0.1, 0.8])])
    monkeypatch.setattr(made, "probabilities", lambda output: next(passes)[None, :, None, None])
    p = [0.3, 0.3, 0.4]
    assert made.uncertainty(crops.weak).item() == pytest.approx(-sum(x * math.log(x) for x in p) / math.log(3))


def test_interpolation(start, monkeypatch) -> None:
    made, crops = start("LimitedInterpolationConsistencyTrainer")
    monkeypatch.setattr(np.random, "beta", lambda a, b: 0.3)
    order = [len(crops.weak) - 1, *range(len(crops.weak) - 1)]
    p = softmax(made.partners["teacher"](crops.weak))
    prediction = softmax(made.network(0.3 * crops.strong + 0.7 * crops.strong[order]))
    inside = (crops.valid & crops.valid[order]).expand_as(p)
    expected = ((prediction - 0.3 * p - 0.7 * p[order])[inside] ** 2).mean()
    torch.testing.assert_close(made.unsupervised_loss(crops).loss, expected)


def test_pyramid() -> None:
    a, b = torch.tensor([0.9, 0.1]), torch.tensor([0.5, 0.5])
    scales = [torch.stack([s, b], 1)[None] for s in (a, b)]  # two voxels: the scales differ in the first only
    mean, total = (a + b) / 2, 0.0
    for s in (a, b):
        d = (s * (s / mean).log()).sum()
        squared, weight = ((s - mean) ** 2).sum(), torch.exp(-d)
        total += (squared * weight / 2) / ((weight + 1) / 2) + d / 2
    mask = torch.ones(1, 1, 2, dtype=torch.bool)
    torch.testing.assert_close(pyramid_consistency(scales, mask, CLASSES), total / 2)
    mask[..., 0] = False
    assert pyramid_consistency(scales, mask, CLASSES) < 1e-6


def test_pyramid_uses_every_scale_that_learns_from_labels(start) -> None:
    made, crops = start("LimitedUncertaintyRectifiedPyramidTrainer")
    learning = []
    for backward in (
        lambda: made._supervised_backward(made.network, crops, sync=True),
        lambda: made.unsupervised_loss(crops).loss.backward(),
    ):
        made.network.zero_grad()
        backward()
        grads = [layer.weight.grad for layer in made.network.decoder.seg_layers]  # the coarsest first
        learning.append([grad is not None and bool(grad.any()) for grad in grads])
    assert learning == [[False, True, True]] * 2


def test_each_network_learns_from_the_other_s_hard_label(start) -> None:
    made, crops = start("LimitedCrossPseudoSupervisionTrainer")
    first, second = made.network, made.partners["second"]
    assert not torch.equal(next(first.parameters()), next(second.parameters()))
    loss = made.unsupervised_loss(crops).loss
    logits = [network(crops.strong)[0] for network in (first, second)]
    labels = [functional.one_hot(z.argmax(1), 3).movedim(-1, 1).float() for z in logits]
    inside = int(crops.valid.sum())
    terms = [segmentation_reference(z, t, crops.valid, inside) for z, t in zip(logits, reversed(labels), strict=True)]
    torch.testing.assert_close(loss, sum(terms))
    for network, term in zip((first, second), terms, strict=True):
        assert_equal_gradients(gradient(loss, network), gradient(term, network))


def test_auxiliary_decoders_agree_with_the_main_one_under_perturbed_features(start, monkeypatch) -> None:
    made, crops = start("LimitedCrossConsistencyTrainer")
    factors = (0.5, 0.8, 1.5)
    perturbations = [lambda features, f=f: [f * map_ for map_ in features] for f in factors]
    monkeypatch.setattr("nnunet_limited.trainers.semi_supervised.cct.PERTURBATIONS", perturbations)
    target = softmax(made.network(crops.strong))
    expected = []
    for factor, decoder in zip(factors, made.partners["auxiliary"].decoders, strict=True):
        maps = made.network.encoder(crops.strong)
        p = softmax(decoder([*maps[:2], *(factor * deep for deep in maps[2:])]))
        expected.append(((p - target) ** 2)[crops.valid.expand_as(p)].mean())
    torch.testing.assert_close(made.unsupervised_loss(crops).loss, sum(expected) / 3)


def test_auxiliary_decoders_stay_out_of_what_is_predicted_with(start, tmp_path: Path) -> None:
    made, crops = start("LimitedCrossConsistencyTrainer")
    made.unsupervised_loss(crops).loss.backward()
    assert all(p.grad is None for stage in made.network.decoder.stages for p in stage.parameters())
    assert any(p.grad is not None and p.grad.any() for p in made.network.encoder.parameters())
    for decoder in made.partners["auxiliary"].decoders:
        assert decoder.stages[0].convs[0].conv.weight.grad.any()
    made.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    content = torch.load(tmp_path / "checkpoint.pth", weights_only=False)
    assert content["network_weights"].keys() == made.network.state_dict().keys()


def test_co_training_agrees_and_resists(start) -> None:
    made, crops = start("LimitedDeepCoTrainingTrainer", difference_weight=0.0, adversarial_step=0.01)
    networks = (made.network, made.partners["second"])
    p, q = (softmax(network(crops.strong)) for network in networks)
    m = (p + q) / 2
    js = 0.5 * (p * (p / m).log() + q * (q / m).log()).sum(1, keepdim=True)
    torch.testing.assert_close(made.unsupervised_loss(crops).loss, js[crops.valid].mean(), rtol=1e-3, atol=1e-6)
    for network in networks:
        image = crops.strong.clone().requires_grad_()
        logits = network(image)[0]
        moved = made.adversarial(image, logits, crops.valid)
        assert 0 < (moved - image).abs().max() <= 0.0101
        label, inside = made.labels.harden(torch.softmax(logits, 1)), int(crops.valid.sum())
        before, after = (
            functional.cross_entropy(z, label.argmax(1), reduction="none")[crops.valid[:, 0]].sum() / inside
            for z in (logits, network(moved)[0])
        )
        assert after > before


def test_resistance_is_to_the_other_s_examples(start) -> None:
    made, crops = start("LimitedDeepCoTrainingTrainer", difference_weight=1.0)
    with_it = made.unsupervised_loss(crops).loss
    networks = (made.network, made.partners["second"])
    image = crops.strong.clone().requires_grad_()
    logits = [network(image)[0] for network in networks]
    examples = [made.adversarial(image, z, crops.valid) for z in logits]
    p, q = (torch.softmax(z, 1) for z in logits)
    m = (p + q) / 2
    expected = (0.5 * (p * (p / m).log() + q * (q / m).log()).sum(1, keepdim=True))[crops.valid].mean()
    for network, example, target in ((networks[0], examples[1], q), (networks[1], examples[0], p)):
        ce = -(target.detach() * torch.log_softmax(network(example)[0], 1)).sum(1, keepdim=True)
        expected = expected + ce[crops.valid].mean()
    torch.testing.assert_close(with_it, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_adversarial_examples_survive_half_precision(start) -> None:
    made, _ = start("LimitedDeepCoTrainingTrainer", adversarial_step=0.01)
    image, network = torch.randn(1, 1, 2048, 2048), torch.nn.Conv2d(1, 3, 3, padding=1)
    moved = []
    for half in (False, True):
        leaf = image.clone().requires_grad_()
        with torch.autocast("cpu", torch.float16, enabled=half):
            moved.append(made.adversarial(leaf, network(leaf), torch.ones_like(image, dtype=torch.bool)) - image)
    same = (torch.sign(moved[0]) == torch.sign(moved[1])).float().mean()
    assert same > 0.93


@pytest.mark.parametrize("variant", ["2d", "3d"])
def test_transformer_and_network_teach_each_other_by_dice(start, variant: str) -> None:
    made, crops = start("LimitedCrossTeachingTrainer", variant)
    z = made.network(crops.strong)[0]
    torch.manual_seed(0)
    t = made.partners["second"](crops.strong)
    assert t.shape == z.shape
    labels = made.labels
    expected = dice_loss(z, labels.harden(t), crops.valid, labels) + dice_loss(t, labels.harden(z), crops.valid, labels)
    torch.testing.assert_close(made.unsupervised_loss(crops).loss, expected)
    assert type(made.partner_optimizers["second"][0]).__name__ == "AdamW"


def test_rdrop_is_symmetric_over_two_different_passes(start, monkeypatch) -> None:
    made, crops = start("LimitedRDropTrainer")
    assert made.config.consistency_weight == 4.0
    assert made.unsupervised_loss(crops).loss > 0
    outputs = [torch.randn(2, 3, 4, 4) for _ in range(2)]
    passes = iter(outputs)
    monkeypatch.setattr("nnunet_limited.trainers.semi_supervised.rdrop.perturbed", lambda *arguments: next(passes))
    p, q = (torch.softmax(z, 1) for z in outputs)
    both = (p * (p / q).log() + q * (q / p).log()).sum(1, keepdim=True)
    mask = torch.rand(2, 1, 4, 4) > 0.4
    got = made.unsupervised_loss(crops._replace(valid=mask)).loss
    torch.testing.assert_close(got, both[mask].mean() / 2, rtol=1e-3, atol=1e-5)


def test_each_adversary_learns_in_its_own_phase(start) -> None:
    made, crops = start("LimitedAdversarialTrainer")
    discriminator = made.partners["discriminator"]
    found = made.unsupervised_loss(crops)
    assert not any(g.any() for g in gradient(found.loss, discriminator))
    assert any(g.any() for g in gradient(found.loss, made.network))
    assert any(g.any() for g in gradient(found.partner_loss, discriminator))
    assert not any(g.any() for g in gradient(found.partner_loss, made.network))
    background = torch.tensor([1.0, 0, 0])[None, :, None, None]
    unlabeled = torch.where(crops.valid, softmax(made.network(crops.strong)), background)
    image = crops.image  # some are forced onto foreground, in both streams
    fake, real = discriminator(crops.strong, unlabeled), discriminator(image, softmax(made.network(image)))
    torch.testing.assert_close(found.loss, -functional.logsigmoid(fake).mean())
    expected = -(functional.logsigmoid(-fake).mean() + functional.logsigmoid(real).mean()) / 2
    torch.testing.assert_close(found.partner_loss, expected)


@pytest.mark.parametrize("variant", ["2d", "regions"])
def test_dual_branch_learns_a_mixture(start, monkeypatch, variant: str) -> None:
    made, crops = start("LimitedDualBranchTrainer", variant)
    regions = variant == "regions"
    monkeypatch.setattr("nnunet_limited.trainers.sparse.dual_branch.np.random.uniform", lambda: 0.8)
    made.network.eval()
    with RandomStream((0,)).active():
        first, second = made.branches(crops.strong)
    with RandomStream((0,)).active():
        found = made.unsupervised_loss(crops)
    act = torch.sigmoid if regions else softmax
    mixed = 0.8 * act(first) + 0.2 * act(second)
    torch.testing.assert_close(found.target, mixed)
    target = (mixed > 0.5).float() if regions else functional.one_hot(mixed.argmax(1), 3).movedim(-1, 1).float()
    losses = []
    for p in (act(first), act(second)):
        dices = []
        for c in range(0 if regions else 1, p.shape[1]):
            a, b = p[:, c][crops.valid[:, 0]], target[:, c][crops.valid[:, 0]]
            dices.append((2 * (a * b).sum() + 1e-5) / (a.sum() + b.sum() + 1e-5))
        losses.append(1 - torch.stack(dices).mean())
    torch.testing.assert_close(found.loss, sum(losses) / 2)
    assert not torch.equal(first, second)
    found.loss.backward(retain_graph=True)
    assert all(p.grad is not None for p in made.network.decoder.stages.parameters())
    decoder = made.partners["auxiliary"]
    before = [None if p.grad is None else p.grad.clone() for p in decoder.parameters()]
    found.partner_loss.backward()
    changed = [
        a is None or not torch.equal(a, p.grad)
        for a, p in zip(before, decoder.parameters(), strict=True)
        if p.grad is not None
    ]
    assert any(changed), "the second branch learns from the labels too"


def test_what_a_method_cannot_do_is_refused(workspaces, monkeypatch) -> None:
    workspace = workspaces("2d")
    single = workspace.configure("single", **FROM_START, unlabeled_batch_size=1)
    mixing = ("InterpolationConsistency", "FixMatch", "UniMatch", "Recipe")
    for name in (f"Limited{method}Trainer" for method in mixing):
        with pytest.raises(LimitedError, match="unlabeled_batch_size=2"):
            workspace.trainer(name, single)
    made = workspace.trainer("LimitedUniMatchTrainer", workspace.configure("gpus", **FROM_START))
    made.check_start(made.run, made.config, gpus=2, trains=False)  # two of the four crops on each
    with pytest.raises(LimitedError, match="on each GPU"):
        made.check_start(made.run, made.config, gpus=3, trains=False)
    shallow = {"architecture": {"arch_kwargs": {"n_stages": 3}}}
    with pytest.raises(LimitedError, match="plan a deeper U-Net"):
        LimitedUncertaintyRectifiedPyramidTrainer.refuse_unsuitable(shallow, made.config)
    monkeypatch.setattr("nnunet_limited.trainers.semi_supervised.cross_teaching.find_spec", lambda name: None)
    with pytest.raises(LimitedError, match="nnunet-limited\\[transformer\\]"):
        workspace.trainer("LimitedCrossTeachingTrainer", single)
