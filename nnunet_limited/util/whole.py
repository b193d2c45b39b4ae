"""Whether an image file is there and whole, and what readers of NIfTI hide: missing data, and spacings of no length."""

import math
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from nnunet_limited.errors import LimitedError

CHUNK = 1 << 20
GZIP = b"\x1f\x8b"
NIFTI = (".nii", ".nii.gz")
# Size of the header, and where dim, bitpix and vox_offset lie in it, with their types (NIfTI-1 and NIfTI-2).
HEADERS = {348: (40, "8h", 72, "h", 108, "f"), 540: (16, "8q", 14, "h", 168, "q")}
STEPS = {348: (76, "8f"), 540: (104, "8d")}  # likewise of pixdim


def check_file(file: Path, what: str) -> None:
    """Raise LimitedError unless ``file`` is a file, or a link to one, that holds its own voxels."""
    try:
        mode = file.stat().st_mode
    except OSError as error:
        if file.is_symlink():
            raise LimitedError(
                f"{what} {file} is a link to {file.readlink()}, which cannot be opened ({error.strerror}); correct it"
            ) from error
        raise LimitedError(f"{what} {file} cannot be opened ({error.strerror}); put it there, or correct it") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise LimitedError(f"{what} {file} is {kind}, not an image file; replace it by the file, or remove it")
    other = _detached(file)
    if other:
        raise LimitedError(f"{what} {file} keeps its voxels in another file, {other}; save both as one file")


def require_whole(file: Path, what: str = "image") -> None:
    """Raise LimitedError unless ``file`` is a file with content and, if it is ``.nii`` or ``.nii.gz``, whole.

    A compressed file is read to its end, which checks its length and checksum, and its length is compared with its
    header.
    """
    check_file(file, what)
    if not file.stat().st_size:
        raise LimitedError(f"{what} {file} is empty (0 bytes); replace it by the whole file")
    if not file.name.lower().endswith(NIFTI):
        return
    try:
        with file.open("rb") as stream:
            start, length = b"", 0
            for part in uncompressed(stream):
                start, length = start or part, length + len(part)
    except (EOFError, zlib.error) as error:
        reason = str(error) or "it ends early"
        raise LimitedError(f"{file} is damaged ({reason}); copy or download it again") from error
    except OSError as error:
        raise _unreadable(file, error) from error
    needed = _length(start)
    if needed is not None and not 0 < needed <= length:
        reason = f"it holds {length} of {needed} bytes of its image" if needed else "its header has no voxels"
        raise LimitedError(f"{file} is damaged ({reason}); copy or download it again")


def uncompressed(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the uncompressed content in parts, of which the first holds the header; EOFError if it ends early.

    As in zlib, the file may consist of several compressed streams, and what follows them does not count.
    """
    data = stream.read(CHUNK)
    if data[:2] != GZIP:  # readers take an uncompressed file of this name too
        while data:
            yield data
            data = stream.read(CHUNK)
        return
    while data[:2] == GZIP:
        inflate = zlib.decompressobj(wbits=31)
        first = b""  # parts of a header
        while not inflate.eof:
            if not data:
                raise EOFError
            part = inflate.decompress(data, CHUNK)
            data = inflate.unconsumed_tail or (b"" if inflate.eof else stream.read(CHUNK))
            first += part
            if len(first) >= max(HEADERS) or inflate.eof:
                yield first
                first = b""
        data = inflate.unused_data or stream.read(CHUNK)
        data += stream.read(2) if len(data) == 1 else b""


def stored_spacing(file: Path) -> list[float] | None:
    """Return the spacing (x, y, z) in the header of a ``.nii`` or ``.nii.gz`` file along axes of several voxels.

    Readers take 1 for a spacing of 0 and for NaN. None is returned for other files and for unknown headers.
    """
    if not file.name.lower().endswith(NIFTI):
        return None
    with file.open("rb") as stream:
        start = next(uncompressed(stream), b"")
    found = _header(start)
    if found is None:
        return None
    order, size, dim = found
    steps = struct.unpack_from(order + STEPS[size][1], start, STEPS[size][0])[1:]
    return [step for step, n in zip(steps[: min(3, len(dim))], dim, strict=False) if n > 1]


def refuse_no_length(file: Path, what: str) -> None:
    """Raise LimitedError for a NIfTI file whose header has a spacing of 0 or NaN, for which readers take 1 mm."""
    wrong = [step for step in stored_spacing(file) or () if not (math.isfinite(step) and step)]
    if wrong:
        raise LimitedError(f"{what} {file} has the spacing {wrong[0]:g} in its header, which is no length; correct it")


def _header(start: bytes) -> tuple[str, int, tuple[int, ...]] | None:
    """Return byte order, size of the header and shape of a NIfTI file with this start, None for another header."""
    for order in "<>":
        size = struct.unpack_from(f"{order}i", start)[0] if len(start) >= 4 else 0
        if size in HEADERS and len(start) >= size:
            count, *dim = struct.unpack_from(order + HEADERS[size][1], start, HEADERS[size][0])
            if 0 < count < 8:
                return order, size, tuple(dim[:count])
    return None


def _length(start: bytes) -> int | None:
    """Return the number of bytes that a NIfTI file with this start holds, 0 for no voxels, None for another header."""
    found = _header(start)
    if found is None:
        return None
    order, size, dim = found
    _, _, bits_at, bits_type, offset_at, offset_type = HEADERS[size]
    bits = struct.unpack_from(order + bits_type, start, bits_at)[0]
    offset = struct.unpack_from(order + offset_type, start, offset_at)[0]
    if bits < 0 or not math.isfinite(offset):
        return None
    return int(offset) + math.prod(max(1, n) for n in dim) * bits // 8 if dim[0] > 0 else 0


def _detached(file: Path) -> str:
    """Return the other file that the header of an NRRD or MetaImage file names for its voxels, "" if there is none."""
    key = {".nrrd": rb"data ?file\s*:(?!=)", ".mha": rb"ElementDataFile\s*=\s*(?!LOCAL\b)"}.get(file.suffix.lower())
    if key is None:
        return ""
    try:
        with file.open("rb") as stream:
            header = stream.read(1 << 16)
    except OSError as error:
        raise _unreadable(file, error) from error
    header = re.split(rb"\r?\n\r?\n|ElementDataFile\s*=\s*LOCAL", header, maxsplit=1)[0]
    found = re.search(rb"^" + key + rb"[ \t]*([^\r\n]*)", header, re.MULTILINE | re.IGNORECASE)
    return found[1].decode(errors="replace").strip() if found else ""


def _unreadable(file: Path, error: OSError) -> LimitedError:
    remedy = "correct its permissions" if isinstance(error, PermissionError) else "check the disk, or copy it again"
    return LimitedError(f"{file} cannot be read ({error.strerror}); {remedy}")
