"""Label files with ignored voxels, as the host's fingerprint and preprocessing have to see them.

The host counts the ignore label as foreground when it measures intensities, and does not mark what is outside an
image's nonzero mask where it is ignored, so that a sparsely labelled image would be normalised over its empty margin.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.datasets.raw import Case
from nnunet_limited.host.planning import nonzero_mask


def without_ignored(case: Case, reader_class: Any, ignore: int, target: Path) -> tuple[Path, bool]:
    """Return a label file of ``case`` with background where it is ignored, and whether it has foreground.

    It is ``target``, or the case's own file if that ignores nothing.
    """
    reader = reader_class()
    label, properties = reader.read_seg(str(case.label))
    ignored = label == ignore
    foreground = bool(((label > 0) & ~ignored).any())
    if not ignored.any():
        return Path(str(case.label)), foreground
    reader.write_seg(np.where(ignored, 0, label)[0].astype(np.int16), str(target), properties)
    return target, foreground


def background_outside(case: Case, reader_class: Any, ignore: int, target: Path) -> Path:
    """Return a label file of ``case`` with background where it is ignored outside the nonzero mask of its image."""
    reader = reader_class()
    label, properties = reader.read_seg(str(case.label))
    image, _ = reader.read_images([str(file) for file in case.images])
    outside = (label[0] == ignore) & ~nonzero_mask(image)
    if not outside.any():
        return Path(str(case.label))
    reader.write_seg(np.where(outside, 0, label[0]).astype(np.int16), str(target), properties)
    return target
