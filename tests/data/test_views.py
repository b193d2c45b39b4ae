"""Views of an unlabelled crop: one geometry, several intensities."""

from __future__ import annotations

import torch
from helpers import FROM_START
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_limited.data.views import Views

TEACHER = "LimitedMeanTeacherTrainer"


def test_views_share_geometry_and_differ_in_intensity(workspaces) -> None:
    workspace = workspaces("2d")
    made = workspace.trainer(TEACHER, workspace.configure("views", **FROM_START, strong_view="default"))
    made.on_train_start()
    batch = [next(made.dataloader_train)["unlabeled"] for _ in range(4)]
    weak, strong = torch.cat([b["data"] for b in batch]).chunk(2, dim=1)
    assert set(batch[0]["target"].unique().tolist()) <= {-1, 0}
    assert not torch.equal(weak, strong)
    for w, s in zip(weak, strong, strict=True):
        assert abs(torch.corrcoef(torch.stack([w.flatten(), s.flatten()]))[0, 1]) > 0.5


def test_strong_views_are_made_of_the_weak_ones_where_the_trainer_is(workspaces) -> None:
    workspace = workspaces("two_channels")
    made = workspace.trainer("LimitedUniMatchTrainer", workspace.configure("strong", **FROM_START))
    made.on_train_start()
    batch = next(made.dataloader_train)
    crops = made.crops(batch)
    assert batch["unlabeled"]["data"].shape == crops.weak.shape
    assert len(crops.views) == 2
    for one, other in ((crops.weak, crops.views[0]), (crops.weak, crops.views[1]), crops.views):
        assert one.shape == other.shape
        assert (one != other).flatten(1).any(1).all()
    assert set(made.device_views.transfer.rows) == {*made.run.fold.train, *made.run.fold.unlabeled}


def test_both_views_are_blank_outside_a_masked_image() -> None:
    pipeline = nnUNetTrainer.get_training_transforms(
        (16, 16), (-0.1, 0.1), None, (0, 1), False, use_mask_for_norm=[True]
    )
    views = Views(pipeline)
    for _ in range(20):
        segmentation = torch.zeros(1, 24, 24, dtype=torch.int16)
        segmentation[:, :, 12:] = -1
        out = views(image=torch.full((1, 24, 24), 5.0) + torch.rand(1, 24, 24), segmentation=segmentation)
        inside = out["segmentation"] >= 0
        assert inside.any()
        assert not out["image"][~inside.expand(2, -1, -1)].any()
