"""What a query strategy chooses from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from nnunet_limited.errors import LimitedError
from nnunet_limited.queries.windows import Window, WindowOverlap

# Kinds of features that a strategy can ask for: see queries/features.py and aggregation.signatures.
ENCODER, GRADIENT, SIGNATURE = "encoder", "gradient", "signature"


@dataclass(frozen=True)
class Pool:
    """Candidate windows, which may overlap, with what is known of each.

    ``scores`` are means over a window's voxels (n,), by name; ``class_scores`` the entropy weighted by each class
    (n, c). ``foreground`` and ``border`` (n, c) count the voxels of each class, and on its border, that are nearer to
    a window's middle than to any other's. ``features`` (n, f) and those of what is annotated, ``known`` (l, f), are by
    name too. ``blocked`` windows, and what overlaps them, are never asked for: they are annotated, or validated on.
    ``progress`` is how far the loop is, 0 in its first round and 1 in its last.
    """

    windows: Sequence[Window]
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    class_scores: np.ndarray | None = None
    foreground: np.ndarray | None = None
    border: np.ndarray | None = None
    features: Mapping[str, np.ndarray] = field(default_factory=dict)
    known: Mapping[str, np.ndarray] = field(default_factory=dict)
    blocked: Sequence[Window] = ()
    progress: float = 0.0

    def __post_init__(self) -> None:
        """Refuse numbers that are none, and arrays of another length."""
        arrays = {**self.scores, **self.features, "class_scores": self.class_scores}
        arrays |= {"foreground": self.foreground, "border": self.border}
        for name, values in arrays.items():
            if values is None:
                continue
            if len(values) != len(self.windows):
                raise LimitedError(f"{name} has {len(values)} rows for {len(self.windows)} windows; give one for each")
            if not np.isfinite(values).all():
                place = self.windows[int(np.argwhere(~np.isfinite(values))[0][0])]
                raise LimitedError(
                    f"{name} of case {place.case} at {list(place.start)} is not finite; the model's prediction is "
                    "broken, train it again"
                )

    def __len__(self) -> int:
        return len(self.windows)

    @cached_property
    def overlap(self) -> WindowOverlap:
        """Return the windows as arrays."""
        return WindowOverlap.of(self.windows)

    @cached_property
    def cases(self) -> np.ndarray:
        """Return the number of each window's case, counted in order of appearance (n,)."""
        numbers: dict[str, int] = {}
        return np.array([numbers.setdefault(window.case, len(numbers)) for window in self.windows], int)

    def need_score(self, name: str) -> np.ndarray:
        """Return the scores of a name; raise LimitedError if they are not there."""
        if name not in self.scores:
            raise LimitedError(f"this strategy needs the score {name!r}, which asks for a trained model; give one")
        return self.scores[name]

    def need_features(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the features of a name of the candidates and of what is annotated."""
        if name not in self.features:
            raise LimitedError(f"this strategy needs the features {name!r}, which are not there; choose another one")
        mine = np.asarray(self.features[name], float)
        return mine, np.asarray(self.known.get(name, np.zeros((0, mine.shape[1]))), float)


class Choice:
    """The windows chosen so far, and which are still free: neither blocked nor overlapping one that is chosen."""

    def __init__(self, pool: Pool, rng: np.random.Generator, keep: bool) -> None:
        """Begin with none; equal windows come in the random order of ``rng``.

        ``keep`` keeps what every choice went by for all windows, which is large for a large pool.
        """
        self.pool = pool
        self.free = np.ones(len(pool), bool)
        self.indices: list[int] = []
        self.keep = keep
        self.utilities: list[np.ndarray] = []
        self.worth: list[float] = []
        self._order = rng.permutation(len(pool))
        for window in pool.blocked:
            self.free[pool.overlap.find(window)] = False

    def take(self, index: int, utilities: np.ndarray) -> None:
        """Choose a free window, for these utilities of all (n,)."""
        if self.keep:
            self.utilities.append(np.where(self.free, utilities, np.nan))
        self.worth.append(float(utilities[index]))
        self.indices.append(int(index))
        self.free[self.pool.overlap.find(self.pool.windows[index])] = False

    def take_best(self, utilities: np.ndarray) -> None:
        """Choose the free window of highest utility."""
        order = self._order[self.free[self._order]]
        self.take(order[np.argmax(utilities[order])], utilities)

    def apart(self, order: Iterable[int]) -> np.ndarray:
        """Return the free windows of ``order`` that do not overlap an earlier one."""
        left = self.free.copy()
        kept = []
        for index in order:
            if left[index]:
                kept.append(int(index))
                left[self.pool.overlap.find(self.pool.windows[index])] = False
        return np.array(kept, int)
