"""Names that come from files: one rule for all that become names of files, and how text of files is shown."""

import re
from typing import Any

from nnunet_limited.errors import LimitedError

MAX_BYTES = 180  # of UTF-8: file systems allow 255, and ending, temporary names and suffixes are added
# What acts on terminals: control characters, ends of lines and changes of direction. Lone surrogates are no UTF-8.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# Datasets whose names go through the command lines of a workflow.
_IN_WORKFLOW = re.compile(r"Dataset\d{3}_[\w .+()-]*[\w)]")


def check_name(name: Any, what: str, in_files: bool = True) -> str:
    """Return ``name``; raise LimitedError if it cannot name one file, beginning with ``what`` has the name.

    It is a text without separators and control characters, neither empty nor hidden (``.`` and ``..`` are), and not too
    long. A name that is only shown, not ``in_files``, may have separators and any length.
    """
    if isinstance(name, str) and name.strip() and not _CONTROL.search(name):
        fits = name[0] != "." and not re.search(r"[/\\]", name) and len(name.encode()) <= MAX_BYTES
        if fits or not in_files:
            return name
    raise LimitedError(f"{what}: {_problem(name)}; rename it")


def _problem(name: Any) -> str:
    shown = f"{name!r:.60}"
    if not isinstance(name, str):
        return f"{shown} is no text"
    if _CONTROL.search(name):
        return f"{shown} has a control character, or is no UTF-8"
    if len(name.encode()) > MAX_BYTES:
        return f"{shown}… has more than {MAX_BYTES} bytes"
    return f"{shown} cannot name files, as it is empty, begins with '.' or has a separator"


def check_workflow_name(dataset: str) -> str:
    """Return the name of a dataset of a study; refuse one with characters that a shell or Snakemake may act on."""
    if not _IN_WORKFLOW.fullmatch(check_name(dataset, "dataset")):
        raise LimitedError(
            f"dataset {dataset!r} cannot be used in a study; rename its folder; letters, digits, spaces and _.+()- may "
            "follow Dataset123_"
        )
    return dataset


def printable(text: str) -> str:
    """Return ``text`` with control characters written as escapes, for a terminal."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)
