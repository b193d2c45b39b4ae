"""What readers of NIfTI files hide: that a ``.nii.gz`` ends early, or that a spacing in the header is no length."""

import math
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


def require_whole(file: Path) -> None:
    """Raise LimitedError for a ``.nii`` or ``.nii.gz`` file that ends early or is damaged; others are not opened.

    A compressed file is read to its end, which checks its length and checksum, and its length is compared with its
    header.
    """
    if not file.name.lower().endswith(NIFTI):
        return
    try:
        with file.open("rb") as stream:
            start, length = b"", 0
            for part in _content(stream):
                start, length = start or part, length + len(part)
    except (EOFError, zlib.error, OSError) as error:
        reason = "it ends early" if isinstance(error, EOFError) else getattr(error, "strerror", None) or error
        raise LimitedError(f"{file} is damaged ({reason}); copy or download it again") from error
    if not length:
        raise LimitedError(f"{file} is damaged (it is empty); copy or download it again")
    needed = _length(start)
    if needed is not None and length < needed:
        raise LimitedError(
            f"{file} is damaged (it holds {length} of {needed} bytes of its image); copy or download it again"
        )


def _content(stream: BinaryIO) -> Iterator[bytes]:
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
        start = next(_content(stream), b"")
    found = _header(start)
    if found is None:
        return None
    order, size, dim = found
    steps = struct.unpack_from(order + STEPS[size][1], start, STEPS[size][0])[1:]
    return [step for step, n in zip(steps[: min(3, len(dim))], dim, strict=False) if n > 1]


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
    """Return the number of bytes that a NIfTI file with this start holds, None for another header."""
    found = _header(start)
    if found is None:
        return None
    order, size, dim = found
    _, _, bits_at, bits_type, offset_at, offset_type = HEADERS[size]
    bits = struct.unpack_from(order + bits_type, start, bits_at)[0]
    offset = struct.unpack_from(order + offset_type, start, offset_at)[0]
    if bits < 0 or not math.isfinite(offset):
        return None
    return int(offset) + math.prod(max(1, n) for n in dim) * bits // 8
