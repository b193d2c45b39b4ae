"""What is not installed by default."""

import importlib.util
from importlib.metadata import version

from packaging.version import Version

from nnunet_limited.errors import LimitedError


def require_extra(extra: str, what: str, *modules: str) -> None:
    """Raise LimitedError where a module of an extra of this package is not installed; ``what`` asks for it."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            raise LimitedError(f"{what} needs {module}, which is not installed; pip install 'nnunet-limited[{extra}]'")


def require_transformers(what: str) -> None:
    """Raise LimitedError without transformers, and for releases with which nnU-Net finds no trainer any more.

    Those put modules into ``sys.modules`` that import others when they are looked at, and nnU-Net looks at all of them.
    """
    require_extra("sam", what, "transformers")
    found = version("transformers")
    if (5, 4) <= Version(found).release[:2] < (5, 21):
        raise LimitedError(
            f"{what}: with transformers {found} nnU-Net does not find its trainers; pip install 'nnunet-limited[sam]', "
            "which installs a supported release"
        )
