"""What transforms of the user's own do to the views."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform, SegOnlyTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import OneOfTransform, RandomTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerDA5 import nnUNetTrainerDA5

from nnunet_limited.data.probe import effect
from nnunet_limited.data.views import Views
from nnunet_limited.errors import LimitedError


class Invert(ImageOnlyTransform):
    def _apply_to_image(self, img: torch.Tensor, **params: Any) -> torch.Tensor:
        return -img


class Relabel(SegOnlyTransform):
    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params: Any) -> torch.Tensor:
        return segmentation + 1


class Shift(BasicTransform):
    """Move everything along the last axis, sometimes."""

    def __init__(self, probability: float = 1.0) -> None:
        super().__init__()
        self.probability = probability

    def get_parameters(self, **data_dict: Any) -> dict[str, Any]:
        return {"by": 3 * int(np.random.uniform() < self.probability)}

    def _apply_to_image(self, img: torch.Tensor, by: int = 0, **params: Any) -> torch.Tensor:
        return img.roll(by, -1)

    _apply_to_segmentation = _apply_to_image


class OfItsOwnSize(ImageOnlyTransform):
    def _apply_to_image(self, img: torch.Tensor, **params: Any) -> torch.Tensor:
        return img * torch.linspace(1, 2, 24)


class Broken(ImageOnlyTransform):
    def _apply_to_image(self, img: torch.Tensor, **params: Any) -> torch.Tensor:
        raise RuntimeError("out of order")


class Pipeline:
    def __init__(self, *transforms: Any) -> None:
        self.transforms = list(transforms)


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (Invert(), "intensity"),
        (Relabel(), "label"),
        (Shift(), "geometric"),
        (Shift(0.5), "geometric"),
        (OfItsOwnSize(), "intensity"),
        (RandomTransform(Shift(), 1e-6), "geometric"),
        (OneOfTransform([RandomTransform(Invert(), 0.1), GammaTransform((0.7, 1.5), 0, True, 1, 1)]), "intensity"),
        (ComposeTransforms([Invert(), RandomTransform(MirrorTransform((0,)), 0.1)]), "geometric"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.parametrize("shape", [(20, 24), (8, 20, 24)])
def test_effects_are_found_by_trial(transform, expected: str, shape: tuple[int, ...]) -> None:
    state = np.random.get_state()[1].tolist()
    assert effect(transform, 2, shape) == expected
    assert np.random.get_state()[1].tolist() == state


def crop(edge: int = 24) -> dict[str, torch.Tensor]:
    return {"image": torch.rand(1, edge, edge) + 1, "segmentation": torch.zeros(1, edge, edge, dtype=torch.int16)}


def test_the_user_s_own_transforms_make_strong_views_or_move_all_views() -> None:
    views = Views(Pipeline(Invert(), RandomTransform(Shift(), 1.0)), patch_size=(24, 24))
    data = crop()
    weak, strong = views(**{key: value.clone() for key, value in data.items()})["image"]
    assert torch.equal(weak, data["image"][0].roll(3, -1))
    assert torch.equal(strong, -weak)


def test_nnunet_s_own_intensities_can_be_left_out() -> None:
    own = GammaTransform((0.7, 0.71), 0, True, 1, 1)
    assert Views(Pipeline(own), 2, of_host=False).strong == 0
    views = Views(Pipeline(own, Invert()), 2, of_host=False, patch_size=(24, 24))
    weak, *strong = views(**crop())["image"]
    assert len(strong) == 2
    assert all(torch.equal(view, -weak) for view in strong)


def test_voxels_that_move_once_in_a_while_are_noticed() -> None:
    views = Views(Pipeline(Shift(0.001)), patch_size=(24, 24))
    views.intensity[0].probability = 1.0
    data = crop()
    data["segmentation"][..., 12:] = -1
    with pytest.raises(LimitedError, match="Shift moved voxels"):
        views(**data)


def test_moves_inside_of_the_image_are_noticed() -> None:
    """The mask is the same everywhere."""
    views = Views(Pipeline(Shift(0.001)), patch_size=(24, 24))
    views(**crop())
    views.intensity[0].probability = 1.0
    with pytest.raises(LimitedError, match="Shift moved voxels"):
        views(**crop())


def test_what_fails_is_refused_with_its_name() -> None:
    with pytest.raises(LimitedError, match=r"Broken fails.*out of order"):
        Views(Pipeline(Broken()))


@pytest.mark.parametrize("shape", [(64, 64), (24, 32, 32), (6, 40, 40)])
def test_nnunet_s_larger_augmentation_is_sorted(shape: tuple[int, ...]) -> None:
    flat = len(shape) == 3 and shape[0] < 10
    pipeline = nnUNetTrainerDA5.get_training_transforms(
        shape, (-0.1, 0.1), None, tuple(range(len(shape))), flat, [False]
    )
    views = Views(pipeline, patch_size=shape)
    names = {kind: str(getattr(views, kind)) for kind in ("geometric", "intensity")}
    assert all(name in names["geometric"] for name in ("SpatialTransform", "Rot90", "MirrorTransform"))
    assert all(name in names["intensity"] for name in ("MedianFilter", "LocalGamma", "BlankRectangle", "Sharpening"))
    assert "Rot90" not in names["intensity"]
    out = views(image=torch.rand(1, *shape), segmentation=torch.zeros(1, *shape, dtype=torch.int16))
    assert out["image"].shape == (2, *shape)


def test_nothing_is_tried_of_nnunet_s_own_pipeline(monkeypatch) -> None:
    monkeypatch.setattr("nnunet_limited.data.probe._tried", lambda *arguments: pytest.fail("tried"))
    pipeline = nnUNetTrainer.get_training_transforms((16, 16), (-0.1, 0.1), None, (0, 1), False, [True], ignore_label=3)
    views = Views(pipeline)
    assert len(views.geometric) == 2
    assert len(views.intensity) == 7
    assert len(views.masking) == 1
