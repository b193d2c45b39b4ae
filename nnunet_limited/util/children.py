"""Processes that end with the one that started them, however that ends.

Python runs this file too, alone: it ties its process to the one of the given id and becomes the command that follows.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

SECONDS = 1.0  # between two looks at a process that is not watched by the system
SET_PDEATHSIG = 1  # of Linux's prctl: the signal to get when the parent ends
RUN = "NNUNET_LIMITED_RUN"  # has the process of a study that runs its jobs on this machine


def tied(command: Sequence[str]) -> list[str]:
    """Return the command that starts ``command`` in a process that ends with this one."""
    return [sys.executable, "-I", __file__, str(os.getpid()), *command]


def end_with(process: int, start: str = "") -> None:
    """Let this process be killed when another one, its parent as a rule, has ended; call it in the main thread.

    ``start`` is what :func:`start_of` has returned for the other one, so that no later process is taken for it.
    """
    if start and start_of(process) != start:  # it has ended before
        _end()
    if os.getppid() == process and _end_with_parent():
        if os.getppid() != process:  # it ended meanwhile
            _end()
        return
    if os.name == "posix":
        start = start or start_of(process)
        threading.Thread(target=_watch, args=(process, start), daemon=True).start()


def _watch(process: int, start: str) -> None:
    while is_running(process) and start_of(process) == start:
        time.sleep(SECONDS)
    _end()


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _end_with_parent() -> bool:
    """Ask Linux to kill this process when the thread that started it ends; return whether it does."""
    if sys.platform != "linux":
        return False
    with contextlib.suppress(OSError, AttributeError):
        return bool(ctypes.CDLL(None).prctl(SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0)
    return False


def is_running(process: int) -> bool:
    """Return whether a process of this machine is there; on Windows, where that cannot be asked, always True."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True


def start_of(process: int) -> str:
    """Return when a process began, as Linux counts it; "" if that is not known."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8") as stream:
            return stream.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def as_run(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which :func:`end_with_run` ties processes of this machine to this one."""
    return {**environment, RUN: f"{socket.gethostname()} {os.getpid()} {start_of(os.getpid())}"}


def end_with_run() -> None:
    """Let this process end with the one that runs the study, whose jobs are no children of it."""
    host, _, rest = os.environ.get(RUN, "").partition(" ")
    process, _, start = rest.partition(" ")
    if host == socket.gethostname() and process.isdecimal():
        end_with(int(process), start)


_forks_are_tied = False
_in_main_thread = False


def tie_forks() -> None:
    """Let processes that are forked from the main thread of this one from now on end with it, as loaders of data."""
    global _forks_are_tied
    if sys.platform == "linux" and not _forks_are_tied:
        _forks_are_tied = True
        os.register_at_fork(before=_before_fork, after_in_child=_after_fork)


def _before_fork() -> None:
    global _in_main_thread
    _in_main_thread = threading.current_thread() is threading.main_thread()


def _after_fork() -> None:
    if _in_main_thread:  # Linux looks at the thread
        _end_with_parent()


def main(arguments: Sequence[str]) -> int:
    """Tie this process to that of the first argument and become the command in the others."""
    parent, *command = arguments
    if sys.platform == "linux":
        end_with(int(parent))
        try:
            os.execvp(command[0], command)
        except OSError as error:
            print(f"{command[0]}: {error.strerror}", file=sys.stderr)
            return 127
    process = subprocess.Popen(command)
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            return process.wait(SECONDS)
        if not is_running(int(parent)):
            process.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
