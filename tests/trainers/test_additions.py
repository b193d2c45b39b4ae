"""What it takes to add a method or a loss for sparse labels: each is added here, and nothing else is changed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import DEVICE, FROM_START

from nnunet_limited.losses.label_space import LabelSpace
from nnunet_limited.losses.sparse import TERMS, sparse_term
from nnunet_limited.trainers import LimitedSparseTrainer
from nnunet_limited.trainers.sparse.scribbles import SparseConfig, with_term_weights

METHOD = '''"""A toy (Somebody et al., 2026)."""

from pydantic import Field

from nnunet_limited.data.crops import Crops, Unsupervised
from nnunet_limited.engine.settings import SemiSupervisedConfig
from nnunet_limited.engine.step import LimitedTrainer
from nnunet_limited.losses.consistency import masked_mean


class ToyConfig(SemiSupervisedConfig):
    """Settings of the toy."""

    toy_limit: float = Field(0.5, description="largest entropy of a voxel that is used")


class LimitedToyTrainer(LimitedTrainer):
    """Lowers the entropy of confident voxels."""

    Config = ToyConfig

    def unsupervised_loss(self, crops: Crops) -> Unsupervised:
        """Return the mean entropy of the confident voxels."""
        probability = self.probabilities(self.network(crops.strong))
        entropy = self.labels.entropy(probability)
        confident = crops.valid & (entropy < self.config.toy_limit)
        return Unsupervised(masked_mean(entropy, confident), probability.detach(), valid=confident)
'''
LISTED = """
import importlib, json, sys
import nnunet_limited.trainers as trainers
trainers.semi_supervised.__path__.append(sys.argv[1])
importlib.reload(trainers)
from nnunet_limited.trainers import catalogue
from nnunet_limited.runs.request import find_trainer
card = catalogue.describe("LimitedToyTrainer")
assert find_trainer("LimitedToyTrainer") is trainers.LimitedToyTrainer
print(json.dumps(card))
"""


@pytest.mark.slow
def test_a_method_is_one_module(tmp_path: Path) -> None:
    """It is listed, described and found; the contract's tests take every trainer that is listed."""
    (tmp_path / "toy.py").write_text(METHOD, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", LISTED, str(tmp_path)], capture_output=True, encoding="utf-8", check=True
    )
    card = json.loads(done.stdout.splitlines()[-1])
    assert card["paper"] == "A toy (Somebody et al., 2026)."
    assert card["settings"]["toy_limit"]["default"] == 0.5
    assert card["relative_time"] is None, "not measured yet"


def test_a_sparse_loss_is_one_function(workspaces, monkeypatch) -> None:
    """Its weight is a setting, and the loss takes part in a step if it has one."""
    asked = []

    def brightness(probability: torch.Tensor, image: torch.Tensor, labels: LabelSpace) -> torch.Tensor:
        asked.append(image.shape)
        return (labels.foreground(probability) * image).mean()

    monkeypatch.setitem(TERMS, "brightness", None)  # so that it is gone after the test
    sparse_term("brightness", "brightness of the foreground")(brightness)

    class Brightness(LimitedSparseTrainer):
        Config = with_term_weights(SparseConfig)

    field = Brightness.Config.model_fields["brightness_weight"]
    assert (field.default, field.description) == (0.0, "weight of the brightness of the foreground")
    workspace = workspaces("ignore")
    losses = []
    for weight in (0.0, 0.5):
        name = workspace.configure(f"bright-{weight}", **FROM_START, brightness_weight=weight)
        sample = workspace.trainer("LimitedSparseTrainer", name)
        plans = {**sample.plans_manager.plans, "continue_training": False}
        made = Brightness(plans, "2d", 0, sample.dataset_json, DEVICE)
        made.on_train_start()
        made.on_train_epoch_start()
        losses.append(float(made.train_step(next(made.dataloader_train))["loss"]))
    assert len(asked) == 1
    assert losses[0] != losses[1]
