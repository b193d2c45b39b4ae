"""A started trainer and crops of its first batch."""

from __future__ import annotations

import pytest
import torch
from helpers import FROM_START


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
