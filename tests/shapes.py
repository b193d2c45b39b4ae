"""Objects: ellipsoids that the tiny SAM of the tests can outline, and ragged ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

TINY_SAM = Path(__file__).parent / "tiny_sam"


def ellipsoid(shape: tuple[int, ...], middle: tuple[float, ...], radius: tuple[float, ...]) -> np.ndarray:
    """Return a mask."""
    grid = np.indices(shape).astype(float)
    steps = [1] * len(shape)
    away = (grid - np.reshape(middle, (-1, *steps))) / np.reshape(radius, (-1, *steps))
    return (away**2).sum(0) <= 1


def blob(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """An object with a ragged border, away from the image's."""
    rng = np.random.default_rng(seed)
    places = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    centre = rng.uniform(-0.15, 0.15, len(shape))
    radius = sum((p - c) ** 2 for p, c in zip(places, centre, strict=True))
    return radius + rng.normal(0, 0.02, shape) < 0.25


def seen(mask: np.ndarray, seed: int = 0, noise: float = 0.03) -> np.ndarray:
    """Return a grey image with the mask bright in it."""
    rng = np.random.default_rng(seed)
    return (0.4 + 0.35 * mask + rng.normal(0, noise, mask.shape)).astype(np.float32)


def overlap(mask: np.ndarray, other: np.ndarray) -> float:
    """Return the Dice of two masks."""
    return 2 * (mask & other).sum() / max(1, mask.sum() + other.sum())


class Malicious:
    """An object whose pickle prints "run" when it is loaded."""

    def __reduce__(self):
        return print, ("run",)
