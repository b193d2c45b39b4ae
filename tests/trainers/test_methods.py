"""What is special to each method, against a reference of a few lines."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CLASSES, FROM_START, segmentation_reference
from torch.nn import functional

from nnunet_limited.data.crops import Crops
from nnunet_limited.errors import LimitedError
from nnunet_limited.losses.pseudo_label import dice_loss
from nnunet_limited.trainers.semi_supervised.urpc import LimitedUncertaintyRectifiedPyramidTrainer, pyramid_consistency
from nnunet_limited.util.random_state import RandomStream


@pytest.fixture
def start(workspaces):
    def make(trainer: str, variant: str = "2d", **settings):
        workspace = workspaces(variant)
        name = "method" + "".join(f"-{key}-{value}" for key, value in settings.items())
        made = workspace.trainer(trainer, workspace.configure(name, **{**FROM_START, **settings}))
        made.on_train_start()
        made.on_train_epoch_start()
        crops = made.crops(next(made.dataloader_train))
        mask = torch.rand(crops.valid.shape) > 0.3
        return made, crops._replace(inside=mask, valid=mask)

    return make


def softmax(output) -> torch.Tensor:
    return torch.softmax(output[0] if isinstance(output, list) else output, 1)


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


def mixed_by(monkeypatch: pytest.MonkeyPatch, crops: Crops) -> Callable[..., tuple[torch.Tensor, ...]]:
    """Fix the box of CutMix, and return the mixing of values with the next crop's as a reference."""
    box = torch.zeros(crops.valid.shape, dtype=torch.bool)
    box[..., 5:20, 5:20] = True
    monkeypatch.setattr("nnunet_limited.data.mixing.cutmix_boxes", lambda batch, shape, device: box)
    order = [len(box) - 1, *range(len(box) - 1)]
    return lambda *values: tuple(torch.where(box, value[order], value) for value in values)


def test_fixmatch_ignores_voxels_of_low_confidence(start, monkeypatch) -> None:
    made, crops = start("LimitedFixMatchTrainer", confidence_threshold=0.4)
    mixed = mixed_by(monkeypatch, crops)
    p = softmax(made.network(crops.weak)).detach()
    sure = (p.amax(1, keepdim=True) >= 0.4) & crops.valid
    assert sure.any()
    assert (~sure & crops.valid).any()
    label = functional.one_hot(p.argmax(1), 3).movedim(-1, 1).float()
    image, target, counted, mask = mixed(crops.strong, label, sure, crops.valid)
    expected = segmentation_reference(made.network(image)[0], target, counted, int(mask.sum()))
    torch.testing.assert_close(made.unsupervised_loss(crops).loss, expected)
    made.config = made.config.model_copy(update={"confidence_threshold": 0.9999})
    assert made.unsupervised_loss(crops).loss == 0


@pytest.mark.parametrize(("teacher", "heads"), [("ema", "finest"), ("self", "all"), ("ema", "all")])
def test_fixmatch_has_a_teacher_and_heads_to_choose(start, monkeypatch, teacher: str, heads: str) -> None:
    settings = {"confidence_threshold": 0.0, "teacher": teacher, "unsupervised_heads": heads}
    made, crops = start("LimitedFixMatchTrainer", **settings)
    assert made.predictor_name == ("teacher" if teacher == "ema" else "student")
    if teacher == "ema":
        with torch.no_grad():
            for parameter in made.partners["teacher"].parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    mixed = mixed_by(monkeypatch, crops)
    p = softmax(made.networks[made.predictor_name](crops.weak)).detach()
    label = functional.one_hot(p.argmax(1), 3).movedim(-1, 1).float()
    image, target, mask = mixed(crops.strong, label, crops.valid)
    found = made.unsupervised_loss(crops)
    torch.testing.assert_close(found.target, p)
    expected = torch.zeros(())
    for number, (logits, weight) in enumerate(zip(made.network(image), (2 / 3, 1 / 3, 0), strict=True)):
        if heads == "finest":
            weight = float(number == 0)
        if weight:
            first, step = number, number + 1
            t, m = (value[..., first::step, first::step] for value in (target, mask))
            expected = expected + weight * segmentation_reference(logits, t, m, int(m.sum()))
    torch.testing.assert_close(found.loss, expected)


def test_unimatch_weighs_its_three_views(start, monkeypatch) -> None:
    made, crops = start("LimitedUniMatchTrainer", confidence_threshold=0.3)
    assert len(crops.views) == 2
    assert not torch.equal(*crops.views)
    mixed = mixed_by(monkeypatch, crops)
    module = "nnunet_limited.trainers.semi_supervised.unimatch"
    monkeypatch.setattr(f"{module}.channel_dropout", lambda features: [0.5 * f for f in features])
    p = softmax(made.network(crops.weak)).detach()
    label, inside = functional.one_hot(p.argmax(1), 3).movedim(-1, 1).float(), crops.valid
    maps = made.network.encoder(crops.weak)
    halved = made.network.decoder([*maps[:2], *(0.5 * deep for deep in maps[2:])])[0]
    expected = 0.5 * segmentation_reference(halved, label, inside, int(inside.sum()))
    for view in crops.views:
        image, target, mask = mixed(view, label, inside)
        expected = expected + 0.25 * segmentation_reference(made.network(image)[0], target, mask, int(mask.sum()))
    torch.testing.assert_close(made.unsupervised_loss(crops).loss, expected)


def test_recipe_mixes_images_pseudo_labels_and_masks_alike(start, monkeypatch) -> None:
    made, crops = start("LimitedRecipeTrainer", unsupervised_heads="finest")
    mixed = mixed_by(monkeypatch, crops)
    sure = (crops.stored >= 0) & (crops.stored < 3) & crops.valid
    label = functional.one_hot(torch.where(sure, crops.stored, 0)[:, 0].long(), 3).movedim(-1, 1).float()
    image, target, counted, mask = mixed(crops.strong, label, sure, crops.valid)
    expected = segmentation_reference(made.network(image)[0], target, counted, int(mask.sum()))
    torch.testing.assert_close(made.unsupervised_loss(crops).loss, expected)


@pytest.mark.parametrize("heads", ["all", "finest"])
@pytest.mark.parametrize(
    "trainer", ["LimitedSelfTrainingTrainer", "LimitedRecipeTrainer", "LimitedPromptedPseudoLabelTrainer"]
)
def test_stored_pseudo_labels_teach_the_heads_of_the_settings(start, trainer: str, heads: str) -> None:
    made, crops = start(trainer, unsupervised_heads=heads)
    outputs = []
    hook = made.network.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    loss = made.unsupervised_loss(crops).loss
    hook.remove()
    gradients = torch.autograd.grad(loss, outputs[0], allow_unused=True)
    learning = [gradient is not None and bool(gradient.any()) for gradient in gradients]
    weighted = [weight > 0 for weight in made.head_weights]
    assert sum(weighted) > 1
    assert learning == (weighted if heads == "all" else [True] + [False] * (len(weighted) - 1))


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


@pytest.mark.parametrize("variant", ["2d", "regions", "ignore"])
def test_copy_paste_mixes_voxel_by_voxel(start, monkeypatch, variant: str) -> None:
    made, crops = start("LimitedBidirectionalCopyPasteTrainer", variant, components="all")
    seen = []
    module = "nnunet_limited.trainers.semi_supervised.bcp"
    monkeypatch.setattr(f"{module}.segmentation_loss", lambda z, *rest: seen.append(rest) or z.mean())
    box = torch.zeros(crops.valid.shape[2:], dtype=torch.bool)
    box[3:20, 5:30] = True
    monkeypatch.setattr(f"{module}.fixed_box", lambda shape, side, device: box)
    images = []
    hook = made.network.register_forward_hook(lambda module, inputs, output: images.append(inputs[0]))
    p = made.teach(crops.weak)
    made.unsupervised_loss(crops)
    hook.remove()
    ignore = made.label_manager.ignore_label
    assert len(images) == len(seen) == 2
    for (target, weight, mask, _), image, inside_box in zip(seen, images, (True, False), strict=True):
        assert torch.equal(mask, crops.valid | (box == inside_box))
        for _ in range(60):
            b, y, x = np.random.randint(len(p)), np.random.randint(p.shape[2]), np.random.randint(p.shape[3])
            label = crops.full_label[b, :, y, x]
            if bool(box[y, x]) == inside_box:
                assert torch.equal(image[b, :, y, x], crops.image[b, :, y, x])
                counts = 0.0 if ignore is not None and label == ignore else 1.0
                if counts:
                    expected = label if variant == "regions" else functional.one_hot(label.long(), 3)[0]
                    assert torch.equal(target[b, :, y, x], expected.float())
            else:
                assert torch.equal(image[b, :, y, x], crops.strong[b, :, y, x])
                counts = 0.5 * crops.valid[b, 0, y, x]
                if counts:
                    hard = (p > 0.5) if variant == "regions" else functional.one_hot(p.argmax(1), 3).movedim(-1, 1)
                    assert torch.equal(target[b, :, y, x], hard[b, :, y, x].float())
            assert weight[b, 0, y, x] == counts


@pytest.mark.parametrize("variant", ["2d", "3d", "regions"])
def test_copy_paste_gives_islands_no_weight(start, monkeypatch, variant: str) -> None:
    """The labelled cases have one disc with one core; a correct pseudo-label keeps its weight everywhere."""
    made, crops = start("LimitedBidirectionalCopyPasteTrainer", variant)
    assert made.rule.single == {1, 2}
    crops = crops._replace(inside=torch.ones_like(crops.inside), valid=torch.ones_like(crops.valid))
    label = torch.zeros(crops.valid.shape, dtype=torch.long)
    label[..., 5:15, 5:15] = 1
    label[..., 8:12, 8:12] = 2
    stray = label.clone()
    stray[(..., *[slice(3, 5)] * (label.ndim - 4), slice(20, 22), slice(20, 22))] = 2
    seen = []
    module = "nnunet_limited.trainers.semi_supervised.bcp"
    monkeypatch.setattr(f"{module}.segmentation_loss", lambda z, target, weight, *rest: seen.append(weight) or z.mean())
    for pseudo in (label, stray):
        probability = made.labels.encode(pseudo, None)[0]
        monkeypatch.setattr(made, "teach", lambda image, p=probability: p)
        found = made.unsupervised_loss(crops)
        island = pseudo != label
        assert torch.equal(found.valid, ~island)
        for weight in seen[-2:]:
            assert (weight[~island] > 0).all()
            assert set(weight[island].unique().tolist()) <= {0.0, 1.0}  # 1 where a label is pasted over it
    assert any((weight[island] == 0).any() for weight in seen[-2:])


def test_a_continued_run_keeps_its_rule_for_components(start, tmp_path: Path, monkeypatch) -> None:
    """Whatever has become of the labels that it was decided by; they are not read again."""
    made, _ = start("LimitedBidirectionalCopyPasteTrainer")
    assert made.rule.single == {1, 2}
    made.is_single[0] = False
    made.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    again, _ = start("LimitedBidirectionalCopyPasteTrainer")
    assert again.rule.single == {1, 2}
    again.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    monkeypatch.setattr(again, "decide", None)
    again.on_train_start()
    assert again.rule.single == {2}


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
