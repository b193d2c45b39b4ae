"""Segments that 3D Slicer and MITK describe in the header of a NRRD file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from nnunet_limited.errors import LimitedError

FILL = -1  # the value where a file does not reach, or has no segment
SLICER_KEY = re.compile(r"Segment(\d+)_(ID|Name|LabelValue|Layer)")
MITK_KEY = "org.mitk.multilabel.segmentation.labelgroups"
MITK_NAME = re.compile(r"(?:object|label)[- ]?(\d+)", re.IGNORECASE)  # that MITK gives to the labels of a label map
OLD_MITK_KEY = re.compile(r"org\.mitk\.label_(\d{3})_(\d{5})")  # of earlier versions, by layer and label


@dataclass(frozen=True)
class ClassNames:
    """The label value of each name in dataset.json.

    ``parts`` are, for the value of a region, the values of the regions within it, which may be drawn over it.
    """

    values: Mapping[str, int]
    parts: Mapping[int, frozenset[int]] = field(default_factory=dict)

    def find(self, name: str) -> int | None:
        """Return the value of a name, without regard to case where that is unambiguous; a number is its own name."""
        if name in self.values:
            return self.values[name]
        name = name.strip()
        found = {value for known, value in self.values.items() if known.strip() == name}
        found = found or {value for known, value in self.values.items() if known.strip().casefold() == name.casefold()}
        if not found and name.isdecimal() and int(name) in self.values.values():
            found = {int(name)}
        return found.pop() if len(found) == 1 else None


class Segment(NamedTuple):
    """The voxels of ``value`` in a component ``layer`` of the image; ``name`` is "" if the header gives none."""

    name: str
    value: int
    layer: int


def find_segments(header: Mapping[str, str], components: int, file: Path) -> list[Segment] | None:
    """Return the segments in the ``header`` of an image with some ``components``; None if it is a plain label map.

    Raises LimitedError for a header that has been damaged.
    """
    if is_of_mitk(header):
        return _mitk_segments(header, components, file)
    numbered: dict[int, dict[str, str]] = {}
    for key, text in header.items():
        if found := SLICER_KEY.fullmatch(key):
            numbered.setdefault(int(found[1]), {})[found[2]] = text
    if not numbered and not any(key.startswith("Segmentation_") for key in header):
        return None
    return [_slicer_segment(number, numbered, components, file) for number in sorted(numbered)]


def _slicer_segment(number: int, numbered: Mapping[int, Mapping[str, str]], components: int, file: Path) -> Segment:
    """Return a segment of 3D Slicer. Before version 4.11 each had a component of its own, and no value."""
    fields = numbered[number]
    if any("LabelValue" in one for one in numbered.values()):
        value = _number(fields.get("LabelValue", ""), f"Segment{number}_LabelValue", 1, file)
        layer = _number(fields.get("Layer", "0"), f"Segment{number}_Layer", 0, file)
    elif len(numbered) == components:
        value, layer = 1, sorted(numbered).index(number)
    else:
        raise LimitedError(
            f"label {file} has {len(numbered)} segments without LabelValue, but {components} components; save it again "
            "with 3D Slicer 5"
        )
    if layer >= components:
        raise LimitedError(
            f"label {file}: Segment{number}_Layer is {layer}, but the file has {components} layers; save it again with "
            "3D Slicer"
        )
    return Segment(fields.get("Name", "").strip(), value, layer)


def _number(text: str, key: str, smallest: int, file: Path) -> int:
    if not re.fullmatch(r"\d{1,9}", text.strip()) or int(text) < smallest:
        raise LimitedError(
            f"label {file}: {key} is {text!r:.40}, not a whole number from {smallest}; save it again with 3D Slicer"
        )
    return int(text)


def is_of_mitk(header: Mapping[str, str]) -> bool:
    """Return whether an image is a segmentation of MITK."""
    return MITK_KEY in header or any(OLD_MITK_KEY.fullmatch(key) for key in header)


def _mitk_segments(header: Mapping[str, str], components: int, file: Path) -> list[Segment]:
    """Return the labels of a segmentation of MITK, whose groups are components of the image."""
    try:
        groups = _mitk_groups(header) if MITK_KEY in header else _old_mitk_groups(header)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ElementTree.ParseError) as error:
        raise LimitedError(f"label {file}: its labels are damaged ({error!r:.60}); save it again with MITK") from error
    if len(groups) > components:
        raise LimitedError(
            f"label {file} has {len(groups)} groups of labels but {components} components; save it again with MITK"
        )
    return [Segment(name.strip(), value, layer) for layer, group in enumerate(groups) for name, value in group]


def _mitk_groups(header: Mapping[str, str]) -> list[list[tuple[str, int]]]:
    """Return name and value of each label by group."""
    groups = json.loads(header[MITK_KEY])
    return [[(str(one.get("name", "")), int(one["value"])) for one in group["labels"] or ()] for group in groups]


def _old_mitk_groups(header: Mapping[str, str]) -> list[list[tuple[str, int]]]:
    """Return name and value of each label by layer, which are properties in XML; "Exterior" (0) is no label."""
    groups: dict[int, list[tuple[str, int]]] = {}
    for key, text in header.items():
        if found := OLD_MITK_KEY.fullmatch(key):
            label = ElementTree.fromstring(text.replace("\\n", "\n"))  # NRRD escapes the ends of lines
            properties = {one.get("key"): one[0].get("value", "") for one in label if len(one)}
            group, value = groups.setdefault(int(found[1]), []), int(properties["value"])
            group += [(properties.get("name", ""), value)] if value else []
    return [groups.get(layer, []) for layer in range(max(groups) + 1)]


def class_values(segments: list[Segment], names: ClassNames, header: Mapping[str, str], file: Path) -> list[int] | None:
    """Return the label value of each segment, by its name; None if the numbers in the file are label values.

    The numbers count where no segment has a name, and in files of MITK without any name of a class. Labels that MITK
    itself has named after their number, e.g. those of an initial label file, have this value.
    """
    values = [names.find(one.name) for one in segments]
    mitk = is_of_mitk(header)
    if not any(one.name for one in segments) or (mitk and all(value is None for value in values)):
        if segments and all("LabelValue" not in key for key in header) and not mitk:
            raise LimitedError(
                f"label {file} has neither names nor values of its segments; name them like {', '.join(names.values)}"
            )
        return None
    for number, (one, value) in enumerate(zip(segments, values, strict=True)):
        own = MITK_NAME.fullmatch(one.name) if mitk and value is None else None
        if own is not None and int(own[1]) == one.value and one.value in names.values.values():
            values[number] = one.value
        elif value is None:
            raise LimitedError(
                f"label {file}: segment {one.name!r} is not a class; name it like one of {', '.join(names.values)}"
            )
    return [value for value in values if value is not None]


def merge_segments(
    layers: np.ndarray, segments: list[Segment], values: list[int], names: ClassNames, file: Path
) -> np.ndarray:
    """Return the label values (z, y, x) of segments in ``layers`` (z, y, x, c); -1 where there is none.

    A region may be drawn over a region that contains it. Raises LimitedError for other segments that overlap, and for
    voxels that belong to no segment of the header.
    """
    merged = np.full(layers.shape[:-1], FILL, np.int32)
    for layer in range(layers.shape[-1]):
        known = [0, *(one.value for one in segments if one.layer == layer)]
        foreign = np.setdiff1d(layers[..., layer], known)
        if foreign.size:
            raise LimitedError(
                f"label {file} has voxels of the value {foreign[0]}, which belongs to none of its {len(segments)} "
                "segments; save it again, or save a label map"
            )
    for one, value in zip(segments, values, strict=True):
        inside = layers[..., one.layer] == one.value
        for before in np.unique(merged[inside]).tolist():
            there = inside & (merged == before)
            if before in (FILL, value) or value in names.parts.get(before, ()):
                merged[there] = value
            elif before not in names.parts.get(value, ()):
                raise LimitedError(
                    f"label {file}: segment {one.name!r} overlaps another in {int(there.sum())} voxels; erase it where "
                    "they overlap"
                )
    return merged
