"""Files that are either complete or absent."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from nnunet_limited.errors import LimitedError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside ``path`` that takes its place when the block ends well.

    A run killed inside the block leaves ``path`` as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def is_current(file: Path, sources: Iterable[Path]) -> bool:
    """Return whether ``file`` is there and not older than any of the ``sources`` it is made from."""
    return file.is_file() and all(source.stat().st_mtime <= file.stat().st_mtime for source in sources)


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Let one process at a time work on ``folder``; the others wait. The lock of a killed process is void."""
    lock = FileLock(folder.with_name(f".{folder.name}.lock"), mode=0o666)  # others of a group share the folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        yield
    finally:
        lock.release()


def unwritable(path: Path, error: OSError) -> LimitedError:
    """Return the error to raise for a ``path`` that cannot be written."""
    return LimitedError(
        f"{path} cannot be written ({error.strerror or error}); free the disk, correct the folder's permissions "
        "or point nnUNet_preprocessed / nnUNet_results elsewhere"
    )


def replace_text(path: Path, content: str) -> None:
    """Write a text to ``path`` at once."""
    with replacing(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` to ``path`` at once."""
    replace_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path, what: str, remedy: str) -> Any:
    """Read ``path``; a missing or broken file is a one-line error naming ``what`` it is and the ``remedy``."""
    if not path.is_file():
        found = "is no file" if path.exists() else "does not exist"
        raise LimitedError(f"{what} {path} {found}; {remedy}")
    text = utf8_text(path, what)
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except RecursionError as error:
        raise LimitedError(f"{what} {path} is not readable JSON (too many brackets); repair it or {remedy}") from error
    except ValueError as error:
        raise LimitedError(f"{what} {path} is not readable JSON ({error}); repair it or {remedy}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; refuse a key that stands in it twice, of which only the last would count."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands twice in one object")
    return content


def utf8_text(path: Path, what: str) -> str:
    """Return the text of a UTF-8 file without the byte order mark that some programs begin it with."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LimitedError(f"{what} {path} is not UTF-8 text ({error.reason}); save it again as UTF-8") from error
    except OSError as error:
        raise LimitedError(f"{what} {path} cannot be read ({error.strerror}); correct its permissions") from error


def read_object(path: Path, what: str, remedy: str) -> dict[str, Any]:
    """Read ``path`` as :func:`read_json` does; anything but a JSON object is an error too."""
    content = read_json(path, what, remedy)
    if not isinstance(content, dict):
        raise LimitedError(f"{what} {path} holds {content!r:.40}, not a JSON object {{…}}; repair it or {remedy}")
    return content


def content_hash(content: Any) -> str:
    """Return a short hash of JSON-like ``content`` that does not depend on the order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """Return a short hash of the content of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
