"""What a GPU would take: mixed precision with a gradient scaler, and compiled networks, on the CPU."""

from __future__ import annotations

import functools

import pytest
import torch
from helpers import FROM_START, losses, weights
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_limited.trainers import LimitedTrainer
from nnunet_limited.trainers.catalogue import learns_without_label, trainer_names

SEMI_SUPERVISED = [name for name in trainer_names() if learns_without_label(name)]
COMPILE = torch.compile
COMPILED = [
    "LimitedMeanTeacherTrainer",
    "LimitedCrossPseudoSupervisionTrainer",
    "LimitedCrossConsistencyTrainer",
    "LimitedUniMatchTrainer",
]


def one_step(workspace, trainer: str, scaled: bool) -> tuple[dict, list[torch.Tensor]]:
    made = workspace.trainer(trainer, workspace.configure("amp", **FROM_START, optimizer="sgd"))
    made.on_train_start()
    made.on_train_epoch_start()
    before = weights(made.network)
    if scaled:
        made.grad_scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    result = made.train_step(next(made.dataloader_train))
    return result, [after - b for after, b in zip(weights(made.network), before, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("trainer", SEMI_SUPERVISED)
def test_mixed_precision_does_the_same_step(workspaces, monkeypatch: pytest.MonkeyPatch, trainer: str) -> None:
    exact, exact_change = one_step(workspaces("2d"), trainer, scaled=False)
    monkeypatch.setattr(
        LimitedTrainer,
        "_autocast",
        lambda self, cache=True: torch.autocast("cpu", torch.bfloat16, cache_enabled=cache),
    )
    mixed, mixed_change = one_step(workspaces("2d"), trainer, scaled=True)
    for key in ("supervised_losses", "unsupervised_losses"):
        assert mixed[key] == pytest.approx(exact[key], rel=0.1, abs=0.02)
        assert mixed[key] != exact[key]  # or nothing was mixed
    one, other = (torch.cat([change.flatten() for change in changes]) for changes in (exact_change, mixed_change))
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) > 0.8
    assert other.norm() == pytest.approx(one.norm().item(), rel=0.2)


@pytest.mark.slow
def test_gradients_through_compiled_networks(workspaces, monkeypatch: pytest.MonkeyPatch) -> None:
    """More unlabelled crops than labelled ones, for which the network is compiled anew."""
    workspace = workspaces("2d")
    found = []
    for compiled in (False, True):
        monkeypatch.setattr(nnUNetTrainer, "_do_i_compile", lambda self, compiled=compiled: compiled)
        monkeypatch.setattr(torch, "compile", functools.partial(COMPILE, backend="aot_eager"))
        plans = workspace.configure("aot", **FROM_START, unlabeled_batch_size=7)
        made = workspace.activate(f"aot_{compiled}").trainer("LimitedDeepCoTrainingTrainer", plans)
        made.on_train_start()
        made.on_train_epoch_start()
        assert hasattr(made.network, "_orig_mod") == compiled
        found.append([made.train_step(next(made.dataloader_train))["loss"] for _ in range(3)])
    assert found[1] == pytest.approx(found[0], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", COMPILED)
def test_compiled_networks_train_the_same_and_resume(workspaces, monkeypatch: pytest.MonkeyPatch, trainer: str) -> None:
    workspace = workspaces("2d")
    plans = workspace.configure("compile", **FROM_START, num_epochs=1)
    plain = workspace.activate("eager").trainer(trainer, plans)
    plain.run_training()

    monkeypatch.setattr(nnUNetTrainer, "_do_i_compile", lambda self: True)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    workspace.activate("compiled")
    made = workspace.trainer(trainer, plans)
    made.run_training()
    compiled = {"student": made.network, **made.partners}
    for name, network in compiled.items():
        assert hasattr(network, "_orig_mod") == (name != "teacher")
    assert losses(made)["train_losses"] == pytest.approx(losses(plain)["train_losses"], rel=1e-3)
    again = workspace.trainer(trainer, plans, resume=True)
    for name, network in made.networks.items():
        for a, b in zip(weights(network), weights(again.networks[name]), strict=True):
            assert torch.equal(a, b)
