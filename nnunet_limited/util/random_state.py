"""Random states that can be saved, restored and separated."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def get_random_state(cuda: bool = False) -> dict[str, Any]:
    """Return the state of Python's, numpy's and torch's global generators."""
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
    }
    if cuda:
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what :func:`get_random_state` returned."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators (CUDA too)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class RandomStream:
    """A private stream of randomness for code that uses the global generators.

    What runs inside :meth:`active` neither sees nor disturbs the global stream, so drawing unlabelled data does not
    change which labelled data are drawn.
    """

    def __init__(self, seed: tuple[int, ...] | None) -> None:
        """Start at ``seed``, or at fresh entropy for None."""
        words = np.random.SeedSequence(seed).generate_state(2)
        self.state: dict[str, Any] = {
            "python": random.Random(int(words[0])).getstate(),
            "numpy": np.random.RandomState(words).get_state(),
            "torch": torch.Generator().manual_seed(int(words[1])).get_state(),
        }

    @contextmanager
    def active(self) -> Iterator[None]:
        """Use this stream in place of the global one."""
        outer = get_random_state()
        set_random_state(self.state)
        try:
            yield
        finally:
            self.state = get_random_state()
            set_random_state(outer)
