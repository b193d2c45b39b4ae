"""Promptable models: prompts end up where they point, in slices of any shape; weights that are not safe are refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from shapes import TINY_SAM, Malicious, ellipsoid, overlap, seen

from nnunet_limited.errors import LimitedError
from nnunet_limited.prompters.outlining import iou, outline
from nnunet_limited.prompters.prompter import ModelCard, Prompter, find_prompter
from nnunet_limited.prompters.prompts import (
    PromptSettings,
    centre,
    jittered,
    keep_components,
    mask_logits,
    objects,
    tight_box,
    to_unit,
)
from nnunet_limited.testing import check_prompter

SHAPES = [(64, 64), (96, 64), (51, 83), (200, 131), (33, 24)]


@pytest.fixture(scope="module")
def tiny() -> Prompter:
    return find_prompter(f"sam:{TINY_SAM}")


def scene(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return an image and the mask of a slanting ellipse off its middle."""
    rows, columns = shape
    mask = ellipsoid(shape, (0.25 * rows, 0.7 * columns), (0.12 * rows, 0.22 * columns))
    return seen(mask), mask


@pytest.mark.parametrize("shape", SHAPES)
def test_a_box_outlines_what_is_in_it(tiny: Prompter, shape: tuple[int, int]) -> None:
    image, mask = scene(shape)
    embedding, box = tiny.embed(image), tight_box(mask)
    (probability,), (score,) = tiny.predict(embedding, boxes=box[None])
    assert probability.shape == shape
    assert 0 <= probability.min() <= probability.max() <= 1
    assert np.isfinite(score)
    assert overlap(probability > 0.5, mask) > 0.8
    turned = np.sort(box[:, ::-1].clip(0, np.array(shape)), axis=0)
    away = box + np.array([shape[0] - box[1, 0], -box[0, 1]])  # as far to the lower left as it goes
    for wrong, most in ((turned, 0.5), (away, 0.1)):
        assert overlap(tiny.predict(embedding, boxes=wrong[None])[0][0] > 0.5, mask) < most


def test_built_in_prompters_keep_to_the_rules(tiny: Prompter) -> None:
    check_prompter(tiny)


def test_points_and_masks_outline_too_and_prompts_are_answered_one_by_one(tiny: Prompter) -> None:
    image, mask = scene((64, 64))
    image = image - 0.25 * mask.T  # another object, where a prompt with its axes swapped points at
    embedding = tiny.embed(image)
    inside = tiny.predict(embedding, points=centre(mask)[None, None], labels=np.ones((1, 1)))[0][0] > 0.5
    turned = tiny.predict(embedding, points=centre(mask)[None, None, ::-1], labels=np.ones((1, 1)))[0][0] > 0.5
    assert overlap(inside, mask) > 0.7 > 0.5 > overlap(turned, mask)
    rough = mask_logits(np.roll(mask, 2, 0))
    assert overlap(tiny.predict(embedding, mask_logits=rough[None])[0][0] > 0.5, mask) > 0.7
    box = tight_box(mask)
    boxes = np.stack([box, np.array([[0, 0], [9, 9]]), box])
    many, scores = tiny.predict(embedding, boxes=boxes, mask_logits=np.repeat(rough[None], 3, 0))
    assert many.shape == (3, 64, 64)
    assert scores.shape == (3,)
    alone = tiny.predict(embedding, boxes=boxes[1:2], mask_logits=rough[None])[0]
    np.testing.assert_allclose(many[1], alone[0], atol=1e-4)
    np.testing.assert_allclose(many[0], many[2], atol=1e-4)
    assert not np.allclose(many[0], many[1], atol=0.1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_across_every_axis(tiny: Prompter, axis: int) -> None:
    """Also where slices are thick, sizes odd, and there are two classes."""
    shape, spacing = [61, 67, 71], [1.0, 1.0, 1.0]
    shape[axis], spacing[axis] = 9, 6.0
    size = np.array(shape)
    places = [np.where(np.arange(3) == axis, 0.5, side) * size for side in (0.27, 0.7)]
    one, two = (ellipsoid(tuple(shape), tuple(place), tuple(0.18 * size)) for place in places)
    classes = np.stack([one, two]).astype(np.float32)
    guess = np.roll(classes, 2, axis=1 + (axis + 1) % 3)  # not quite where they are
    settings = PromptSettings(min_area=10, kind="box", jitter=2)
    made = outline(tiny, seen(one) - 0.25 * two, guess, spacing, settings, np.random.default_rng(0))
    plane = tuple(a for a in range(3) if a != axis)
    assert 2 < made.embeddings <= guess.any(0).any(plane).sum()  # one a slice, however many prompts
    assert made.prompts > 5 * made.embeddings
    assert 0 < made.stability <= 1
    for c in range(2):
        asked = np.isfinite(made.probability[c])
        assert asked.any()
        assert not asked.all()
        assert np.array_equal(asked.all(plane), asked.any(plane))  # whole slices
        assert overlap((made.probability[c] > 0.5) & asked, classes[c].astype(bool) & asked) > 0.8


def test_what_no_prompt_is_made_of_is_left_open(tiny: Prompter) -> None:
    volume = ellipsoid((5, 40, 40), (2, 20, 20), (1.9, 8, 8))
    guess = volume[None].astype(np.float32)
    many = PromptSettings(min_area=2000)
    assert np.isnan(outline(tiny, seen(volume), guess, (5, 1, 1), many, np.random.default_rng(0)).probability).all()
    flat = outline(tiny, seen(volume[2:3]), guess[:, 2:3], (5, 1, 1), PromptSettings(axes=3), np.random.default_rng(0))
    assert flat.embeddings == 1  # a 2D image has slices across one axis only
    assert overlap(flat.probability[0] > 0.5, volume[2:3]) > 0.8
    with pytest.raises(LimitedError, match="differ in shape"):
        outline(tiny, seen(volume), guess[:, 1:], (5, 1, 1), many, np.random.default_rng(0))


def test_all_axes_and_two_passes(tiny: Prompter) -> None:
    volume = ellipsoid((40, 44, 48), (20, 20, 26), (9, 10, 12))
    guess = np.roll(volume, 2, 1)[None].astype(np.float32)
    settings = PromptSettings(axes=3, kind="two-pass", boxes=2, jitter=2)
    made = outline(tiny, seen(volume), guess, (1, 1, 1), settings, np.random.default_rng(0))
    assert np.isfinite(made.probability[0][volume]).all()
    assert overlap(np.nan_to_num(made.probability[0]) > 0.5, volume) > 0.8
    again = outline(tiny, seen(volume), guess, (1, 1, 1), settings, np.random.default_rng(0))
    assert np.array_equal(again.probability, made.probability, equal_nan=True)


def test_prompts_from_masks() -> None:
    mask = np.zeros((20, 30), bool)
    mask[3:6, 4:9], mask[10:18, 12:28], mask[0, 29] = True, True, True
    large, small = objects(mask, 2, 5)
    assert (large.sum(), small.sum()) == (8 * 16, 15)
    assert len(objects(mask, 1, 1)) == 1
    assert objects(np.zeros((4, 4), bool), 1, 5) == []
    assert tight_box(small).tolist() == [[3, 4], [6, 9]]
    assert small[tuple(centre(small))]
    assert centre(small).tolist() in [[4, 5], [4, 6], [4, 7]]
    assert centre(np.arange(9)[:, None] < [5] * 9)[0] == 2  # the image's edge is a border too
    boxes = jittered(tight_box(large), mask.shape, 200, 3, 1, np.random.default_rng(0))
    assert boxes[0].tolist() == [[9, 11], [19, 29]]
    assert boxes.min() >= 0
    assert (boxes[:, 1] <= mask.shape).all()
    assert (boxes[:, 0] < boxes[:, 1]).all()
    assert abs(boxes[:, 0] - [9, 11]).max() == 3
    tiny_box = jittered(np.array([[0, 0], [1, 1]]), mask.shape, 50, 9, 0, np.random.default_rng(0))
    assert (tiny_box[:, 0] < tiny_box[:, 1]).all()
    np.testing.assert_allclose(mask_logits(np.array([0.0, 0.5, 1.0, 0.731058])), [-6.9, 0, 6.9, 1], atol=1e-4)
    kept = keep_components(mask, 0.1)
    assert kept.sum() == mask.sum() - 1
    unit = to_unit(np.concatenate([np.full(500, -9.0), np.linspace(0, 10, 1001)]))
    assert unit.min() == 0 == unit[0]
    assert unit.max() == 1
    assert unit[1250] == pytest.approx((7.5 - 0.05) / 9.9, abs=0.005)
    assert to_unit(np.zeros((3, 3))).max() == 0
    assert iou(large, large) == 1
    assert iou(large, small) == 0
    assert iou(mask & False, mask & False) == 1


def folder(tmp_path: Path, **changes: object) -> Path:
    """Return a copy of the tiny SAM with another config."""
    copied = Path(shutil.copytree(TINY_SAM, tmp_path / "sam"))
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    (copied / "config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")
    return copied


def test_what_is_no_prompter(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    empty, payload, half = tmp_path / "empty", tmp_path / "payload.pt", tmp_path / "half.pt"
    empty.mkdir()
    torch.save({"model": Malicious()}, payload)
    half.write_bytes(b"half")
    other = tmp_path / "other.pt"
    torch.save({"weight": torch.zeros(3)}, other)
    broken = folder(tmp_path / "1")
    (broken / "model.safetensors").write_bytes(b"broken")
    pickled = folder(tmp_path / "2")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    unlike = folder(tmp_path / "3", model_type="bert")
    large = folder(tmp_path / "4")
    config = json.loads((large / "config.json").read_text(encoding="utf-8"))
    config["mask_decoder_config"]["hidden_size"] = 64
    (large / "config.json").write_text(json.dumps(config), encoding="utf-8")
    module = SimpleNamespace(nothing=lambda: object(), odd=lambda: SimpleNamespace(
        ndim=4, prompts={"box"}, about=ModelCard("x"), embed=0, predict=0))  # fmt: skip
    monkeypatch.setitem(sys.modules, "someones", module)
    for spec, message in (
        ("sam", "names no weights"),
        (f"sam:{empty}", "config.json does not exist"),
        ("sam:nobody/nothing", "neither a folder nor in the cache"),
        (f"sam:{broken}", "cannot be read as weights"),
        (f"sam:{pickled}", "model.safetensors does not exist"),
        (f"sam:{unlike}", "of a model 'bert'"),
        (f"sam:{large}", "model.safetensors"),
        (f"tiny-vit:{payload}", "could run any code"),
        (f"tiny-vit:{half}", "half.pt"),
        (f"tiny-vit:{other}", "cannot be read as weights"),
        ("tiny-vit:/nowhere.pt", "/nowhere.pt does not exist"),
        ("someone", "not a prompter"),
        ("someones:", "not a prompter"),
        ("nobodys:factory", "cannot be found"),
        ("someones:factory", "cannot be found"),
        ("someones:nothing", "without 'ndim'"),
        ("someones:odd", "ndim is 2 or 3"),
    ):
        with pytest.raises(LimitedError) as refused:
            find_prompter(spec)
        assert message in str(refused.value), spec
        assert "\n" not in str(refused.value)
    assert "run" not in capfd.readouterr().out


def test_releases_that_hide_trainers_are_refused(tiny: Prompter, monkeypatch: pytest.MonkeyPatch) -> None:
    assert recursive_find_trainer_class_by_name("LimitedMeanTeacherTrainer")  # with transformers loaded
    for release in ("5.4.0", "5.20.2"):
        monkeypatch.setattr("nnunet_limited.util.extras.version", lambda package, release=release: release)
        for spec in (f"sam:{TINY_SAM}", "tiny-vit:weights.pt"):
            with pytest.raises(LimitedError, match=rf"^{spec}: with transformers {release} .*pip install"):
                find_prompter(spec)
    for release in ("4.57.6", "5.3.0", "5.21.0.dev0"):
        monkeypatch.setattr("nnunet_limited.util.extras.version", lambda package, release=release: release)
        assert find_prompter(f"sam:{TINY_SAM}")


def test_prompts_that_do_not_fit(tiny: Prompter) -> None:
    image, mask = scene((40, 64))
    embedding, box = tiny.embed(image), tight_box(mask)[None]
    with pytest.raises(LimitedError, match="not a slice"):
        tiny.embed(np.zeros((3, 4, 5)))
    for asked, message in (
        ({}, "no prompt"),
        ({"boxes": box + np.array([[0, 0], [0, 64]])}, "outside of the image"),
        ({"boxes": box[:, ::-1]}, "is empty or outside"),
        ({"boxes": box[0]}, "do not fit"),
        ({"boxes": box * np.nan}, "give numbers"),
        ({"points": np.array([[[41, 3]]]), "labels": np.ones((1, 1))}, "point .* is outside"),
        ({"points": np.array([[[4, 3]]])}, "do not fit"),
        ({"mask_logits": np.zeros((1, 64, 40))}, "do not fit"),
        ({"boxes": np.repeat(box, 2, 0), "mask_logits": np.zeros((1, 40, 64))}, "one of each"),
    ):
        with pytest.raises(LimitedError, match=message):
            tiny.predict(embedding, **asked)
    tiny.prompts = frozenset({"box"})
    try:
        with pytest.raises(LimitedError, match="takes no mask"):
            tiny.predict(embedding, mask_logits=np.zeros((1, 40, 64)))
    finally:
        del tiny.prompts


def tiny_of_kind(kind: str, folder: Path) -> None:
    """Save a small model of another kind with random weights."""
    import transformers as t

    torch.manual_seed(0)
    decoder = {"hidden_size": 32, "mlp_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
               "iou_head_hidden_dim": 32, "iou_head_depth": 2}  # fmt: skip
    prompts = {"hidden_size": 32, "image_size": 64, "patch_size": 16, "mask_input_channels": 4}
    if kind == "sam_hq":
        vision = {"hidden_size": 32, "output_channels": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                  "image_size": 64, "patch_size": 16, "mlp_dim": 64, "window_size": 2, "global_attn_indexes": [0, 1],
                  "num_pos_feats": 16}  # fmt: skip
        config = t.SamHQConfig(vision_config=vision, prompt_encoder_config=prompts,
                               mask_decoder_config={**decoder, "vit_dim": 32})  # fmt: skip
        made = t.SamHQModel(config)
    else:
        backbone = t.Sam2HieraDetConfig(
            hidden_size=8, num_attention_heads=1, blocks_per_stage=[1, 2, 1, 1],
            embed_dim_per_stage=[8, 16, 32, 64], num_attention_heads_per_stage=[1, 1, 2, 2],
            window_size_per_stage=[8, 4, 4, 2], global_attention_blocks=[2],
            window_positional_embedding_background_size=[2, 2],
        )  # fmt: skip
        vision = t.Sam2VisionConfig(backbone_config=backbone, backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=32,
                                    backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]])  # fmt: skip
        config = t.Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
        made = t.Sam2Model(config)
    with torch.no_grad():  # as they are drawn they are too small to tell one prompt from another
        for parameter in made.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    made.save_pretrained(folder)


@pytest.mark.parametrize("kind", ["sam_hq", "sam2"])
def test_kin_of_sam(tmp_path: Path, kind: str) -> None:
    """Their weights are random here: what they are shown and asked fits, and every prompt matters."""
    tiny_of_kind(kind, tmp_path / kind)
    made = find_prompter(f"sam:{tmp_path / kind}")
    image, mask = scene((51, 83))
    embedding, box = made.embed(image), tight_box(mask)
    boxes = np.stack([box, np.array([[1, 2], [9, 60]])])
    logits = mask_logits(np.stack([mask, ~mask]))
    points = {"points": np.array([[[9, 9]], [[40, 70]]]), "labels": np.ones((2, 1))}
    asked = ({"boxes": boxes}, points, {"boxes": boxes, "mask_logits": logits}, {"boxes": boxes, **points})
    answers = [made.predict(embedding, **one)[0] for one in asked]
    for answer in answers:
        assert answer.shape == (2, 51, 83)
        assert 0 <= answer.min() < answer.max() <= 1
        assert not np.allclose(answer[0], answer[1], atol=1e-6)
    assert not np.allclose(answers[0], answers[2], atol=1e-6)
    alone = made.predict(embedding, boxes=boxes[1:], mask_logits=logits[1:])[0]
    np.testing.assert_allclose(answers[2][1], alone[0], atol=1e-5)


def test_medsam_takes_boxes_only(tmp_path: Path) -> None:
    shutil.copytree(TINY_SAM, tmp_path / "medsam-vit-base")
    made = find_prompter(f"sam:{tmp_path / 'medsam-vit-base'}")
    assert made.prompts == {"box"}
    assert PromptSettings().kind_for(made.prompts) == "box"
    assert PromptSettings().kind_for(find_prompter(f"sam:{TINY_SAM}").prompts) == "box+mask"
    assert made.about.weights_licence == "Apache-2.0"
