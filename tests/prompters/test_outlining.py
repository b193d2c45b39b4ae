"""How a promptable model is asked about the classes of a slice: which points, and what becomes of its answers."""

from __future__ import annotations

from typing import Any

import numpy as np

from nnunet_limited.losses.label_space import ClassLabels
from nnunet_limited.prompters.outlining import coarsest_axis, outline
from nnunet_limited.prompters.prompter import ModelCard
from nnunet_limited.prompters.prompts import PromptSettings, centre, jittered
from nnunet_limited.pseudo_labels.sources.base import Scan, SourceContext, SourceSettings
from nnunet_limited.pseudo_labels.sources.prompted import PromptedSource


class Asked:
    """A promptable model that is sure of what the box encloses, or of a spot around the first point."""

    ndim, prompts, about = 2, frozenset({"box", "point"}), ModelCard("asked")

    def __init__(self) -> None:
        self.clicks: list[tuple[list[list[int]], list[bool]]] = []

    def embed(self, image: np.ndarray) -> tuple[int, ...]:
        return image.shape

    def predict(self, embedding: Any, *, boxes=None, points=None, labels=None, mask_logits=None) -> Any:
        made = np.zeros((len(points if boxes is None else boxes), *embedding), np.float32)
        for k in range(len(made)):
            if points is not None:
                self.clicks.append((points[k].tolist(), labels[k].tolist()))
            (top, left), (bottom, right) = (points[k][0] - 2, points[k][0] + 3) if boxes is None else boxes[k]
            made[k, top:bottom, left:right] = 0.9
        return made, np.ones(len(made))


def test_points_of_the_second_pass_and_the_sum_of_objects() -> None:
    """Classes that lie in one another, as regions do; objects of a class do not contradict each other."""
    outer, beside, inner = np.zeros((3, 1, 24, 48), bool)
    outer[0, 4:16, 2:14] = outer[0, 4:16, 18:26] = outer[0, 22, 46] = True
    beside[0, 6:14, 32:42] = True
    inner[0, 5:9, 3:7] = True
    guess = np.stack([outer, beside, inner]).astype(np.float32)
    asked = Asked()
    settings = PromptSettings(kind="two-pass", boxes=1, min_area=4)
    made = outline(asked, np.zeros((1, 24, 48)), guess, (5, 1, 1), settings, np.random.default_rng(0)).probability

    large, small = outer[0].copy(), outer[0].copy()
    large[:, 14:], small[:, :18], small[22] = False, False, False
    at = {name: centre(mask).tolist() for name, mask in
          (("large", large), ("small", small), ("beside", beside[0]), ("inner", inner[0]))}  # fmt: skip
    expected = {  # outside are the middles of other classes, but for those inside all the same
        "large": [at["beside"]],
        "small": [at["beside"], at["inner"]],
        "beside": [at["large"], at["small"], at["inner"]],
        "inner": [at["large"], at["small"], at["beside"]],
    }
    assert [points for points, _ in asked.clicks] == [[at[name], *others] for name, others in expected.items()]
    assert all(labels == [True] + [False] * (len(labels) - 1) for _, labels in asked.clicks)
    assert (made[0, 0][large | small] == np.float32(0.9)).all()  # the box is there in the second pass too
    assert np.isnan(made[0, 0, 22, 46])  # too small to be asked about, so that nothing is known of it
    assert made[0, 0, 20, 40] == 0


def test_every_drawn_box_becomes_a_prompt() -> None:
    """However small they are, and however many; a guess that small is not."""
    masks = np.zeros((1, 2, 32, 32), np.float32)
    for k in range(7):
        masks[0, 0, 4 * k : 4 * k + 2, 3:5] = 1
    scan = Scan("case", np.zeros((1, 2, 32, 32), np.float32), (5.0, 1.0, 1.0), (2, 32, 32), {})
    source = PromptedSource(Asked(), SourceContext([], ClassLabels(((0,), (1,))), "cpu", SourceSettings(boxes=1)))
    said = source.within(scan, masks)
    assert np.array_equal(said.probability[1] > 0.5, masks[0] > 0)
    assert said.about["prompts"] == 7
    background = 1 - masks.max(0)
    assert np.isnan(source(scan, np.stack([background, masks[0]])).probability).all()


def test_axes_that_saw_nothing_do_not_count() -> None:
    assert coarsest_axis((8, 9, 12), (1, 1, 1)) == 0  # the first of equals
    bar = np.zeros((8, 9, 12), bool)
    bar[3:5, 4:6, 2:10] = True  # too thin to be asked about in slices across the last axis
    settings = PromptSettings(kind="box", boxes=1, min_area=5, axes=3)
    made = outline(
        Asked(), np.zeros(bar.shape), bar[None].astype(np.float32), (1, 1, 1), settings, np.random.default_rng()
    )
    assert (made.probability[0][bar] == np.float32(0.9)).all()
    assert np.isnan(made.probability[0, 0, 0]).all()


def test_boxes_move_as_far_as_their_image_and_their_object_are_large() -> None:
    def most(shape: tuple[int, int], stop: int) -> int:
        box = np.array([[20, 20], [20 + stop, 20 + stop]])
        return int(abs(jittered(box, shape, 300, None, 0, np.random.default_rng(0)) - box).max())

    assert most((500, 400), 100) == 10
    assert most((500, 400), 12) == 3
    assert most((48, 40), 18) == 1
    assert most((48, 40), 3) == 0
