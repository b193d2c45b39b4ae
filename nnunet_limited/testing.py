"""Checks that the plug-ins of other packages can run in their own tests."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

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
        assert not len(WindowOverlap.of([a]).find(b)), f"{name} chooses {a}, which overlaps {b}"
    assert isinstance(utilities, np.ndarray)
    for turn, index in enumerate(indices):
        assert np.isfinite(utilities[turn, index]), f"{name} chooses a window without a finite utility"
        assert np.isnan(utilities[turn, indices[:turn]]).all(), f"{name} keeps chosen windows free"
    small = example_pool([Window(f"case_{number}", (0, 0, 0), (6, 24, 24)) for number in range(3)], annotated=0)
    assert sorted(strategy().query(small, 10, 0)) == [0, 1, 2], f"{name} leaves windows of a small pool"


def _content(pool: Pool) -> list[bytes]:
    """Return every array of a pool as bytes."""
    arrays = [*pool.scores.values(), *pool.features.values(), *pool.annotated_features.values()]
    return [
        array.tobytes() for array in (*arrays, pool.class_scores, pool.foreground, pool.border) if array is not None
    ]
