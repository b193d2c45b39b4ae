"""Methods that mix crops, and stored pseudo-labels that are mixed, against a reference of a few lines."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from helpers import segmentation_reference, softmax
from torch.nn import functional

from nnunet_limited.data.crops import Crops


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


@pytest.mark.parametrize(
    ("trainer", "leaves_out"), [("LimitedTeacherMatchTrainer", True), ("LimitedFixMatchTrainer", False)]
)
def test_islands_of_one_object_are_left_out_where_asked_for(start, monkeypatch, trainer: str, leaves_out: bool) -> None:
    """The labelled cases have one disc; the network sees a second one."""
    made, crops = start(trainer)
    inside = torch.ones_like(crops.inside)
    inside[..., :2] = False
    crops = crops._replace(inside=inside, valid=inside)
    label = torch.zeros(crops.valid.shape, dtype=torch.long)
    label[..., 5:15, 5:15] = 1
    island = torch.zeros_like(label, dtype=torch.bool)
    island[..., 20:22, 20:22] = True
    label[island] = 1
    probability = made.labels.encode(label, None)[0]
    monkeypatch.setattr(made, "probabilities", lambda output: probability)
    _, hard, counted = made.pseudo_label(crops)
    torch.testing.assert_close(hard, probability)
    assert torch.equal(counted, inside & ~island if leaves_out else inside)
