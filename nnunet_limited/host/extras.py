"""What is not installed by default."""

from __future__ import annotations

import importlib.util

from nnunet_limited.errors import LimitedError


def need(extra: str, what: str, *modules: str) -> None:
    """Raise LimitedError where a module of an extra of this package is not installed; ``what`` asks for it."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise LimitedError(f"{what} needs {module}, which is not installed; pip install 'nnunet-limited[{extra}]'")
