"""How processes of ours are started: with modules of installed packages only, and with texts in UTF-8."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HAS_SAFE_PATH = sys.version_info >= (3, 11)
_RUN = "import runpy, sys; sys.argv[:1] = []; runpy.run_module({!r}, None, '__main__', True)"


def protect_children() -> None:
    """Let every Python that this process starts, and those that it starts, ignore modules in the working folder.

    They also take texts for UTF-8, whatever the locale is. Python 3.10 does not know the first variable.
    """
    os.environ["PYTHONSAFEPATH"] = os.environ["PYTHONUTF8"] = "1"


def python_code(code: str) -> list[str]:
    """Return the words that run Python ``code``, whatever modules lie in the working folder."""
    if HAS_SAFE_PATH:
        return [sys.executable, "-P", "-c", code]
    return [sys.executable, "-c", f"import sys; del sys.path[0]\n{code}"]


def python_module(module: str) -> list[str]:
    """Return the words that run an installed module as a command, whatever modules lie in the working folder."""
    if HAS_SAFE_PATH:
        return [sys.executable, "-P", "-m", module]
    return [*python_code(_RUN.format(module)), module]  # -m would look for runpy itself in the working folder


@contextmanager
def safe_folder() -> Iterator[None]:
    """Let worker processes that are started meanwhile begin in a folder without modules.

    Only Python 3.10 needs that; the workers return to the working folder when they have begun.
    """
    if HAS_SAFE_PATH:
        yield
        return
    before = Path.cwd()
    os.chdir(Path(sys.executable).parent)
    try:
        yield
    finally:
        os.chdir(before)


def use_utf8() -> None:
    """Start this command again in UTF-8 where the locale has another encoding, in which names cannot be written."""
    if sys.platform != "win32" and sys.getfilesystemencoding() != "utf-8" and "utf8" not in sys._xoptions:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
