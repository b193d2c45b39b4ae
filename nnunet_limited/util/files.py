"""Files that are either complete or absent."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nnunet_limited.errors import LimitedError
from nnunet_limited.util.children import is_running
from nnunet_limited.util.whole import NIFTI, require_whole

# What the system answers where a disk, a quota or a limit of file sizes is full, or a folder cannot be written.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
DISK_ERRORS = frozenset({*FULL, errno.EACCES, errno.EPERM, errno.ENOTDIR})
BY_LIBRARIES = re.compile("NDArray|blosc|write|unexpected pos")  # of blosc2 and torch, which raise RuntimeError
ABANDONED = re.compile(r"\.(?P<process>\d+)(?:-(?P<host>[0-9a-f]{8}))?\.tmp(?:\.[A-Za-z0-9.]+)?$")
DAY = 86_400.0
HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"


@contextmanager
def replacing(path: Path, ending: str = "") -> Iterator[Path]:
    """Yield a temporary name beside ``path`` that takes its place when the block ends well.

    A process killed inside the block leaves ``path`` as it was, and so does an error; a power cut leaves the old file
    or the new one. ``ending`` ends the temporary name, for writers that choose the format by it. A NIfTI file is read
    to its end, as its writers do not raise an error when the disk is full. Raises LimitedError for what the block
    raises on files that cannot be written (OSError, or RuntimeError of torch, blosc2 and SimpleITK).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{HOST}.tmp{ending}")
    try:
        yield temporary
        if ending.endswith(NIFTI):
            _require_whole(temporary, path)
        to_disk(temporary)
        os.replace(temporary, path)
        folder_to_disk(path.parent)
    except (OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" in str(error):
            raise
        raise unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # the disk is read-only, and nothing was written
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the errors of a full disk, or of one that cannot be written, into one line that names ``path``.

    It is for what others write; they may read files too.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise unwritable(Path(error.filename or path), error) from error
    except RuntimeError as error:
        if not BY_LIBRARIES.search(str(error)):
            raise
        raise unwritable(path, error) from error


def require_written(folder: Path) -> None:
    """Remove NIfTI files of which the disk took only a part from ``folder``; raise LimitedError if there are any."""
    for file in sorted(file for ending in NIFTI for file in folder.glob(f"*{ending}")):
        try:
            _require_whole(file, file)
        except LimitedError:
            file.unlink()
            raise


def _require_whole(temporary: Path, path: Path) -> None:
    try:
        require_whole(temporary)
    except LimitedError as error:
        raise unwritable(path, OSError(errno.ENOSPC, "the disk took only a part of it")) from error


def to_disk(file: Path) -> None:
    """Return when the content of a file is on the disk, and not only on its way there."""
    _sync(file, os.O_RDONLY if os.name == "posix" else os.O_RDWR)


def folder_to_disk(folder: Path) -> None:
    """Return when the names in a folder are on the disk, where the system can wait for that."""
    with contextlib.suppress(OSError):  # Windows opens no folder
        _sync(folder, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # the file system cannot
            raise
    finally:
        os.close(handle)


def move_files(targets: Mapping[Path, Path]) -> None:
    """Move files, each to its target in ``targets`` on the same disk, once the content of all is on the disk."""
    try:
        for file in targets:
            to_disk(file)
        for file, target in targets.items():
            os.replace(file, target)
        for folder in {target.parent for target in targets.values()}:
            folder_to_disk(folder)
    except OSError as error:
        raise unwritable(next(iter(targets.values())), error) from error


def clear_abandoned(folder: Path) -> None:
    """Remove temporary files of :func:`replacing` in ``folder`` whose processes have ended.

    Those of other machines are removed when they are a day old.
    """
    for file in folder.glob(".*.tmp*") if folder.is_dir() else ():
        found = ABANDONED.search(file.name)
        if found is None:
            continue
        with contextlib.suppress(OSError):
            here = found["host"] in (None, HOST)
            if not is_running(int(found["process"])) if here else time.time() - file.stat().st_mtime > DAY:
                file.unlink()


def copy_file(source: Path, target: Path) -> None:
    """Copy a file to ``target`` at once."""
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def is_current(file: Path, sources: Iterable[Path]) -> bool:
    """Return whether ``file`` is there and not older than any of the ``sources`` it is made from."""
    return file.is_file() and all(source.stat().st_mtime <= file.stat().st_mtime for source in sources)


def unwritable(path: Path, error: Exception) -> LimitedError:
    """Return the error to raise for a ``path`` that cannot be written."""
    text = " ".join(str(error).split("ITK ERROR:")[-1].split())[:150]
    reason = (isinstance(error, OSError) and error.strerror) or text or type(error).__name__
    return LimitedError(
        f"{path} cannot be written ({reason}); free the disk, correct the folder's permissions "
        "or point nnUNet_raw, nnUNet_preprocessed, nnUNet_results or TMPDIR elsewhere"
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
    found = hashlib.sha256()
    with path.open("rb") as stream:
        while part := stream.read(1 << 20):
            found.update(part)
    return found.hexdigest()[:16]
