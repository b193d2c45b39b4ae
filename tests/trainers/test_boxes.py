"""Boxes: where those of a crop are, what is refused, and what each term is worth."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import FROM_START, Workspace

from nnunet_limited.errors import LimitedError
from nnunet_limited.losses.boxes import uncut
from nnunet_limited.runs.variants import check_settings
from nnunet_limited.trainers import LimitedBoxTrainer


def started(workspace: Workspace, name: str, **settings):
    made = workspace.trainer("LimitedBoxTrainer", workspace.configure(name, **{**FROM_START, **settings}))
    made.on_train_start()
    made.on_train_epoch_start()
    return made


@pytest.mark.parametrize("variant", ["3d", "regions"])
def test_boxes_of_crops_are_those_of_the_objects(workspaces, variant: str) -> None:
    """They stay axis-aligned and tight: what is inside one is its projection along every axis."""
    made = started(workspaces(variant), "boxes")
    assert made.slices_of_volumes == (variant == "regions")
    assert set(made.unlabeled_loader.unlabeled._data.identifiers) == set(made.run.fold.train)
    seen = 0
    for _ in range(4):
        crops = made.crops(next(made.dataloader_train))
        bright = (crops.weak[:, 0] > 0.5) & crops.valid[:, 0]
        outer, inner = (boxes & crops.valid[:, 0] for boxes in made.boxes(crops.stored[:, 0]))
        assert not (inner & ~outer).any(), "the core's box lies in the disc's"
        for image, box in zip(bright, outer, strict=True):
            if box.any():
                spatial = range(box.ndim)
                profiles = [box.float().amax([a for a in spatial if a != axis]) for axis in spatial]
                hull = profiles[0].reshape(-1, *[1] * (box.ndim - 1))
                for axis, profile in enumerate(profiles):
                    hull = hull * profile.reshape([-1 if a == axis else 1 for a in spatial])
                assert torch.equal(hull.bool(), box)
                assert image[box].float().mean() > image[~box].float().mean()
                seen += 1
    assert seen > 3


def test_a_case_without_boxes_is_refused(workspaces) -> None:
    from nnunet_limited.planners.preprocessing import box_folder

    workspace = workspaces("2d")
    made = workspace.trainer("LimitedBoxTrainer", workspace.configure("unboxed", **FROM_START))
    file = box_folder(made.run.labeled_folder) / f"{made.run.fold.train[0]}.b2nd"
    hidden = file.rename(file.with_suffix(".gone"))
    with pytest.raises(LimitedError, match=r"no boxes of case .*sparsify --kind boxes"):
        made.check_unlabeled(made.run, made.config)
    hidden.rename(file)
    made.check_unlabeled(made.run, made.config)


@pytest.mark.parametrize("variant", ["3d", "regions"])
def test_the_terms_of_boxes_count_by_their_weights(workspaces, variant: str) -> None:
    """Projections and tightness say nothing of single slices of volumes."""
    workspace = workspaces(variant)
    made = started(workspace, "weights", min_filled_fraction=0.98, max_filled_fraction=0.99)
    made.network.eval()
    batches = (made.crops(next(made.dataloader_train)) for _ in range(20))
    crops = next(
        c for c in batches if made.slices_of_volumes or any(uncut(b).any() for b in made.boxes(c.stored[:, 0]))
    )
    terms = ("projection_weight", "affinity_weight", "tightness_weight", "size_weight")
    values = {}
    for term in (*terms, None):
        off = dict.fromkeys(terms, 0.0)
        made.config = made.config.model_copy(update=off | ({term: 1.0} if term else {}))
        values[term] = made.unsupervised_loss(crops).loss.item()
    silent = {"projection_weight", "tightness_weight"} if variant == "regions" else set()
    assert {term for term in terms if values[term] == values[None]} == silent
    assert len(set(values.values())) == len(values) - len(silent)


def test_how_much_of_a_box_is_filled(workspaces) -> None:
    """An object fills more of its box in an image than in a volume, of which crops may be slices."""
    workspace = workspaces("2d")
    plans = json.loads((workspace.preprocessed / f"{workspace.plans}.json").read_text(encoding="utf-8"))

    def filled(depth: int, **settings: float) -> tuple[float, float]:
        shape = [depth, *plans["original_median_shape_after_transp"][1:]]
        limited = {**plans["limited"], "settings": settings}
        plans_of_shape = {**plans, "original_median_shape_after_transp": shape, "limited": limited}
        config = LimitedBoxTrainer.resolve_config(plans_of_shape)
        return config.min_filled_fraction, config.max_filled_fraction

    assert filled(8) == (0.3, 0.6)
    assert filled(8, min_filled_fraction=0.1, max_filled_fraction=0.2) == (0.1, 0.2)
    assert filled(1) == (0.5, 0.9)
    assert filled(1, min_filled_fraction=0.7) == (0.7, 0.9)
    with pytest.raises(LimitedError, match=r"min_filled_fraction=0.7 is above max_filled_fraction=0.6"):
        workspace.configure("wrong", min_filled_fraction=0.7)
    check_settings({"limited": {"settings": {"min_filled_fraction": 0.7}}})  # of plans that are not there yet
