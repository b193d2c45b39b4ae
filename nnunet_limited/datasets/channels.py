"""The channels of the cases of a dataset, which are those of the image that nnU-Net reads, not the number of files."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_limited.errors import LimitedError
from nnunet_limited.host.images import read_scan


def check_channels(
    images: Mapping[str, Sequence[Path]], declared: int, reader: Callable[[], Any], folder: Path
) -> None:
    """Refuse a case whose ``images`` cannot have the ``declared`` number of channels.

    A file of colours, as PNG, holds several. Where the number of files is another one, the first such case is read by
    the class that ``reader`` returns; a plan looks at the channels of each case.
    """
    read: dict[int, int] = {}
    for case, files in images.items():
        count = len(files)
        if count != declared and count not in read:
            read[count] = len(read_scan(reader()(), files)[0]) if files else 0
        if read.get(count, count) != declared:
            found = "" if read[count] == count else f", which hold {read[count]} channels,"
            raise LimitedError(
                f"case {case} in {folder} has {count} image files{found} but dataset.json declares {declared} "
                "channels; add the missing files or correct channel_names"
            )
