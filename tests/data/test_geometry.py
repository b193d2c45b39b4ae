"""Turned, mirrored and mixed crops, and what belongs to their voxels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import FROM_START

from nnunet_limited.data.geometry import Move, StudentView, draw_moves, move, square_planes
from nnunet_limited.errors import LimitedError


def test_planes_need_equal_edges_and_equal_spacing() -> None:
    assert square_planes((32, 32), (1.0, 1.0)) == [(0, 1)]
    assert square_planes((32, 40), (1.0, 1.0)) == []
    assert square_planes((32, 32, 32), (1.0, 1.05, 1.0)) == [(1, 2), (0, 2), (0, 1)]
    assert square_planes((32, 32, 32), (3.0, 1.0, 1.0)) == [(1, 2)]


def test_a_move_is_a_quarter_turn_and_mirror_images() -> None:
    crop = torch.tensor([[0, 1], [2, 3]])[None, None]
    moves = [Move(turns=1), Move(flips=(1,)), Move(turns=2, flips=(0,))]
    assert [move(crop, [each])[0, 0].tolist() for each in moves] == [
        [[1, 3], [0, 2]],
        [[1, 0], [3, 2]],
        [[1, 0], [3, 2]],
    ]


def test_every_move_of_a_square_is_drawn() -> None:
    crop = torch.arange(4).reshape(1, 1, 2, 2).expand(200, -1, -1, -1)
    np.random.seed(0)
    found = {tuple(moved.flatten().tolist()) for moved in move(crop, draw_moves(200, [(0, 1)], [0, 1]))}
    assert len(found) == 8
    assert draw_moves(2, (), ()) == [Move(), Move()]


@pytest.mark.parametrize("shape", [(12, 12), (6, 8, 8)])
def test_values_stay_together(shape: tuple[int, ...]) -> None:
    """What is computed voxel by voxel is the same before and after."""
    image = torch.randn(5, 2, *shape)
    view = StudentView("both", True, square_planes(shape, (1.0,) * len(shape)), range(len(shape)))
    np.random.seed(0)
    moved, label, valid = view(image, image[:, :1] > 0, image.sum(1, keepdim=True) > 0.5)
    assert not torch.equal(moved, image)
    assert moved.is_contiguous()
    assert torch.equal(label, moved[:, :1] > 0)
    assert torch.equal(valid, moved.sum(1, keepdim=True) > 0.5)


def test_without_settings_crops_stay_as_they_are() -> None:
    image = torch.randn(2, 1, 4, 4)
    view = StudentView("none", False, [(0, 1)], [0, 1])
    before = np.random.get_state()[1].tolist()
    assert view(image)[0] is image
    assert not view.changes_crops
    assert np.random.get_state()[1].tolist() == before


class ByThreshold(torch.nn.Module):
    """A network that looks at one voxel at a time: equivariant, and certain."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(50.0))

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [-self.scale * (image[:, :1] - torch.tensor([-1.0, 0.0, 1.0])[:, None, None]) ** 2]


class ImageAlone(StudentView):
    """A broken view, whose target stays where it was."""

    def __call__(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (*super().__call__(values[0]), *values[1:])


@pytest.mark.parametrize(
    "trainer",
    ["LimitedMeanTeacherTrainer", "LimitedTeacherMatchTrainer", "LimitedCrossPseudoSupervisionTrainer"],
)
def test_an_equivariant_network_agrees_with_itself(workspaces, trainer: str) -> None:
    workspace = workspaces("2d")
    settings = {"geometric_view": "both", "cutmix": True, "confidence_threshold": 0.0}
    made = workspace.trainer(trainer, workspace.configure("equivariant", **FROM_START, **settings))
    made.on_train_start()
    made.network = ByThreshold()
    made.partners = {name: made.network for name in made.partners}
    crops = made.crops(next(made.dataloader_train))
    voxels = torch.randint(0, 3, crops.weak.shape) - 1.0
    crops = crops._replace(weak=voxels, views=(voxels,))
    valid = torch.rand(crops.valid.shape) > 0.3
    loss = made.unsupervised_loss(crops._replace(valid=valid)).loss
    assert loss.item() == pytest.approx(0, abs=1e-4)
    made.student_view = ImageAlone("rot90", False, [(0, 1)])
    np.random.seed(1)
    assert made.unsupervised_loss(crops).loss > 0.1


def test_crops_that_cannot_be_turned_are_refused(workspaces) -> None:
    workspace = workspaces("2d")
    made = workspace.trainer("LimitedMeanTeacherTrainer", workspace.configure("turned", geometric_view="rot90"))
    configuration = {**made.run.planned.configuration("2d"), "patch_size": [16, 32]}
    with pytest.raises(LimitedError, match="geometric_view=flip"):
        made.refuse_unsuitable(configuration, made.config)
    made.refuse_unsuitable(configuration, made.config.model_copy(update={"geometric_view": "both"}))
