"""What plans may name: nnU-Net imports and calls the Python objects in them, so they are checked before it does."""

import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nnunet_limited.errors import LimitedError
from nnunet_limited.util.names import check_name

NETWORKS = "nnunet_limited.networks"  # the group of entry points by which packages add their own
PACKAGES = ("dynamic_network_architectures", "nnunetv2", "torch.nn")
# Keys whose values nnU-Net looks up by name among its own classes and functions, and those that become folders.
_IDENTIFIERS = r"preprocessor_name|resampling_fn_\w+|normalization_schemes|label_manager|image_reader_writer"
_IDENTIFIERS += r"|experiment_planner_used|UNet_class_name"
_FOLDERS = ("data_identifier", "previous_stage", "dataset_name", "plans_name")


def check_networks(plans: dict[str, Any], file: Path) -> None:
    """Raise LimitedError for plans that name a Python object other than networks and their layers, or other folders.

    Networks and layers are those of :data:`PACKAGES` and of entry points of the group :data:`NETWORKS`. Nothing is
    imported.
    """
    configurations = plans.get("configurations")
    for part in (plans, *(configurations.values() if isinstance(configurations, dict) else ())):
        if isinstance(part, dict):
            _check_part(part, file)
    for name in configurations if isinstance(configurations, dict) else ():
        check_name(name, f"{file}: configuration")


def _check_part(part: dict[str, Any], file: Path) -> None:
    for key, value in part.items():
        if re.fullmatch(_IDENTIFIERS, key) and not key.endswith("_kwargs"):
            for name in value if isinstance(value, list) else [value]:
                if name is not None and not (isinstance(name, str) and name.isidentifier()):
                    raise LimitedError(f"{file}: {key!r} is {name!r:.60}, no name of nnU-Net; restore the plans")
        elif key in _FOLDERS and value is not None:
            check_name(value, f"{file}: {key!r}")
    for name in _imported(part.get("architecture")):
        if not is_allowed(name):
            raise LimitedError(
                f"{file} names the network or layer {name!r:.80}, which nnU-Net would call; it is none of "
                f"{', '.join(PACKAGES)}; restore the plans, or install a package that adds it to the entry points "
                f"{NETWORKS}"
            )


def _imported(architecture: Any) -> Iterator[Any]:
    """Yield the names of all that nnU-Net imports to build a network."""
    if not isinstance(architecture, dict):
        return
    yield architecture.get("network_class_name")
    values, keys = architecture.get("arch_kwargs"), architecture.get("_kw_requires_import")
    for key in keys if isinstance(keys, (list, tuple)) else ():
        value = values.get(key) if isinstance(values, dict) and isinstance(key, str) else None
        if value is not None:
            yield value


def is_allowed(name: Any) -> bool:
    """Return whether a dotted name is that of a class in :data:`PACKAGES`, or one that another package has added."""
    if not isinstance(name, str) or not all(word.isidentifier() for word in name.split(".")):
        return False
    module, _, kind = name.rpartition(".")
    if kind[:1].isupper() and name.startswith(tuple(f"{package}." for package in PACKAGES)):
        return module == "torch.nn" or _is_defined(module, kind)
    added = {entry.value.replace(":", ".") for entry in entry_points(group=NETWORKS)}
    return any(name == one or name.startswith(f"{one}.") for one in added)


@cache
def _is_defined(module: str, kind: str) -> bool:
    """Return whether the file of a ``module`` defines the class ``kind``, and does not import it from elsewhere.

    nnU-Net looks for architectures whose module is not there any more in the other modules of its folder.
    """
    top, *inner = module.split(".")
    found = find_spec(top)
    for place in (found.submodule_search_locations or ()) if found else ():
        base = Path(place, *inner)
        files = [file for file in (base.with_suffix(".py"), base / "__init__.py") if file.is_file()]
        if not files and base.parent == Path(place, "architectures") and top == PACKAGES[0]:
            files = [*base.parent.glob("*.py")]
        pattern = re.compile(rf"^class {kind}\b", re.MULTILINE)
        if any(pattern.search(file.read_text(encoding="utf-8")) for file in files):
            return True
    return False
