"""nnInteractive as a promptable model, with a session that stands in for its package."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.testing import runstring
from shapes import Malicious, ellipsoid, overlap, seen

from nnunet_limited.errors import LimitedError
from nnunet_limited.prompters.outlining import outline
from nnunet_limited.prompters.prompter import find_prompter
from nnunet_limited.prompters.prompts import PromptSettings, mask_logits, tight_box
from nnunet_limited.testing import check_prompter


class Session:
    """What is used of nnInteractive: it outlines the boxes that it is shown."""

    def __init__(self, **_: object) -> None:
        self.calls: list[tuple] = []

    def initialize_from_trained_model_folder(self, folder: str, fold: int, name: str) -> None:
        self.loaded = folder, fold, name

    def set_image(self, image: np.ndarray) -> None:
        self.calls.append(("image", image.shape))

    def set_target_buffer(self, buffer: torch.Tensor) -> None:
        self.target_buffer = buffer

    def reset_interactions(self) -> None:
        self.target_buffer.zero_()
        self.calls.append(("reset",))

    def add_initial_seg_interaction(self, mask: np.ndarray) -> None:
        self.target_buffer += torch.from_numpy(mask)

    def add_bbox_interaction(self, box: list, include_interaction: bool) -> None:
        assert sum(stop - start == 1 for start, stop in box) == 1
        self.target_buffer[tuple(slice(*side) for side in box)] = 1

    def add_point_interaction(self, place: tuple, include_interaction: bool) -> None:
        self.target_buffer[place] = int(include_interaction)


def test_nninteractive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nnInteractive", "nnInteractive.inference", "nnInteractive.inference.inference_session"):
        module = SimpleNamespace(nnInteractiveInferenceSession=Session, __spec__=ModuleSpec(name, None))
        monkeypatch.setitem(sys.modules, name, module)
    spec = f"nninteractive:{tmp_path}"
    with pytest.raises(LimitedError, match="does not exist"):
        find_prompter(spec)
    (tmp_path / "fold_0").mkdir()
    for name in ("plans.json", "dataset.json"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    weights = tmp_path / "fold_0" / "checkpoint_final.pth"
    torch.save({"network_weights": {"a": torch.zeros(2)}, "ema": np.float64(1.0)}, weights)
    with pytest.raises(LimitedError, match="--accept-licence 'CC BY-NC-SA"):
        find_prompter(spec)
    (tmp_path / "LICENSE").write_text("\nMine 1.0\nall of it", encoding="utf-8")
    with pytest.raises(LimitedError, match="are under Mine"):
        find_prompter(spec, "cpu", "CC BY-NC-SA 4.0")
    made = find_prompter(spec, "cpu", "Mine 1.0")
    assert made.session.loaded == (str(tmp_path), 0, "checkpoint_final.pth")
    assert made.about.weights_licence == "Mine 1.0"
    check_prompter(made)
    made.session.calls.clear()
    volume = ellipsoid((9, 12, 15), (4, 5, 6), (3, 4, 5))
    embedding = made.embed(seen(volume))
    answer, _ = made.predict(embedding, boxes=np.stack([tight_box(volume), np.array([[0, 0, 0], [3, 3, 3]])]))
    assert answer.shape == (2, 9, 12, 15)
    assert answer[0].sum() == 9 * 11 + 7 * 11 + 7 * 9 - 11 - 9 - 7 + 1  # three planes through the middle
    assert answer[0][4].sum() == 9 * 11
    assert answer[1].sum() == 9 * 3 - 3 * 3 + 1
    assert made.session.calls.count(("image", (1, 9, 12, 15))) == 1
    clicks = {"points": np.array([[[1, 1, 1], [4, 5, 6]]]), "labels": np.array([[1, 0]])}
    both = made.predict(embedding, **clicks, mask_logits=mask_logits(volume)[None])[0][0]
    assert both[1, 1, 1] == 1
    assert both[4, 5, 6] == 0
    assert both.sum() == volume.sum()
    guess, settings = volume[None].astype(np.float32), PromptSettings(boxes=1)
    made_of = outline(made, seen(volume), guess, (1, 1, 1), settings, np.random.default_rng(0))
    assert made_of.embeddings == 1
    assert overlap(made_of.probability[0] > 0.5, volume) > 0.8

    class OfNumpy:
        def __reduce__(self):
            return runstring, ("raise SystemExit('run')", {})

    torch.save({"ema": OfNumpy()}, weights)
    with pytest.raises(LimitedError, match="runstring: loading it could run any code"):
        find_prompter(spec, "cpu", "Mine 1.0")
    torch.save({"ema": Malicious()}, weights)
    with pytest.raises(LimitedError, match="could run any code"):
        find_prompter(spec, "cpu", "Mine 1.0")
