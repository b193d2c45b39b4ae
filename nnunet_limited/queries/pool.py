"""The windows of a case or of all cases, what strategies compare them by, and what a strategy has chosen so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.errors import LimitedError
from nnunet_limited.queries.windows import Window, WindowGrid, WindowOverlap
from nnunet_limited.util.files import replacing

# The kinds of features of strategies: the first two are computed in features.py, the last one in aggregation.py.
ENCODER, GRADIENT, SIGNATURE = "encoder", "gradient", "signature"
SCORE, FEATURES = "score_", "features_"  # prefixes of names in the file of a case
BY_CLASS = ("class_scores", "foreground", "border")


@dataclass(frozen=True)
class CaseScores:
    """The n windows of a case, the minutes to annotate each of them (n,), and what strategies compare them by.

    ``annotated`` is the fraction of each window that is annotated (n,). ``description`` are the features of the whole
    scan (f,) for a cold start. The others are those of :class:`Pool`.
    """

    grid: WindowGrid
    minutes: np.ndarray
    annotated: np.ndarray
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    class_scores: np.ndarray | None = None
    foreground: np.ndarray | None = None
    border: np.ndarray | None = None
    features: Mapping[str, np.ndarray] = field(default_factory=dict)
    description: np.ndarray | None = None

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """Return every array with a row for each window, by its name in the file."""
        arrays = {name: getattr(self, name) for name in ("annotated", "minutes", *BY_CLASS)}
        arrays |= {f"{SCORE}{name}": values for name, values in self.scores.items()}
        arrays |= {f"{FEATURES}{kind}": values for kind, values in self.features.items()}
        return {name: values for name, values in arrays.items() if values is not None}

    def save(self, file: Path) -> None:
        """Write the scores to a ``.npz`` file."""
        content: dict[str, Any] = {f"start_{axis}": start for axis, start in enumerate(self.grid.starts)}
        content |= {"size": np.array(self.grid.size), **self.arrays}
        if self.description is not None:
            content["about"] = self.description
        with replacing(file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **content)

    @classmethod
    def load(cls, file: Path) -> CaseScores:
        """Read the scores that :meth:`save` has written."""
        with np.load(file) as stored:
            content = dict(stored)
        size = tuple(int(n) for n in content["size"])
        grid = WindowGrid(tuple(content[f"start_{axis}"] for axis in range(len(size))), size)
        return cls(
            grid, content["minutes"], content["annotated"], description=content.get("about"), **comparable(content)
        )


def comparable(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return those of the ``arrays`` of a file that a strategy compares windows by, as arguments of :class:`Pool`."""
    return {
        "scores": {name.removeprefix(SCORE): a for name, a in arrays.items() if name.startswith(SCORE)},
        "features": {name.removeprefix(FEATURES): a for name, a in arrays.items() if name.startswith(FEATURES)},
        **{name: arrays.get(name) for name in BY_CLASS},
    }


@dataclass(frozen=True)
class Pool:
    """The n candidate windows, which may overlap, and what strategies compare them by.

    ``scores``: by name, the mean of an uncertainty over the voxels of each window (n,).
    ``class_scores``: the entropy weighted by the probability of each class (n, c).
    ``foreground``, ``border``: voxels of each class and of its border that are nearer to the middle of a window than
    to any other middle (n, c).
    ``features``, ``annotated_features``: by kind, the features of the candidates (n, f) and of l annotated windows
    (l, f).
    ``blocked``: windows that are annotated or validated on; they and all that overlaps them are never chosen.
    ``progress``: 0 in the first round of the loop, 1 in the last one.

    Raises LimitedError for arrays of another length and for values that are not finite.
    """

    windows: Sequence[Window]
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    class_scores: np.ndarray | None = None
    foreground: np.ndarray | None = None
    border: np.ndarray | None = None
    features: Mapping[str, np.ndarray] = field(default_factory=dict)
    annotated_features: Mapping[str, np.ndarray] = field(default_factory=dict)
    blocked: Sequence[Window] = ()
    progress: float = 0.0

    def __post_init__(self) -> None:
        """Check the arrays of the candidates."""
        by_class = {name: getattr(self, name) for name in BY_CLASS if getattr(self, name) is not None}
        for name, values in {**self.scores, **self.features, **by_class}.items():
            if len(values) != len(self.windows):
                raise LimitedError(f"{name} has {len(values)} rows for {len(self.windows)} windows; give one each")
            if not np.isfinite(values).all():
                window = self.windows[int(np.argwhere(~np.isfinite(values))[0][0])]
                raise LimitedError(
                    f"{name} of case {window.case} at {list(window.start)} is not finite, so the prediction of the "
                    "model is broken; train it again"
                )

    def __len__(self) -> int:
        return len(self.windows)

    @cached_property
    def overlap(self) -> WindowOverlap:
        """Return the index that finds overlapping windows."""
        return WindowOverlap(self.windows)

    @cached_property
    def cases(self) -> np.ndarray:
        """Return the number of each window's case, counted in order of appearance (n,)."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(window.case, len(numbers)) for window in self.windows], int)

    def require_score(self, name: str) -> np.ndarray:
        """Return the score ``name`` (n,); raise LimitedError if the pool does not have it."""
        if name not in self.scores:
            raise LimitedError(f"this strategy needs the score {name!r} of a trained model; give a model")
        return self.scores[name]

    def require_features(self, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the features of a kind of the candidates (n, f) and of the annotated windows (l, f).

        Raises LimitedError if the pool does not have them.
        """
        if kind not in self.features:
            raise LimitedError(f"this strategy needs the features {kind!r}, which are missing; choose another strategy")
        features = np.asarray(self.features[kind], float)
        return features, np.asarray(self.annotated_features.get(kind, np.zeros((0, features.shape[1]))), float)


class Choice:
    """The windows chosen so far, and which ones are free: neither blocked nor overlapping a chosen one."""

    def __init__(self, pool: Pool, rng: np.random.Generator, keep_utilities: bool) -> None:
        """Start with no window; ``rng`` orders windows of equal utility.

        ``keep_utilities`` keeps the utilities of all windows for every choice, which is large for a large pool.
        """
        self.pool = pool
        self.free = np.ones(len(pool), bool)
        self.indices: list[int] = []
        self.keep_utilities = keep_utilities
        self.utilities: list[np.ndarray] = []
        self.chosen_utilities: list[float] = []
        self._order = rng.permutation(len(pool))
        for window in pool.blocked:
            self.free[pool.overlap.find(window)] = False

    def take(self, index: int, utilities: np.ndarray) -> None:
        """Choose the free window ``index``; ``utilities`` (n,) are those that it was chosen by."""
        if self.keep_utilities:
            self.utilities.append(np.where(self.free, utilities, np.nan))
        self.chosen_utilities.append(float(utilities[index]))
        self.indices.append(int(index))
        self.free[self.pool.overlap.find(self.pool.windows[index])] = False

    def take_best(self, utilities: np.ndarray) -> None:
        """Choose the free window of highest utility (n,)."""
        order = self._order[self.free[self._order]]
        self.take(order[np.argmax(utilities[order])], utilities)

    def without_overlap(self, order: Iterable[int]) -> np.ndarray:
        """Return the free windows of ``order`` that do not overlap an earlier one."""
        left = self.free.copy()
        kept = []
        for index in order:
            if left[index]:
                kept.append(int(index))
                left[self.pool.overlap.find(self.pool.windows[index])] = False
        return np.array(kept, int)
