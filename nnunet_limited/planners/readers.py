"""Which preprocessed files the running trainings read, so that planning does not replace them meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from nnunet_limited.errors import LimitedError
from nnunet_limited.util.files import HOST, write_json
from nnunet_limited.util.locks import alone_inside, holder_of, is_held
from nnunet_limited.util.provenance import read_record

READERS = ".readers"  # in the preprocessed folder of a dataset: a folder for each training that runs
TRUTH = "gt_segmentations"
REPLACING = "replacing"
_numbers = itertools.count()


@contextmanager
def reading(preprocessed: Path, cases: Mapping[str, Iterable[str]]) -> Iterator[None]:
    """State that this process reads ``cases`` of folders in ``preprocessed``, by the folders' names, during the block.

    It waits until nothing is being replaced there. Where nothing can be written nothing is stated.
    """
    if not os.access(preprocessed, os.W_OK):
        yield
        return
    place = preprocessed / READERS / f"{os.getpid()}-{HOST}-{next(_numbers)}"
    with contextlib.ExitStack() as stack:
        with alone_inside(preprocessed, REPLACING, wait=True):
            stack.enter_context(alone_inside(place, "reading"))
            content = {folder: sorted(some) for folder, some in cases.items()}
            write_json(place / "cases.json", content)
        try:
            yield
        finally:
            _remove(place)


@contextmanager
def replacing_cases(preprocessed: Path, cases: Mapping[str, Iterable[str]]) -> Iterator[None]:
    """Replace files of ``cases`` in the block; refuse that while another process trains on one of them.

    Trainings that start meanwhile wait. Nothing happens if there are no cases.
    """
    if not any(cases.values()):
        yield
        return
    with alone_inside(preprocessed, REPLACING, wait=True):
        refuse_read(preprocessed, cases)
        yield


def refuse_read(preprocessed: Path, cases: Mapping[str, Iterable[str]]) -> None:
    """Raise LimitedError if another process trains on one of the ``cases``, by the names of their folders."""
    for place in _places(preprocessed):
        if place.name.startswith(f"{os.getpid()}-{HOST}-"):
            continue
        lock = place / ".reading.lock"
        if not is_held(lock):
            _remove(place)  # of a process that has ended
            continue
        read = read_record(place / "cases.json") or {}
        for folder, some in cases.items():
            both = sorted({*some} & {*read.get(folder, ())})
            if both:
                raise LimitedError(
                    f"{preprocessed / folder}: case {both[0]!r} has to be made again, but {holder_of(lock)} is "
                    "training on it; wait until that ends, or stop it"
                )


def is_any_reading(preprocessed: Path) -> bool:
    """Return whether a training may be running on the dataset."""
    return bool(_places(preprocessed))


def _places(preprocessed: Path) -> list[Path]:
    folder = preprocessed / READERS
    return sorted(place for place in folder.iterdir() if place.is_dir()) if folder.is_dir() else []


def _remove(place: Path) -> None:
    with contextlib.suppress(OSError):
        for file in place.iterdir():
            file.unlink(missing_ok=True)
        place.rmdir()
