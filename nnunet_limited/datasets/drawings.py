"""Label files that people draw: which ones a folder holds, how they are read, and what their names of classes mean."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.annotations.grid import Grid
from nnunet_limited.annotations.importers.images import ENDINGS, Reader
from nnunet_limited.annotations.importers.segments import ClassNames
from nnunet_limited.datasets.description import DatasetDescription
from nnunet_limited.host.images import grid_of, read_label
from nnunet_limited.util.whole import NIFTI


def drawing_endings(reader_class: Any, ending: str) -> tuple[str, ...]:
    """Return the endings of the label files that can be drawn for images of an ``ending`` and their reader.

    Images without a position in space, as PNG, have labels of the same format only.
    """
    return (ending, *(one for one in ENDINGS if one != ending)) if _kind(reader_class) else (ending,)


def drawing_reader(reader_class: Any, file: Path) -> Reader | None:
    """Return nnU-Net's reader for a drawn label that SimpleITK may refuse or place elsewhere, else None."""
    kind = _kind(reader_class)
    if kind == "SimpleITKIO" or (kind == "NibabelIO" and not file.name.endswith(NIFTI)):
        return None
    return partial(_read, reader_class)


def class_names(description: DatasetDescription, ignore: int) -> ClassNames:
    """Return the value of each name: that of a region is the one that nnU-Net writes for it."""
    values, parts = {"background": 0}, {}
    order = description.content.get("regions_class_order") or []
    if description.has_regions:
        for (name, members), value in zip(description.classes.items(), order, strict=False):
            values[name] = int(value)
            parts[int(value)] = frozenset(members) - {int(value)}
    else:
        values |= {name: members[0] for name, members in description.classes.items()}
    return ClassNames({**values, "ignore": ignore}, parts)


def _kind(reader_class: Any) -> str:
    """Return by what library a reader of nnU-Net reads images with a position in space, "" for one of others."""
    names = " ".join(one.__name__ for one in reader_class.__mro__)
    return next((kind for kind in ("SimpleITKIO", "NibabelIO") if kind in names), "")


def _read(reader_class: Any, file: Path) -> tuple[np.ndarray, Grid]:
    label, properties = read_label(reader_class(), file)
    return label, grid_of(label.shape, properties)
