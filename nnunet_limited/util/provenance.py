"""What a file was made from: a record beside it that names its sources by their content.

A result counts only while its record names the sources that are there now. Dates do not tell: a corrected file may be
older than what was made of the former one. Only where a result of an earlier version has no record do they count.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.errors import LimitedError
from nnunet_limited.util.files import is_current, read_object, write_json

ENDING = ".sources.json"


def array_digest(array: np.ndarray, about: Any = None) -> str:
    """Return a digest of the values and shape of ``array``, whatever its type, and of JSON-like ``about``."""
    found = hashlib.blake2b(json.dumps([list(array.shape), about]).encode(), digest_size=8)
    found.update(np.ascontiguousarray(array, np.float32) + np.float32(0))  # -0 is 0
    return found.hexdigest()


def stamp(file: Path) -> list[int]:
    """Return size, time of change in ns and inode of a file: while they are the same, so is its content."""
    state = file.stat()
    return [state.st_size, state.st_mtime_ns, state.st_ino]


def record_file(file: Path) -> Path:
    """Return where it is recorded what ``file`` was made from."""
    return file.with_name(f".{file.name}{ENDING}")


def read_record(file: Path) -> dict[str, Any] | None:
    """Return the content of a record of our own; None if it is not there or broken, as what it is about counts then."""
    try:
        return read_object(file, "record", "delete it") if file.is_file() else None
    except LimitedError:
        return None


def write_sources(file: Path, sources: Mapping[str, Any]) -> None:
    """Record what ``file``, which is there now, was made from; ``sources`` are JSON."""
    write_json(record_file(file), {"sources": dict(sources), "file": stamp(file)[:1]})


def is_made_from(file: Path, sources: Mapping[str, Any], before: Iterable[Path]) -> bool:
    """Return whether ``file`` is there, has the size that it was written with, and was made from these ``sources``.

    One without record, of an earlier version, counts if it is not older than the files ``before``; it is recorded then.
    """
    if not file.is_file():
        return False
    record = read_record(record_file(file))
    if record is not None:
        return record.get("sources") == json.loads(json.dumps(dict(sources))) and record["file"] == stamp(file)[:1]
    if not is_current(file, before):
        return False
    with contextlib.suppress(LimitedError):  # in a folder that cannot be written
        write_sources(file, sources)
    return True


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the keys whose values differ, or that only one has, sorted."""
    return sorted(key for key in {*before, *now} if before.get(key) != now.get(key))


class DigestCache:
    """Digests of files by path, size, time and inode, so that each file is read once; kept in one JSON file.

    A broken cache counts as empty. Where it cannot be written, files are read again by the next process.
    """

    def __init__(self, file: Path) -> None:
        """Read ``file`` if it is there."""
        self.file = file
        self.found: dict[str, Any] = read_record(file) or {}
        self.new: dict[str, Any] = {}

    def get(self, files: Sequence[Path]) -> str | None:
        """Return the digest of ``files``, the channels of one image, if they are as they were; else None."""
        entry = self.new.get(_key(files)) or self.found.get(_key(files))
        return entry[1] if entry and entry[0] == [stamp(file) for file in files] else None

    def add(self, files: Sequence[Path], digest: str) -> None:
        """Remember the digest of ``files``."""
        entry = [[stamp(file) for file in files], digest]
        if self.found.get(_key(files)) != entry:
            self.new[_key(files)] = entry

    def save(self) -> None:
        """Write what is new; what other processes have written meanwhile is kept."""
        if self.new:
            self.found = {**(read_record(self.file) or {}), **self.new}
            self.new = {}
            with contextlib.suppress(LimitedError):  # in a folder that cannot be written
                write_json(self.file, self.found)


@functools.lru_cache(maxsize=8)
def digest_cache(file: Path) -> DigestCache:
    """Return the cache in ``file``, one for all checks of this process."""
    return DigestCache(file)


def _key(files: Sequence[Path]) -> str:
    return "\n".join(map(str, files))
