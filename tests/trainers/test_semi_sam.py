"""A mean teacher with a promptable model beside it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import FROM_START
from shapes import TINY_SAM

from nnunet_limited.errors import LimitedError
from nnunet_limited.prompters.prompter import ModelCard, find_prompter


@pytest.mark.parametrize("variant", ["2d", "3d", "regions"])
def test_prompts_come_from_the_teacher_and_weigh_less_and_less(workspaces, monkeypatch, variant: str) -> None:
    workspace = workspaces(variant)
    settings = {"num_iterations_per_epoch": 4}
    made = workspace.trainer("LimitedSemiSAMTrainer", workspace.configure("semi", **FROM_START, **settings))
    made.on_train_start()
    made.on_train_epoch_start()
    crops = made.crops(next(made.dataloader_train))
    disc = torch.zeros_like(crops.valid, dtype=torch.float32)
    spot = tuple(slice(size // 4, 3 * size // 4) for size in disc.shape[2:])
    disc[(slice(None), slice(None), *spot)] = 1
    channels = made.label_manager.num_segmentation_heads
    taught = torch.cat([disc, 0 * disc] if channels == 2 else [1 - disc, disc, 0 * disc], 1) * 0.98 + 0.01
    seen: list[np.ndarray] = []

    def answer(guess: np.ndarray, probability: np.ndarray) -> Any:
        asked = (guess > 0.5).any((2, 3), keepdims=True)
        return SimpleNamespace(probability=np.where(asked, probability, np.nan))

    def outline(prompter, image, guess, *_):
        seen.append(guess)
        return answer(guess, np.where(guess > 0.5, np.float32(0.7), np.float32(0.1)))

    monkeypatch.setattr("nnunet_limited.trainers.semi_supervised.semi_sam.outline", outline)
    target, counted = made.prompted(crops.weak, taught, crops.valid)
    assert len(seen) == len(crops.weak)
    assert all(guess.shape[1] <= 4 for guess in seen)
    first = made.labels.first_foreground
    inside = counted & (disc > 0)
    mine = 0.7 if made.labels.overlapping else 0.7 / 1.01  # beside what the teacher says of the other class
    assert inside.any()
    assert not (counted & ~crops.valid).any()
    assert torch.allclose(target[:, first : first + 1][inside], torch.tensor((mine + 0.99) / 2), atol=1e-5)
    assert torch.equal(target[~counted.expand_as(target)], taught[~counted.expand_as(target)])

    second = torch.zeros_like(disc)
    second[(slice(None), slice(None), *([slice(0, 2)] * (disc.ndim - 2)))] = 0.95  # too small to be asked about

    def first_only(prompter, image, guess, *_):
        probability = np.where(guess > 0.5, np.float32(0.7), np.float32(0.1))
        probability[1] = np.nan
        return SimpleNamespace(probability=probability)

    monkeypatch.setattr("nnunet_limited.trainers.semi_supervised.semi_sam.outline", first_only)
    both = torch.cat([disc, second] if channels == 2 else [(1 - disc - second).clamp(min=0), disc, second], 1)
    target, counted = made.prompted(crops.weak, both, crops.valid)
    small = counted & (second > 0)
    assert small.any()
    assert torch.allclose(target[:, -1:][small], second[small], atol=0.05)  # what the teacher says stands

    def elsewhere(prompter, image, guess, *_):
        return answer(guess, np.roll((guess > 0.5).astype(np.float32), guess.shape[-1] // 2, -1))

    monkeypatch.setattr("nnunet_limited.trainers.semi_supervised.semi_sam.outline", elsewhere)
    assert not made.prompted(crops.weak, taught, crops.valid)[1].any()  # it does not agree, and is not believed
    weights = []
    for made.iteration in range(8):
        weights.append(made.prompter_weight)
    assert weights[0] == 0.5
    assert weights == sorted(weights, reverse=True)
    assert made.prompter_weight < 0.02


def test_another_prompter_than_before_is_refused(workspaces, monkeypatch) -> None:
    workspace = workspaces("2d").activate("semi")
    nobody = workspace.configure("none", **{**FROM_START, "prompter": None})
    with pytest.raises(LimitedError, match="prompter=sam:FOLDER"):
        workspace.trainer("LimitedSemiSAMTrainer", nobody).on_train_start()
    plans = workspace.configure("named", **FROM_START)
    workspace.trainer("LimitedSemiSAMTrainer", plans).on_train_start()
    real = find_prompter(f"sam:{TINY_SAM}")
    real.about = ModelCard("other", hash="other")
    monkeypatch.setattr("nnunet_limited.trainers.semi_supervised.semi_sam.find_prompter", lambda *_: real)
    with pytest.raises(LimitedError, match="other prompter"):
        workspace.trainer("LimitedSemiSAMTrainer", plans).on_train_start()
    channel = workspace.configure("channel", **FROM_START, prompter_channel=1)
    with pytest.raises(LimitedError, match="prompter_channel=1"):
        workspace.trainer("LimitedSemiSAMTrainer", channel).on_train_start()
