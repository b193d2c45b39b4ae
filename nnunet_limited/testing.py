"""Checks that the plug-ins of other packages can run in their own tests."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from nnunet_limited.losses.label_space import ClassLabels, LabelSpace, RegionLabels
from nnunet_limited.prompters.prompter import Prompter, check_attributes
from nnunet_limited.pseudo_labels.sources.base import LabeledScan, LabelSource, Scan, SourceContext, SourceSettings
from nnunet_limited.queries.pool import ENCODER, GRADIENT, SIGNATURE, Pool
from nnunet_limited.queries.strategies.base import Strategy
from nnunet_limited.queries.uncertainty import VOXEL_SCORES
from nnunet_limited.queries.windows import Granularity, Window, WindowOverlap

FEATURE_SIZES = {ENCODER: 5, GRADIENT: 6, SIGNATURE: 9}


def example_pool(windows: list[Window] | None = None, seed: int = 0, annotated: int = 2, **changes: Any) -> Pool:
    """Return a pool of random scores and features for three classes, by default of patches of four cases.

    ``annotated`` is the number of annotated windows with features; ``changes`` are other arguments of the pool.
    """
    if windows is None:
        grid = Granularity("patch", size=(3, 8, 8)).window_grid((6, 24, 24), (1, 1, 1), "")
        windows = [window for number in range(4) for window in grid.windows(f"case_{number}")]
    rng, n = np.random.default_rng(seed), len(windows)
    content: dict[str, Any] = {
        "windows": windows,
        "scores": {name: rng.random(n) for name in (*VOXEL_SCORES, "disagreement")},
        "class_scores": rng.random((n, 3)),
        "foreground": rng.integers(0, 4, (n, 3)).astype(float),
        "border": rng.integers(0, 3, (n, 3)).astype(float),
        "features": {kind: rng.random((n, size)) for kind, size in FEATURE_SIZES.items()},
        "annotated_features": {kind: rng.random((annotated, size)) for kind, size in FEATURE_SIZES.items()},
    }
    return Pool(**{**content, **changes})


def check_strategy(strategy: type[Strategy]) -> None:
    """Raise AssertionError if a query strategy breaks one of the rules that ``nnunet-limited query`` relies on.

    It is deterministic for a seed, leaves the pool as it is, fills the budget with windows that overlap neither each
    other nor a blocked one, gives every choice a finite utility, and takes all of a pool that is too small.
    """
    name = strategy.__name__
    assert strategy.name, f"{name} needs a name"
    assert strategy.__doc__, f"{name} needs a docstring, which is shown to annotators"
    blocked = [Window("case_0", (0, 0, 0), (6, 24, 12)), Window("case_2", (1, 2, 3), (1, 1, 1))]
    pool, budget = example_pool(blocked=blocked), 7
    before = _content(pool)
    indices, utilities = strategy().query(pool, budget, 1, return_utilities=True)
    assert strategy().query(pool, budget, 1) == indices, f"{name} chooses other windows for the same seed"
    assert _content(pool) == before, f"{name} changes the pool"
    assert len(indices) == budget, f"{name} chooses {len(indices)} of {budget} windows"
    chosen = [pool.windows[index] for index in indices]
    for a, b in [*combinations(chosen, 2), *((a, b) for a in chosen for b in blocked)]:
        assert not len(WindowOverlap([a]).find(b)), f"{name} chooses {a}, which overlaps {b}"
    assert isinstance(utilities, np.ndarray)
    for turn, index in enumerate(indices):
        assert np.isfinite(utilities[turn, index]), f"{name} chooses a window without a finite utility"
        assert np.isnan(utilities[turn, indices[:turn]]).all(), f"{name} keeps chosen windows free"
    small = example_pool([Window(f"case_{number}", (0, 0, 0), (6, 24, 24)) for number in range(3)], annotated=0)
    assert sorted(strategy().query(small, 10, 0)) == [0, 1, 2], f"{name} leaves windows of a small pool"


def _content(pool: Pool) -> list[bytes]:
    """Return every array of a pool as bytes."""
    arrays = [*pool.scores.values(), *pool.features.values(), *pool.annotated_features.values()]
    return [np.asarray(array).tobytes() for array in (*arrays, pool.class_scores, pool.foreground, pool.border)]


def check_prompter(prompter: Prompter) -> None:
    """Raise AssertionError if a promptable model breaks one of the rules that sources rely on.

    It answers every kind of prompts that it takes with finite probabilities of the image's shape and one score per
    object, the same twice, and leaves its arguments as they are.
    """
    check_attributes(prompter, type(prompter).__name__)
    image, mask = _example_image((9, 32, 40)[-prompter.ndim :], 0)
    corners = [(axis.min(), axis.max() + 1) for axis in np.nonzero(mask)]
    middle = [int(axis.mean()) for axis in np.nonzero(mask)]
    arguments: dict[str, dict[str, Any]] = {
        "box": {"boxes": np.array(corners).T[None]},
        "point": {"points": np.array([[middle, [0] * mask.ndim]]), "labels": np.array([[1, 0]])},
        "mask": {"mask_logits": np.where(mask, 5, -5).astype(np.float32)[None]},
    }
    embedding = prompter.embed(image.copy())
    for kind in sorted(prompter.prompts):
        prompts = {name: np.repeat(value, 2, axis=0) for name, value in arguments[kind].items()}
        given = {name: value.copy() for name, value in prompts.items()}
        probability, scores = prompter.predict(embedding, **given)
        assert np.shape(probability) == (2, *image.shape), f"{kind}: probabilities of shape {np.shape(probability)}"
        assert np.shape(scores) == (2,), f"{kind}: scores of shape {np.shape(scores)}, not one per object"
        assert np.isfinite(probability).all(), f"{kind}: some probabilities are not finite"
        assert ((np.asarray(probability) >= 0) & (np.asarray(probability) <= 1)).all(), f"{kind}: not in [0, 1]"
        assert all(np.array_equal(given[name], prompts[name]) for name in prompts), f"{kind}: changes its prompts"
        again = prompter.predict(embedding, **given)[0]
        assert np.array_equal(again, probability), f"{kind}: the answer differs for the same prompts"


def check_source(factory: Callable[[SourceContext], LabelSource], needs_guess: bool = False) -> None:
    """Raise AssertionError if a source of pseudo-labels breaks one of the rules that ``pseudo-label`` relies on.

    For classes and for regions, its predictions have the shape of the scan with a channel for each class, are
    probabilities or NaN, are the same twice, and do not depend on the label of the scan itself. With ``needs_guess`` it
    is never called without one.
    """
    with TemporaryDirectory() as folder:
        for labels in (ClassLabels(((0,), (1,), (2,))), RegionLabels(((1, 2), (2,)))):
            _check_source(factory, labels, needs_guess, Path(folder))


def _check_source(
    factory: Callable[[SourceContext], LabelSource], labels: LabelSpace, needs_guess: bool, folder: Path
) -> None:
    labeled = _labeled_scans(labels)
    context = SourceContext(labeled, labels, "cpu", SourceSettings(min_area=4, boxes=2), folder)
    scan, classes = labeled[0].scan, labeled[0].classes
    guess = classes * np.float32(0.8) + np.float32(0.1) if needs_guess else None
    before = scan.image.copy()
    made = [factory(context)(scan, guess) for _ in range(2)]
    assert np.array_equal(scan.image, before), "the source changes the image"
    first, second = (prediction.probability for prediction in made)
    assert first.shape == (labels.channels, *scan.image.shape[1:]), f"a prediction of shape {first.shape}"
    assert np.array_equal(first, second, equal_nan=True), "the prediction differs for the same scan"
    known = np.isfinite(first)
    assert ((first[known] >= 0) & (first[known] <= 1 + 1e-4)).all(), "the prediction is not in [0, 1]"
    if not labels.overlapping:
        assert np.allclose(first.sum(0)[known.all(0)], 1, atol=1e-3), "the classes do not add up to 1"
    reliability = made[0].reliability
    assert reliability is None or 0 <= reliability <= 1, f"a reliability of {reliability}"
    wrong = LabeledScan(scan, np.roll(classes, 7, -1))
    blind = factory(replace(context, labeled=[wrong, *labeled[1:]]))(scan, guess).probability
    assert np.array_equal(first, blind, equal_nan=True), "the prediction depends on the label of the scan itself"


def _labeled_scans(labels: LabelSpace) -> list[LabeledScan]:
    """Return three labelled scans of an object with a core."""
    made = []
    for number in range(3):
        image, mask = _example_image((6, 32, 40), number)
        core = _example_image((6, 32, 40), number, size=0.5)[1]
        scan = Scan(f"case_{number}", image[None], (1.0, 1.0, 1.0), image.shape)
        made.append(LabeledScan(scan, labels.encode_case(mask.astype(int) + core)))
    return made


def _example_image(shape: tuple[int, ...], seed: int, size: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return an image in [0, 1] with a bright ellipsoid, and its mask."""
    rng = np.random.default_rng(seed)
    places = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    middle = rng.uniform(-0.2, 0.2, len(shape))
    mask = sum(((p - m) / (0.5 * size)) ** 2 for p, m in zip(places, middle, strict=True)) < 1
    return (0.3 + 0.4 * mask + rng.uniform(0, 0.1, shape)).astype(np.float32), np.asarray(mask)
