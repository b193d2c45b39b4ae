"""The trainers. nnU-Net finds them by name; each is a short module on :class:`LimitedTrainer`.

Every class called ``Limited…Trainer`` of a module in ``semi_supervised/``, ``sparse/`` or ``two_stage/`` is exported.
"""

from importlib import import_module
from pkgutil import walk_packages
from typing import Any

from nnunet_limited.engine.split_trainer import trainer_classes
from nnunet_limited.engine.step import LimitedTrainer

METHODS = ("supervised", "semi_supervised", "sparse", "two_stage")

for found in walk_packages(__path__, f"{__name__}."):
    if found.name.split(".")[2] in METHODS:
        import_module(found.name)
_classes = {cls.__name__: cls for cls in trainer_classes() if cls.__module__.startswith(f"{__name__}.")}
globals().update(_classes)

ALIASES: dict[str, str] = {n: c.alias_of for n, c in sorted(_classes.items()) if "alias_of" in vars(c) and c.alias_of}
"""The field's short names, each with the trainer that it stands for."""

__all__ = ["ALIASES", "LimitedTrainer", "trainer_classes"]
__all__ += sorted(_classes)


def __getattr__(name: str) -> Any:
    """Fail as for any other module; type checkers learn from it that there are more names than they see."""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
