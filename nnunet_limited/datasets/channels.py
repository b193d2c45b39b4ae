"""The channels of the cases of a dataset, which are those of the image that nnU-Net reads, not the number of files."""

import re
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
    _check_numbers(images, folder)
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


def _check_numbers(images: Mapping[str, Sequence[Path]], folder: Path) -> None:
    """Refuse a case whose files have other channel numbers than as many files of another case have.

    nnU-Net goes by their order: in a case without ``_0001``, channel 2 would be taken for channel 1.
    """
    found: dict[int, dict[tuple[int, ...], str]] = {}
    for case, files in images.items():
        numbers = [re.fullmatch(rf"{re.escape(case)}_(\d{{4}})\..*", file.name) for file in files]
        known = tuple(int(number[1]) for number in numbers if number)
        if len(known) == len(files):
            found.setdefault(len(files), {}).setdefault(known, case)
    for count, cases in found.items():
        right = tuple(range(count)) if tuple(range(count)) in cases else next(iter(cases))
        for mine, case in cases.items():
            if mine != right:
                raise LimitedError(
                    f"case {case} in {folder} has the channels {_listed(mine)}, case {cases[right]} has "
                    f"{_listed(right)}; rename its files, or add the missing channels"
                )


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(f"{number:04d}" for number in numbers)
