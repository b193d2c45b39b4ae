"""What surrounds the step: warnings, other loggers, the optimizers of several networks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import FROM_START
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

TEACHER = "LimitedMeanTeacherTrainer"


def test_collapsed_pseudo_labels_are_warned_of_and_terms_reach_every_logger(workspaces, capsys) -> None:
    workspace = workspaces("2d")
    made = workspace.trainer(TEACHER, workspace.configure("collapse", num_epochs=1, **FROM_START))
    seen: dict[str, float] = {}

    class Logger:
        def log(self, key, value, step):
            seen[key] = value

        def update_config(self, config):
            pass

    made.logger.loggers.append(Logger())
    made.on_train_start()
    with torch.no_grad():
        for layer in made.partners["teacher"].decoder.seg_layers:
            layer.weight.zero_()
            layer.bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
    made.after_step = lambda: None
    made.on_epoch_start()
    made.on_train_epoch_start()
    made.on_train_epoch_end([made.train_step(next(made.dataloader_train))])
    made.on_validation_epoch_end([made.validation_step(next(made.dataloader_val))])
    made.on_epoch_end()
    assert "all pseudo-labels used in this epoch, if any, were of one class" in capsys.readouterr().out
    assert {"unsupervised_losses", "unsupervised_weights", "pseudo_label_shares/class_1"} <= seen.keys()
    assert seen["pseudo_label_shares/class_1"] == 1


def test_pretrained_weights_reach_the_teacher(workspaces) -> None:
    workspace = workspaces("2d")
    first = workspace.trainer(TEACHER, workspace.configure("before", num_epochs=1, **FROM_START))
    first.run_training()
    made = workspace.trainer(TEACHER, workspace.configure("after", num_epochs=1, seed=9, **FROM_START))
    made.initialize()
    load_pretrained_weights(made.network, str(Path(first.output_folder) / "checkpoint_final.pth"))
    loaded = [p.detach().clone() for p in made.network.parameters()]
    made.on_train_start()
    assert all(torch.equal(a, b) for a, b in zip(loaded, made.network.parameters(), strict=True))
    made.on_train_epoch_start()
    made.train_step(next(made.dataloader_train))
    for student, teacher in zip(made.network.parameters(), made.partners["teacher"].parameters(), strict=True):
        assert torch.equal(student, teacher)  # after the first step the teacher is the student


def test_each_network_is_clipped_by_itself(workspaces) -> None:
    workspace = workspaces("2d")
    made = workspace.trainer("LimitedCPSTrainer", workspace.configure("clip", **FROM_START))
    made.on_train_start()
    networks = (made.network, made.partners["second"])
    for scale, network in zip((1.0, 100.0), networks, strict=True):
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, scale)
    made._optimizer_step()
    for network in networks:
        norm = torch.stack([parameter.grad.norm() for parameter in network.parameters()]).norm()
        assert norm.item() == pytest.approx(12, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["LimitedCPSTrainer", "LimitedCrossTeachingTrainer"])
def test_second_networks_learn_from_the_labelled_crops(workspaces, trainer: str) -> None:
    workspace = workspaces("2d")
    made = workspace.trainer(trainer, workspace.configure("labelled", **FROM_START, consistency_weight=0.0))
    made.on_train_start()
    made.on_train_epoch_start()
    second = made.partners["second"]
    before = [parameter.detach().clone() for parameter in second.parameters()]
    made.train_step(next(made.dataloader_train))
    assert any(not torch.equal(a, b) for a, b in zip(before, second.parameters(), strict=True))


@pytest.mark.parametrize("variant", ["2d", "regions"])
def test_perfect_pseudo_labels_give_the_gradient_of_labels_on_every_head(workspaces, variant: str) -> None:
    """nnU-Net's loss has the same gradient, in 2D, where its Dice is that of the batch too."""
    workspace = workspaces(variant)
    made = workspace.trainer(TEACHER, workspace.configure("heads", **FROM_START))
    made.on_train_start()
    crops = made.crops(next(made.dataloader_train))
    target, valid = made.labels.encode_target(crops.full_label)
    output = made.network(crops.image)
    host = made.loss(output, crops.label)
    ours = made.pseudo_label_loss(output, target, valid, valid)
    finest = made.pseudo_label_loss(output, target, valid, valid, every_head=False)
    gradients = [
        torch.autograd.grad(loss, output, retain_graph=True, allow_unused=True) for loss in (host, ours, finest)
    ]
    for theirs, mine in zip(*gradients[:2], strict=True):
        if theirs is None:
            assert mine is None or not mine.any()
        else:
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-8)
    assert [gradient is not None and bool(gradient.any()) for gradient in gradients[2]] == [True, False, False]
