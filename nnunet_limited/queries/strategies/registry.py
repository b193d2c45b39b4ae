"""Find the query strategies by their names, those of other packages included."""

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules

from nnunet_limited.errors import LimitedError
from nnunet_limited.queries import strategies as folder
from nnunet_limited.queries.strategies.base import STRATEGIES, Strategy
from nnunet_limited.util.modules import load_entry

GROUP = "nnunet_limited.query_strategies"


def strategies() -> dict[str, type[Strategy]]:
    """Return every strategy by its name: those of the modules of this folder and of the entry points ``GROUP``."""
    _load()
    return dict(sorted(STRATEGIES.items()))


@cache
def _load() -> None:
    """Import the modules and entry points; each strategy registers itself when its class is made."""
    for module in iter_modules(folder.__path__, f"{folder.__name__}."):
        import_module(module.name)
    for entry in entry_points(group=GROUP):
        load_entry(entry)


def find_strategy(name: str) -> Strategy:
    """Return the strategy of a name; raise LimitedError if there is none."""
    found = strategies()
    if name not in found:
        raise LimitedError(f"strategy {name!r} is none of {', '.join(found)}; choose one")
    return found[name]()
