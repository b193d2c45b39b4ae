"""Bidirectional copy-paste: what is mixed, what has weight, and the rule for components."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional


@pytest.mark.parametrize("variant", ["2d", "regions", "ignore"])
def test_copy_paste_mixes_voxel_by_voxel(start, monkeypatch, variant: str) -> None:
    made, crops = start("LimitedBidirectionalCopyPasteTrainer", variant, components="all")
    seen = []
    module = "nnunet_limited.trainers.semi_supervised.bcp"
    monkeypatch.setattr(f"{module}.segmentation_loss", lambda z, *rest: seen.append(rest) or z.mean())
    box = torch.zeros(crops.valid.shape[2:], dtype=torch.bool)
    box[3:20, 5:30] = True
    monkeypatch.setattr(f"{module}.fixed_box", lambda shape, side, device: box)
    images = []
    hook = made.network.register_forward_hook(lambda module, inputs, output: images.append(inputs[0]))
    p = made.teach(crops.weak)
    made.unsupervised_loss(crops)
    hook.remove()
    ignore = made.label_manager.ignore_label
    assert len(images) == len(seen) == 2
    for (target, weight, mask, _), image, inside_box in zip(seen, images, (True, False), strict=True):
        assert torch.equal(mask, crops.valid | (box == inside_box))
        for _ in range(60):
            b, y, x = np.random.randint(len(p)), np.random.randint(p.shape[2]), np.random.randint(p.shape[3])
            label = crops.full_label[b, :, y, x]
            if bool(box[y, x]) == inside_box:
                assert torch.equal(image[b, :, y, x], crops.image[b, :, y, x])
                counts = 0.0 if ignore is not None and label == ignore else 1.0
                if counts:
                    expected = label if variant == "regions" else functional.one_hot(label.long(), 3)[0]
                    assert torch.equal(target[b, :, y, x], expected.float())
            else:
                assert torch.equal(image[b, :, y, x], crops.strong[b, :, y, x])
                counts = 0.5 * crops.valid[b, 0, y, x]
                if counts:
                    hard = (p > 0.5) if variant == "regions" else functional.one_hot(p.argmax(1), 3).movedim(-1, 1)
                    assert torch.equal(target[b, :, y, x], hard[b, :, y, x].float())
            assert weight[b, 0, y, x] == counts


@pytest.mark.parametrize("variant", ["2d", "3d", "regions"])
def test_copy_paste_gives_islands_no_weight(start, monkeypatch, variant: str) -> None:
    """The labelled cases have one disc with one core; a correct pseudo-label keeps its weight everywhere."""
    made, crops = start("LimitedBidirectionalCopyPasteTrainer", variant)
    assert made.rule.single == {1, 2}
    crops = crops._replace(inside=torch.ones_like(crops.inside), valid=torch.ones_like(crops.valid))
    label = torch.zeros(crops.valid.shape, dtype=torch.long)
    label[..., 5:15, 5:15] = 1
    label[..., 8:12, 8:12] = 2
    stray = label.clone()
    stray[(..., *[slice(3, 5)] * (label.ndim - 4), slice(20, 22), slice(20, 22))] = 2
    seen = []
    module = "nnunet_limited.trainers.semi_supervised.bcp"
    monkeypatch.setattr(f"{module}.segmentation_loss", lambda z, target, weight, *rest: seen.append(weight) or z.mean())
    for pseudo in (label, stray):
        probability = made.labels.encode(pseudo, None)[0]
        monkeypatch.setattr(made, "teach", lambda image, p=probability: p)
        found = made.unsupervised_loss(crops)
        island = pseudo != label
        assert torch.equal(found.valid, ~island)
        for weight in seen[-2:]:
            assert (weight[~island] > 0).all()
            assert set(weight[island].unique().tolist()) <= {0.0, 1.0}  # 1 where a label is pasted over it
    assert any((weight[island] == 0).any() for weight in seen[-2:])


def test_a_continued_run_keeps_its_rule_for_components(start, tmp_path: Path, monkeypatch) -> None:
    """Whatever has become of the labels that it was decided by; they are not read again."""
    made, _ = start("LimitedBidirectionalCopyPasteTrainer")
    assert made.rule.single == {1, 2}
    made.is_single[0] = False
    made.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    again, _ = start("LimitedBidirectionalCopyPasteTrainer")
    assert again.rule.single == {1, 2}
    again.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    monkeypatch.setattr(again, "decide", None)
    again.on_train_start()
    assert again.rule.single == {2}
