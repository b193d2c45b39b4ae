"""Find the query strategies by their names, those of other packages included."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from nnunet_limited.errors import LimitedError
from nnunet_limited.queries.strategies.base import STRATEGIES, Strategy


def strategies() -> dict[str, type[Strategy]]:
    """Return every strategy by its name, with those of the entry points ``nnunet_limited.query_strategies``."""
    import nnunet_limited.queries.strategies.ranking  # noqa: F401, each module registers its strategies

    _load_own()
    return dict(sorted(STRATEGIES.items()))


@cache
def _load_own() -> None:
    """Let the strategies of other packages register themselves."""
    for entry in entry_points(group="nnunet_limited.query_strategies"):
        entry.load()


def find_strategy(name: str) -> Strategy:
    """Return the strategy of a name; raise LimitedError if there is none."""
    known = strategies()
    if name not in known:
        raise LimitedError(f"strategy {name!r} is none of {', '.join(known)}; choose one")
    return known[name]()
