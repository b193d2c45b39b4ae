"""Labels of annotated slices, carried to the others, and the trainer that learns them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import FROM_START, Workspace, assert_same, losses, segmentation_reference
from torch.nn import functional

from nnunet_limited.data.propagated import ChannelStack
from nnunet_limited.engine.checkpoint import KEY

IGNORE = 3
TRAINER = "LimitedSlicePropagationTrainer"


def started(workspace: Workspace, name: str = "started", **config):
    made = workspace.trainer(TRAINER, workspace.configure(name, **{**FROM_START, **config}))
    made.on_train_start()
    made.on_train_epoch_start()
    return made, made.crops(next(made.dataloader_train))


def test_weights_are_moved_like_the_image(workspaces, monkeypatch) -> None:
    """Were the image its own weight, the weight would be the weak view."""
    made, _ = started(workspaces("planes"))
    dataset = made.unlabeled_loader.unlabeled._data
    load = dataset.load_case

    def own_weight(case: str):
        data, *others = load(case)
        return (ChannelStack(data.parts[0], *[data.parts[0]] * 3), *others)

    monkeypatch.setattr(dataset, "load_case", own_weight)
    for _ in range(4):
        crops = made.crops(next(made.dataloader_train))
        assert crops.further.shape[1] == 3
        assert torch.equal(crops.further, crops.weak.expand_as(crops.further))
        assert not torch.equal(crops.strong, crops.weak)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["planes", "planes_2d", "planes_regions"])
@pytest.mark.parametrize("networks", [2, 3])
def test_each_network_learns_what_all_but_one_plane_tell(workspaces, monkeypatch, variant: str, networks: int) -> None:
    made, crops = started(workspaces(variant), f"loss{networks}", networks=networks, cross_weight=0.3)
    monkeypatch.setattr(type(made), "entropy_limit", 0.97)  # because networks without training are uncertain everywhere
    regions = variant == "planes_regions"
    axes = {"planes": [0, 1, 2], "planes_2d": [0, 1], "planes_regions": [0, 2]}[variant]
    torch.manual_seed(0)
    mask = crops.valid & (torch.rand(crops.valid.shape) > 0.2)
    shape = (*crops.valid.shape[:1], 3, *crops.valid.shape[2:])
    crops = crops._replace(valid=mask, stored=torch.randint(-1, 3, shape), further=torch.rand(shape))
    nets = [made.network, *made.partners.values()]
    assert len(nets) == networks
    for network in nets:
        network.eval()
    logits = [network(crops.strong)[0] for network in nets]
    p = [torch.sigmoid(x) if regions else torch.softmax(x, 1) for x in logits]
    expected = torch.zeros(())
    for k, output in enumerate(logits):
        seen = [axis for n, axis in enumerate(reversed(axes)) if n != k]
        weight, best = crops.further[:, seen].max(1, keepdim=True)
        label = torch.stack([crops.stored[:, a] for a in seen], 1).gather(1, best)
        weight = torch.where((label >= 0) & mask, weight, 0)
        if regions:
            target = torch.cat([label > 0, label == 2], 1).float()
        else:
            target = functional.one_hot(label[:, 0].clamp(min=0), 3).movedim(-1, 1).float()
        expected = expected + segmentation_reference(output, target, weight, int(mask.sum()), regions)
        for j in range(networks):
            if j == k:
                continue
            if regions:
                hard = (p[j] > 0.5).float()
                entropy = -(p[j] * p[j].log() + (1 - p[j]) * (1 - p[j]).log()).mean(1, keepdim=True) / np.log(2)
                ce = functional.binary_cross_entropy_with_logits(output, hard, reduction="none").mean(1, keepdim=True)
            else:
                entropy = -(p[j] * p[j].log()).sum(1, keepdim=True) / np.log(3)
                ce = functional.cross_entropy(output, p[j].argmax(1), reduction="none")[:, None]
            expected = expected + 0.3 * ce[mask & (entropy < 0.97)].sum() / mask.sum()
    found = made.unsupervised_loss(crops)
    torch.testing.assert_close(found.loss, expected, rtol=1e-4, atol=1e-5)
    changed = crops._replace(stored=torch.where(mask, crops.stored, 2), further=torch.where(mask, crops.further, 9.0))
    assert torch.equal(made.unsupervised_loss(changed).loss, found.loss)


def test_early_uncertain_labels_of_others_do_not_count(workspaces, monkeypatch) -> None:
    """A prediction of 0.7, 0.3 and 0 has 0.881 of the entropy of two equally likely classes."""
    made, crops = started(workspaces("planes_2d"), "uncertain", cross_weight=0.3)
    crops = crops._replace(further=torch.zeros_like(crops.further))
    logits = torch.log(torch.tensor([0.7, 0.3, 1e-9])).reshape(1, 3, 1, 1).expand(len(crops.strong), 3, 32, 32)
    monkeypatch.setattr(made, "full_resolution", lambda output: logits)
    losses = []
    for made.iteration in (0, 5):  # of 6
        losses.append(float(made.unsupervised_loss(crops).loss))
    # Nothing is propagated, the Dice of nothing is 0, and each of two networks learns the other's label.
    assert losses[1] - losses[0] == pytest.approx(2 * 0.3 * -np.log(0.7), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["planes", "planes_2d"])
def test_resumed_equals_never_stopped(workspaces, variant: str) -> None:
    def train(results: str, stop: int | None):
        workspace = workspaces(variant).activate(results)
        config = {**FROM_START, "networks": 3, "num_epochs": 2, "save_every": 1}
        plans = workspace.configure("resume", **config)
        made = workspace.trainer(TRAINER, plans)
        if stop is not None:
            made.on_train_start()
            for _ in range(stop):
                made.on_epoch_start()
                made.on_train_epoch_start()
                made.on_train_epoch_end([made.train_step(next(made.dataloader_train)) for _ in range(3)])
                with torch.no_grad():
                    made.on_validation_epoch_start()
                    made.on_validation_epoch_end([made.validation_step(next(made.dataloader_val))])
                made.on_epoch_end()
            made = workspace.trainer(TRAINER, plans, resume=True)
        made.run_training()
        return made, torch.load(Path(made.output_folder) / "checkpoint_final.pth", weights_only=False)

    (first, one), (second, two) = train("whole_planes", None), train("stopped_planes", 1)
    assert losses(first) == losses(second)
    assert one[KEY]["networks"].keys() == {"second", "third"}
    assert_same(one["network_weights"], two["network_weights"])
    assert_same(one[KEY]["networks"], two[KEY]["networks"])
