"""What a preprocessed case was made from, recorded in a folder beside those that nnU-Net reads."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import blosc2

from nnunet_limited.errors import LimitedError
from nnunet_limited.util.files import file_hash, is_current, write_json
from nnunet_limited.util.provenance import read_record, stamp
from nnunet_limited.util.weights import check_pickle

FILES = (".b2nd", "_seg.b2nd", ".pkl")  # of a case
SHAPED_BY = ("image", "label")  # the truth is copied elsewhere


@dataclass
class CaseRecord:
    """What a case was made from, and the files made.

    ``digests`` are those of its "image", of the "label" that it is learned with and of the "truth" that it is validated
    with, where it has them; ``sources`` has under the same keys the :func:`stamp` of each raw file by its path below
    ``nnUNet_raw``. ``files`` has the stamp and the digest of each file of the case by its ending.
    """

    digests: dict[str, str]
    sources: dict[str, dict[str, list[int]]]
    files: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, case: str) -> CaseRecord | None:
        """Return the record of a case; None if there is none, as for cases of nnU-Net and of earlier versions."""
        content = read_record(record_file(folder, case))
        try:
            return None if content is None else cls(**content)
        except TypeError:  # of a later version
            return None

    @property
    def raw_files(self) -> list[Path]:
        """The raw files."""
        return [Path(raw_root(), file) for files in self.sources.values() for file in files]

    def write(self, folder: Path, case: str) -> None:
        """Record this of a case whose files are in ``folder``."""
        self.files = {ending: [stamp(file), file_hash(file)] for ending, file in files_of(folder, case).items()}
        write_json(record_file(folder, case), asdict(self))

    def fits(self, folder: Path, case: str, closely: bool) -> bool:
        """Return whether the files of the case are as they were written: by size or, if ``closely``, by content."""
        for ending, file in files_of(folder, case).items():
            written, digest = self.files.get(ending, ([-1], ""))
            if not file.is_file() or file.stat().st_size != written[0]:
                return False
            if closely and stamp(file) != written and file_hash(file) != digest:
                return False
        return True


def record_file(folder: Path, case: str) -> Path:
    """Return where the record of a case lies; nnU-Net expects nothing but cases in ``folder``."""
    return folder.with_name(f"{folder.name}_sources") / f"{case}.json"


def files_of(folder: Path, case: str) -> dict[str, Path]:
    """Return the files of a preprocessed case by their ending."""
    return {ending: folder / f"{case}{ending}" for ending in FILES}


def is_whole(folder: Path, case: str) -> bool:
    """Return whether the files of a case can be opened."""
    try:
        for file in files_of(folder, case).values():
            if file.suffix == ".pkl":
                check_pickle(file, "")
            else:
                blosc2.open(str(file), mode="r")
    except (OSError, RuntimeError, ValueError, EOFError):
        return False
    return True


def contents_of(folder: Path, case: str) -> list[Any]:
    """Identify image and label that a preprocessed case was made from; without a record by its files as they are."""
    record = CaseRecord.read(folder, case)
    if record is not None:
        return [record.digests.get(kind) for kind in SHAPED_BY]
    return [stamp(file)[:2] for file in files_of(folder, case).values() if file.is_file()]


def begin_replacing(folder: Path, case: str) -> None:
    """Record that the files of a case do not belong together until its record is written again."""
    if any(file.is_file() for file in files_of(folder, case).values()):
        write_json(record_file(folder, case), asdict(CaseRecord({}, {})))


def why_not_current(folder: Path, case: str, now: CaseRecord) -> str | None:
    """Return why a case has to be made from what is there ``now``; None if it has not, "" if it never was.

    A case without record counts if its files can be opened and no source is newer; it is recorded then.
    """
    files, sources = files_of(folder, case), now.raw_files
    if not any(file.is_file() for file in files.values()):
        return ""
    record = CaseRecord.read(folder, case)
    if record is None:
        if not is_whole(folder, case):
            return "its files are damaged"
        if not is_current(files[".pkl"], sources):
            return "its image or label is newer"
    elif not record.digests:
        return "its files are incomplete"
    else:
        changed = [kind for kind in SHAPED_BY if record.digests.get(kind) != now.digests.get(kind)]
        if changed:
            return f"its {changed[0]} has changed"
        if not record.fits(folder, case, closely=True):
            return "its files are damaged"
    if record is None or (record.sources, record.digests) != (now.sources, now.digests):
        with contextlib.suppress(LimitedError):  # a folder that cannot be written
            now.write(folder, case)
    return None


def stamps(files: Sequence[Path]) -> dict[str, list[int]]:
    """Return the stamps of raw files by their paths below ``nnUNet_raw``."""
    return {os.path.relpath(file, raw_root()): stamp(file) for file in files}


def raw_root() -> str:
    """Return ``nnUNet_raw``, which need not be there where training runs."""
    return os.environ.get("nnUNet_raw") or "/nonexistent"
