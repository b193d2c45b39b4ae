"""Labels that nothing may read: they are deleted, or unreadable and watched."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

if TYPE_CHECKING:
    from helpers import Workspace

EVENT = struct.Struct("iIII")
OPENED, LOST = 0x20, 0x4000  # IN_OPEN, IN_Q_OVERFLOW


class Watch:
    """Who opened these files? Linux knows it for every library and every process; elsewhere nobody has.

    Files are watched by what they are, so replacing one ends its watch.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        """Watch ``files``, which exist."""
        self.files: dict[int, Path] = {}
        self.descriptor = -1
        if not sys.platform.startswith("linux"):
            return
        libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor = libc.inotify_init1(os.O_NONBLOCK)
        for file in files:
            number = libc.inotify_add_watch(self.descriptor, os.fsencode(file), OPENED)
            if number < 0:
                raise OSError(ctypes.get_errno(), f"{file} cannot be watched")
            self.files[number] = file

    def opened(self) -> list[Path]:
        """Return the files that were opened since the last call."""
        found = []
        while self.descriptor >= 0:
            try:
                events = os.read(self.descriptor, 2**16)
            except BlockingIOError:
                break
            while events:
                number, mask, _, length = EVENT.unpack_from(events)
                events = events[EVENT.size + length :]
                assert not mask & LOST
                if mask & OPENED:
                    found.append(self.files[number])
        return found


def spoil(workspace: Workspace, cases: Iterable[str], how: str) -> None:
    """Delete the labels of ``cases``, or write ``garbage`` or ``noise``; boxes become garbage."""
    for case in cases:
        file = workspace.raw / "labelsTr" / f"{case}.nii.gz"
        (workspace.raw / "labelsBoxes" / file.name).write_bytes(b"these are no boxes")
        if how == "deleted":
            file.unlink()
        elif how == "garbage":
            file.write_bytes(b"this is no label")
        else:
            image = sitk.ReadImage(str(file))
            array = np.random.RandomState(0).randint(0, 3, sitk.GetArrayFromImage(image).shape).astype(np.uint8)
            noise = sitk.GetImageFromArray(array)
            noise.CopyInformation(image)
            sitk.WriteImage(noise, str(file))


def traps(workspace: Workspace) -> list[Path]:
    """Return the files where a label of a hidden case could lie: as annotated and as preprocessed."""
    files = []
    for case in workspace.hidden:
        files += [workspace.raw / name / f"{case}.nii.gz" for name in ("labelsTr", "labelsBoxes")]
        for images in workspace.preprocessed.glob(f"nnUNetLimited_*_unlabeled/{case}.pkl"):
            labeled = images.parent.with_name(images.parent.name.removesuffix("_unlabeled"))
            files += [labeled / f"{case}{ending}" for ending in (".b2nd", "_seg.b2nd", ".pkl")]
    return files


def set_traps(workspace: Workspace) -> None:
    """Write files that cannot be read wherever a hidden label could lie: one read only where it exists is read here."""
    for file in traps(workspace):
        assert file.parent.is_dir(), file
        file.write_bytes(b"a hidden label")
