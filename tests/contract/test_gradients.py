"""What the unsupervised loss reaches: the student, where it may, and nothing else."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from contract_runs import started
from helpers import weights
from trainer_sets import SEMI_SUPERVISED, TEACHERS

from nnunet_limited.util.random_state import seed_everything


@pytest.mark.parametrize("variant", ["2d", *(pytest.param(v, marks=pytest.mark.slow) for v in ("3d", "regions"))])
@pytest.mark.parametrize("trainer", SEMI_SUPERVISED)
def test_unsupervised_gradient_reaches_the_student_only(workspaces, trainer: str, variant: str) -> None:
    made = started(workspaces(variant), trainer, "gradient")
    result = made.train_step(next(made.dataloader_train))
    assert all(torch.isfinite(torch.as_tensor(value)).all() for value in result.values())
    made.optimizer.zero_grad(set_to_none=True)
    made.unsupervised_loss(made.crops(next(made.dataloader_train))).loss.backward()
    gradients = [p.grad for p in made.network.parameters() if p.grad is not None]
    assert any(gradient.abs().sum() > 0 for gradient in gradients)
    assert all(gradient.isfinite().all() for gradient in gradients)
    if trainer in TEACHERS:
        assert not any(p.requires_grad or p.grad is not None for p in made.partners["teacher"].parameters())
        assert not made.partners["teacher"].training


@pytest.mark.parametrize("trainer", SEMI_SUPERVISED)
def test_unsupervised_loss_changes_the_step(workspaces, trainer: str) -> None:
    after = []
    for weight in (1.0, 0.0):
        made = started(workspaces("2d"), trainer, f"weight{weight}", consistency_weight=weight)
        before = weights(made.network)
        made.train_step(next(made.dataloader_train))
        after.append((before, weights(made.network)))
    (before, with_it), (same, without) = after
    assert all(torch.equal(a, b) for a, b in zip(before, same, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(with_it, without, strict=True))


@pytest.mark.parametrize("trainer", TEACHERS)
def test_teacher_follows_its_closed_form(workspaces, trainer: str) -> None:
    made = started(workspaces("2d"), trainer, "ema", ema_decay=0.7)
    teacher = made.partners["teacher"]
    students = []
    for _ in range(10):
        made.train_step(next(made.dataloader_train))
        students.append(weights(made.network))
    expected = [torch.zeros_like(w, dtype=torch.float64) for w in students[0]]
    for step, student in enumerate(students):
        decay = min(1 - 1 / (step + 1), 0.7)
        expected = [decay * e + (1 - decay) * s.double() for e, s in zip(expected, student, strict=True)]
    for mean, parameter in zip(expected, teacher.parameters(), strict=True):
        torch.testing.assert_close(parameter.double(), mean, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(p, n) for p, n in zip(teacher.parameters(), students[-1], strict=True))
    state = teacher.state_dict()  # the decoder's encoder is the encoder: averaged once, whatever it is called
    for key in [key for key in state if key.startswith("encoder.")]:
        assert torch.equal(state[key], state[f"decoder.{key}"])


@pytest.mark.parametrize("trainer", SEMI_SUPERVISED)
def test_masked_voxels_have_no_influence(workspaces, trainer: str) -> None:
    made = started(workspaces("2d"), trainer, "mask")
    made.network.eval()
    made.loss = SimpleNamespace(loss=lambda output, target: output.sum())  # supervised losses have masks of their own
    crops = made.crops(next(made.dataloader_train))
    mask = torch.zeros_like(crops.valid)
    mask[..., 6:-6, 6:-6] = True  # as it was in turned and mirrored views
    label = torch.where(mask, crops.full_label, -1)  # nor is it annotated, where labelled crops are pasted
    recorded = []

    def spoil_outputs(module, inputs, output):
        heads = output if isinstance(output, (list, tuple)) else [output]
        if heads[0].shape[2:] != mask.shape[2:]:
            return output  # a discriminator's
        noise = torch.where(mask[: len(heads[0])].cpu(), 0.0, 50.0 * torch.randn(heads[0].shape, generator=generator))
        spoiled = heads[0] + noise.to(mask.device)
        spoiled.retain_grad() if spoiled.requires_grad else None
        recorded.append(spoiled)
        return [spoiled, *heads[1:]]

    networks = [getattr(network, "decoder", network) for network in made.networks.values()]
    hooks = [network.register_forward_hook(spoil_outputs) for network in networks]
    values = []
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        recorded.clear()
        made.optimizer.zero_grad(set_to_none=True)
        seed_everything(0)
        loss = made.unsupervised_loss(crops._replace(inside=mask, valid=mask, label=label)).loss
        loss.backward()
        values.append(loss.item())
        for output in recorded:
            if output.grad is not None:
                assert not output.grad[~mask.expand_as(output)].any()
                assert output.grad[mask.expand_as(output)].any()
    for hook in hooks:
        hook.remove()
    assert values[0] == values[1]
