"""Modules of the user, which may be missing or broken."""

import sysconfig
import traceback
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from nnunet_limited.errors import LimitedError

# Of Python, of installed packages and of this one: not where a mistake of the user lies.
_OTHERS = [*(sysconfig.get_path(name) for name in ("stdlib", "platlib", "purelib")), str(Path(__file__).parents[1])]


def import_failure(error: BaseException) -> str:
    """Return where and why the import of a module failed: the file of the user, the line and the error."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_file()]
    users = [frame for frame in frames if not any(Path(frame.filename).is_relative_to(other) for other in _OTHERS)]
    where = next((f"{frame.filename}, line {frame.lineno}: " for frame in reversed(users or frames)), "")
    return f"{where}{type(error).__name__}: {' '.join(str(error).split())}"


def load_object(module: str, name: str, spec: str) -> Any:
    """Return the object ``name`` of a ``module`` of the user; ``spec`` names both in errors."""
    try:
        return getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise LimitedError(f"{spec!r} cannot be found ({error}); check its spelling and PYTHONPATH") from error
        raise broken(spec, error) from error
    except AttributeError as error:
        if error.name != name:
            raise broken(spec, error) from error
        raise LimitedError(f"{spec!r} cannot be found ({error}); check its spelling and PYTHONPATH") from error
    except (Exception, SystemExit) as error:
        raise broken(spec, error) from error


def load_entry(entry: EntryPoint) -> Any:
    """Return what an entry point of another package names."""
    try:
        return entry.load()
    except (Exception, SystemExit) as error:
        raise LimitedError(
            f"plug-in {entry.name!r} ({entry.value}) cannot be loaded ({import_failure(error)}); update or remove its "
            "package"
        ) from error


def broken(spec: str, error: BaseException) -> LimitedError:
    """Return the error for code of the user, named by ``spec``, that raised ``error`` while it was loaded."""
    return LimitedError(f"{spec!r} cannot be loaded ({import_failure(error)}); correct that file")
