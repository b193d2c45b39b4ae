"""Whether a NIfTI file is whole: the default reader of nnU-Net fills what is missing of a ``.nii.gz`` with zeros."""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from nnunet_limited.errors import LimitedError

CHUNK = 1 << 20
GZIP = b"\x1f\x8b"
# Size of the header, and where dim, bitpix and vox_offset lie in it, with their types (NIfTI-1 and NIfTI-2).
HEADERS = {348: (40, "8h", 72, "h", 108, "f"), 540: (16, "8q", 14, "h", 168, "q")}


def require_whole(file: Path) -> None:
    """Raise LimitedError for a ``.nii`` or ``.nii.gz`` file that ends early or is damaged; others are not opened.

    A compressed file is read to its end, which checks its length and checksum, and its length is compared with its
    header.
    """
    if not file.name.lower().endswith((".nii", ".nii.gz")):
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


def _length(start: bytes) -> int | None:
    """Return the number of bytes that a NIfTI file with this start holds, None for another header."""
    for order in "<>":
        size = struct.unpack_from(f"{order}i", start)[0] if len(start) >= 4 else 0
        if size not in HEADERS or len(start) < size:
            continue
        dim_at, dim_type, bits_at, bits_type, offset_at, offset_type = HEADERS[size]
        count, *dim = struct.unpack_from(order + dim_type, start, dim_at)
        bits = struct.unpack_from(order + bits_type, start, bits_at)[0]
        offset = struct.unpack_from(order + offset_type, start, offset_at)[0]
        if 0 < count < 8 and bits >= 0 and math.isfinite(offset):
            return int(offset) + math.prod(max(1, n) for n in dim[:count]) * bits // 8
    return None
