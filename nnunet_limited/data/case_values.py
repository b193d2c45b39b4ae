"""Numbers that belong to a preprocessed case: computed once, in worker processes, and stored beside the cases."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nnunet_limited.util.files import replacing
from nnunet_limited.util.locks import one_at_a_time
from nnunet_limited.util.parallel import default_processes, run_all


def values_of_cases(
    function: Callable[[Path, str], np.ndarray],
    folder: Path,
    cases: Sequence[str],
    name: str,
    description: str,
    pool_from: int,
) -> list[np.ndarray]:
    """Return ``function(folder, case)`` of each of the ``cases``, which lie preprocessed in ``folder``.

    The arrays are stored in a folder of this ``name`` beside it and are used again while the files of the case are the
    same. One process computes them, the others wait for it; from ``pool_from`` cases on it is helped by worker
    processes, which take seconds to start. Nothing is stored where nothing can be written.
    """
    store = folder.with_name(f"{folder.name}_{name}")
    if not os.access(folder.parent, os.W_OK):
        return _computed(function, folder, cases, description, pool_from)
    found = {case: _stored(store, folder, case) for case in cases}
    if any(values is None for values in found.values()):
        with one_at_a_time(store):
            found = {case: _stored(store, folder, case) for case in cases}
            missing = [case for case, values in found.items() if values is None]
            made = _computed(function, folder, missing, description, pool_from)
            for case, values in zip(missing, made, strict=True):
                found[case] = values
                with replacing(store / f"{case}.npz") as temporary, temporary.open("wb") as stream:
                    np.savez(stream, values=values, stamp=_stamp(folder, case))
    return [values for values in found.values() if values is not None]


def _computed(
    function: Callable[[Path, str], np.ndarray], folder: Path, cases: Sequence[str], description: str, pool_from: int
) -> list[np.ndarray]:
    processes = default_processes() if len(cases) >= pool_from else 1
    return run_all(function, [(folder, case) for case in cases], processes, description)


def _stored(store: Path, folder: Path, case: str) -> np.ndarray | None:
    """Return what is stored of a case, or None if there is nothing or the case has changed."""
    file = store / f"{case}.npz"
    if not file.is_file():
        return None
    with np.load(file) as content:
        return np.asarray(content["values"]) if np.array_equal(content["stamp"], _stamp(folder, case)) else None


def _stamp(folder: Path, case: str) -> np.ndarray:
    """Return time of change and size of the image and of the segmentation of a case."""
    states = [(folder / f"{case}{ending}.b2nd").stat() for ending in ("", "_seg")]
    return np.array([(state.st_mtime_ns, state.st_size) for state in states])
