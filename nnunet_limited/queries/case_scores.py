"""What is known of the windows of one case, and its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.queries.windows import WindowGrid
from nnunet_limited.util.files import replacing

SCORE, FEATURES = "score_", "features_"  # prefixes of names in the file


@dataclass(frozen=True)
class CaseScores:
    """The n windows of a case, the minutes to annotate each of them (n,), and what strategies compare them by.

    ``annotated`` is the fraction of each window that is annotated (n,), by default 0. ``description`` are the features
    of the whole scan (f,) for a cold start. The others are those of :class:`~nnunet_limited.queries.pool.Pool`.
    """

    grid: WindowGrid
    minutes: np.ndarray
    annotated: np.ndarray | None = None
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    class_scores: np.ndarray | None = None
    foreground: np.ndarray | None = None
    border: np.ndarray | None = None
    features: Mapping[str, np.ndarray] = field(default_factory=dict)
    description: np.ndarray | None = None

    @property
    def annotated_fraction(self) -> np.ndarray:
        """Return the fraction of each window that is annotated (n,)."""
        return np.zeros(len(self.grid)) if self.annotated is None else self.annotated

    def save(self, file: Path) -> None:
        """Write the scores to a ``.npz`` file."""
        content: dict[str, Any] = {f"start_{axis}": start for axis, start in enumerate(self.grid.starts)}
        content |= {"size": np.array(self.grid.size), "annotated": self.annotated_fraction, "minutes": self.minutes}
        content |= {f"{SCORE}{name}": values for name, values in self.scores.items()}
        content |= {f"{FEATURES}{kind}": values for kind, values in self.features.items()}
        for name, values in (
            ("class_scores", self.class_scores),
            ("foreground", self.foreground),
            ("border", self.border),
            ("about", self.description),
        ):
            if values is not None:
                content[name] = values
        with replacing(file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **content)

    @classmethod
    def load(cls, file: Path) -> CaseScores:
        """Read the scores that :meth:`save` has written."""
        with np.load(file) as stored:
            content = {key: stored[key] for key in stored.files}
        size = tuple(int(n) for n in content["size"])
        return cls(
            WindowGrid(tuple(content[f"start_{axis}"] for axis in range(len(size))), size),
            content["minutes"],
            content["annotated"],
            {key.removeprefix(SCORE): values for key, values in content.items() if key.startswith(SCORE)},
            content.get("class_scores"),
            content.get("foreground"),
            content.get("border"),
            {key.removeprefix(FEATURES): values for key, values in content.items() if key.startswith(FEATURES)},
            content.get("about"),
        )
