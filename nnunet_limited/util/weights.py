"""Checkpoints and pickles got from others: read as numbers and arrays, or refused, as pickle runs the code in them."""

import pickle
import re
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.errors import LimitedError
from nnunet_limited.util.provenance import stamp

UNREADABLE = (
    RuntimeError,
    EOFError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    OSError,
    LookupError,
    TypeError,
    ValueError,
    ImportError,
    AttributeError,
    RecursionError,
)
RUNS = "loading it could run any code, so it is not loaded"


def _names_of_numpy() -> dict[str, Any]:
    """Return what pickles of arrays and numbers name, also under the names that numpy 1 and 2 have for their core."""
    core = np._core if hasattr(np, "_core") else np.core
    found: dict[str, Any] = {"numpy.dtype": np.dtype, "numpy.ndarray": np.ndarray}
    for module, name in (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer")):
        rebuild = getattr(getattr(core, module), name)
        found |= {f"numpy.{place}.{module}.{name}": rebuild for place in ("core", "_core")}
    kinds = {type(np.dtype(code)) for code in np.typecodes["All"]}
    return found | {f"{kind.__module__}.{kind.__qualname__}": kind for kind in kinds}


NUMPY = _names_of_numpy()
_PLAIN = {"collections.OrderedDict": OrderedDict, "builtins.set": set, "builtins.complex": complex}
_PLAIN |= {"builtins.bytearray": bytearray, "builtins.slice": slice, "builtins.range": range}


def read_weights(file: Any, remedy: str, what: str = "checkpoint", **options: Any) -> Any:
    """Return the content of a checkpoint of PyTorch on the CPU: tensors, arrays, numbers, texts and containers of them.

    ``file`` is a path or a stream. Raises LimitedError for a file that is damaged or names any other Python object,
    which nnU-Net would call. ``options`` are those of ``torch.load``.
    """
    import torch  # commands that only look at files do without

    shown = f"{what} {file}" if isinstance(file, Path) else what
    try:
        if isinstance(file, Path):
            if not zipfile.is_zipfile(file):
                options.pop("mmap", None)  # of files of PyTorch before 1.6
            if tarfile.is_tarfile(file):
                raise LimitedError(f"{shown} is a tar archive, which PyTorch does not read safely; {remedy}")
        known = torch.serialization.safe_globals([(made, name) for name, made in NUMPY.items()])
        with known, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd files, which are refused
            return torch.load(file, weights_only=True, **{"map_location": "cpu", **options})
    except LimitedError:
        raise
    except UNREADABLE as error:
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            raise LimitedError(f"{shown} refers to the Python object {named[1]}: {RUNS}; {remedy}") from error
        raise LimitedError(f"{shown} cannot be read; {remedy}") from error


class _PlainUnpickler(pickle.Unpickler):
    """Reads arrays, numbers, texts and containers of them."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle names; raise UnpicklingError for anything that could act."""
        known = NUMPY.get(f"{module}.{name}") or _PLAIN.get(f"{module}.{name}")
        if known is None and (module, name) == ("_codecs", "encode"):  # of bytes in old pickles
            return super().find_class(module, name)
        if known is None:
            raise pickle.UnpicklingError(f"refers to the Python object {module}.{name}")
        return known


def check_pickle(file: Path, remedy: str) -> None:
    """Raise LimitedError for a pickle of a preprocessed case that is damaged, or that could act when nnU-Net reads it.

    A file that is as it was is not read again by this process.
    """
    problem = _problem(file, *stamp(file))
    if problem:
        raise LimitedError(f"{file} {problem}; {remedy}")


@lru_cache(maxsize=100_000)
def _problem(file: Path, *state: int) -> str:
    try:
        with file.open("rb") as stream:
            _PlainUnpickler(stream).load()
    except pickle.UnpicklingError as error:
        return f"{error}: {RUNS}" if str(error).startswith("refers to") else "is damaged"
    except (*UNREADABLE, MemoryError):
        return "is damaged"
    return ""
