"""Who works on what: locks that end with their process, and that name their holder to others."""

import contextlib
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from nnunet_limited.errors import LimitedError
from nnunet_limited.util.files import clear_abandoned, unwritable
from nnunet_limited.util.provenance import read_record

SHORT = 0.3  # seconds in which another process may only be looking whether a lock is held
PATIENCE = 1.0  # seconds to wait without a line
_mine: dict[Path, int] = {}  # how often this process holds each lock of :func:`alone`


@contextmanager
def one_at_a_time(place: Path) -> Iterator[None]:
    """Let one process at a time work on ``place``; the others wait, with a line on stderr that names it.

    The lock of a killed process is void, and temporary files that it left in ``place`` are removed.
    """
    with _locked(place, place.with_name(f".{place.name}.lock"), wait=True):
        yield


@contextmanager
def alone(place: Path, kind: str = "", wait: bool = False) -> Iterator[None]:
    """Work on ``place`` while no other process does; raise LimitedError, which names the other one, if there is one.

    With ``wait`` it is waited for. Locks of different kinds do not exclude each other. A process may hold a lock
    several times.
    """
    with _held(place, place.with_name(f".{place.name}.{kind}.lock" if kind else f".{place.name}.lock"), wait):
        yield


@contextmanager
def alone_inside(folder: Path, kind: str, wait: bool = False) -> Iterator[None]:
    """Do as :func:`alone`, with the lock inside ``folder``, beside which nobody may be allowed to write."""
    with _held(folder, folder / f".{kind}.lock", wait):
        yield


@contextmanager
def _held(place: Path, file: Path, wait: bool) -> Iterator[None]:
    key = file.absolute()
    with contextlib.ExitStack() as stack:
        if not _mine.get(key):
            stack.enter_context(_locked(place, file, wait))
        _mine[key] = _mine.get(key, 0) + 1
        try:
            yield
        finally:
            _mine[key] -= 1


@contextmanager
def _locked(place: Path, file: Path, wait: bool) -> Iterator[None]:
    lock = FileLock(file, mode=0o666)  # others of a group share the folder
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _acquire(lock, place, wait)
    except OSError as error:
        raise unwritable(place, error) from error
    about = holder_file(file)
    try:
        with contextlib.suppress(OSError):
            about.write_text(json.dumps(this_process()), encoding="utf-8")
        clear_abandoned(place)
        yield
    finally:
        with contextlib.suppress(OSError):
            about.unlink(missing_ok=True)
        lock.release()


def _acquire(lock: BaseFileLock, place: Path, wait: bool) -> None:
    try:
        lock.acquire(timeout=PATIENCE if wait else 0)
    except Timeout as error:
        holder = holder_of(Path(lock.lock_file))
        if not wait:
            raise LimitedError(f"{place} is in use by {holder}; wait until that ends, or stop it") from error
        print(f"waiting for {place}, in use by {holder}", file=sys.stderr, flush=True)
        lock.acquire()


def is_held(file: Path) -> bool:
    """Return whether a process, of any machine, holds the lock ``file``."""
    try:
        with FileLock(file, timeout=SHORT, mode=0o666):
            return False
    except Timeout:
        return True
    except OSError:  # it has gone
        return False


def holder_file(lock: Path) -> Path:
    """Return where it is recorded who holds a lock."""
    return lock.with_name(f"{lock.name}.json")


def holder_of(lock: Path) -> str:
    """Return who holds a lock, for people."""
    about = read_record(holder_file(lock)) or {}
    if not {"command", "process", "host", "since"} <= about.keys():  # it has just begun, or is of an earlier version
        return "another process"
    return f"'{about['command']}' (process {about['process']} on {about['host']}, since {about['since']})"


def this_process() -> dict[str, Any]:
    """Return the command of this process, its id, its host and the time, as JSON."""
    program = Path(sys.argv[0] or "python").name
    command = shlex.join(["nnunet-limited" if program == "__main__.py" else program, *sys.argv[1:]])
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"command": f"{command:.300}", "process": os.getpid(), "host": socket.gethostname(), "since": now}
