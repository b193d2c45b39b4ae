"""The description of a dataset, dataset.json, checked before nnU-Net fails on it."""

import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_limited.errors import LimitedError
from nnunet_limited.host.images import check_reader
from nnunet_limited.util.names import check_name

DATASET_FORMAT = "write it as nnU-Net's dataset format asks"
# The keys that are read, and what each must be; None where a function of its own checks that.
KINDS: dict[str, type | None] = {"labels": dict, "file_ending": str, "channel_names": dict, "modality": dict}
KINDS |= {"dataset": dict, "unlabeled": dict, "view_of": str, "regions_class_order": None, "numTraining": None}
KINDS |= {"overwrite_image_reader_writer": None, "grid_of_image": bool}
# Names of channels, in small letters, by which nnU-Net chooses another normalization than for all others.
NORMALIZED = ("ct", "nonorm", "rescale_to_0_1", "rgb_to_0_1")


@dataclass(frozen=True)
class DatasetDescription:
    """The ``content`` of a checked dataset.json."""

    content: dict[str, Any]

    @property
    def file_ending(self) -> str:
        """The ending of image and label files."""
        return str(self.content["file_ending"])

    @property
    def num_channels(self) -> int:
        """The number of image channels."""
        return len(self.channel_names)

    @property
    def channel_names(self) -> list[str]:
        """The name of each channel, by which nnU-Net chooses the normalization."""
        return [str(name) for name in (self.content.get("channel_names") or self.content["modality"]).values()]

    @property
    def grid_of_image(self) -> bool:
        """Whether labels lie on the voxels of their image whatever their own header says."""
        return bool(self.content.get("grid_of_image", False))

    @property
    def labels(self) -> dict[str, Any]:
        """The value of each label, or the values of each region, as they stand in the file."""
        return dict(self.content["labels"])

    @property
    def ignore(self) -> int | None:
        """The value of the ignore label, if there is one."""
        value = self.content["labels"].get("ignore")
        return None if value is None else int(value)

    @property
    def has_regions(self) -> bool:
        """Whether labels are regions, which may overlap."""
        return any(len(values_of(value)) > 1 for value in self.content["labels"].values())

    @property
    def classes(self) -> dict[str, list[int]]:
        """The values of each foreground class or region by name, in the order of the file."""
        return {n: values_of(v) for n, v in self.content["labels"].items() if n not in ("background", "ignore")}

    @property
    def foreground(self) -> dict[str, list[int]]:
        """The values of each foreground class or region by name, in the order of a prediction's channels."""
        return self.classes if self.has_regions else dict(sorted(self.classes.items(), key=lambda one: one[1]))

    @property
    def label_values(self) -> list[int]:
        """Every value that a label file may hold, ignore included."""
        return sorted({v for value in self.content["labels"].values() for v in values_of(value)})

    @property
    def foreground_values(self) -> set[int]:
        """All label values but those of background and ignore."""
        return {v for values in self.foreground.values() for v in values} - {0}


def check_description(content: dict[str, Any], file: Path) -> None:
    """Raise LimitedError for a dataset.json that nnU-Net would fail on later, or understand otherwise than meant."""
    _check_keys(content, file)
    _check_channels(content, file)
    for key, needed, remedy in (
        ("dataset", ("images", "label"), DATASET_FORMAT),
        ("unlabeled", ("images",), "list its files there"),
    ):
        for case, entry in content.get(key, {}).items():
            if not isinstance(entry, dict) or not set(needed) <= set(entry):
                wanted = " and ".join(map(repr, needed))
                raise LimitedError(f"{file}: case {case!r} of {key!r} needs {wanted}; {remedy}")
            images, label = entry["images"], entry.get("label", "")
            if not isinstance(images, list) or not images or not all(isinstance(image, str) for image in images):
                raise LimitedError(
                    f"{file}: 'images' of case {case!r} is {images!r:.60}; list the file of each channel there"
                )
            check_name(case, f"{file}: case of {key!r}")
            if not isinstance(label, str):
                raise LimitedError(f"{file}: 'label' of case {case!r} is {label!r:.60}; give the path of one file")
    for name in content["labels"]:
        check_name(name, f"{file}: label", in_files=False)
    for names in (content.get("channel_names") or {}, content.get("modality") or {}):
        for name in names.values():
            check_name(name, f"{file}: channel", in_files=False)
    check_name(f"case{content['file_ending']}", f"{file}: case with 'file_ending'")
    if "view_of" in content:
        check_name(content["view_of"], f"{file}: 'view_of'")
    _check_labels(content, file)
    _check_regions(content, file)
    check_reader(content, file)


def _check_keys(content: dict[str, Any], file: Path) -> None:
    """Refuse missing keys, keys that are probably misspelt, and values of another kind."""
    for key in content:  # a key that nobody reads is as if it were not there
        meant = next(iter(difflib.get_close_matches(key.casefold(), {k.casefold() for k in KINDS}, 1, 0.88)), "")
        meant = next((known for known in KINDS if known.casefold() == meant), "")
        fits = isinstance(content[key], dict) or meant != "dataset"  # a list may be of the datasets it was made from
        if re.search("image_?reader|reader_?writer", key.casefold()):
            meant = "overwrite_image_reader_writer"
        if key not in KINDS and meant and meant not in content and fits:
            raise LimitedError(f"{file} has the key {key!r}, which is not read; rename it to {meant!r}")
    for key in ("labels", "file_ending"):
        if key not in content:
            raise LimitedError(f"{file} has no key {key!r}; {DATASET_FORMAT}")
    if not content.get("channel_names") and not content.get("modality"):
        raise LimitedError(f"{file} has no key 'channel_names', or it is empty; {DATASET_FORMAT}")
    for key, kind in KINDS.items():
        if kind is not None and not isinstance(content.get(key, kind()), kind):
            raise LimitedError(f"{file}: {key!r} cannot be {content[key]!r:.60}; {DATASET_FORMAT}")


def _check_channels(content: dict[str, Any], file: Path) -> None:
    """Refuse channels whose number or order nnU-Net would take otherwise than they are written."""
    counts = {key: len(content[key]) for key in ("channel_names", "modality") if content.get(key)}
    if len(set(counts.values())) > 1:
        raise LimitedError(f"{file}: {counts} channels are declared; remove 'modality'")
    for key in counts:
        numbers = list(content[key])
        if all(number.isdecimal() for number in numbers) and numbers != sorted(numbers, key=int):
            raise LimitedError(
                f"{file}: {key!r} has the order {', '.join(numbers)}, but nnU-Net goes by the order of the file; write "
                "them in ascending order"
            )
        for number, name in content[key].items():
            if not isinstance(name, str):
                raise LimitedError(
                    f"{file}: {key!r} has the name {name!r:.40}; give each channel a name like 'CT' or 'T1'"
                )
            if name.isdecimal() and not number.isdecimal():
                raise LimitedError(
                    f"{file}: {key!r} has the name {name!r}; write the number first: {{'0': {number!r}}}"
                )
            if name != name.strip() and name.strip().casefold() in NORMALIZED:
                raise LimitedError(
                    f"{file}: {key!r} has the name {name!r}, which nnU-Net does not take for {name.strip()!r}; remove "
                    "the space"
                )


def _check_labels(content: dict[str, Any], file: Path) -> None:
    """Refuse labels that are no whole numbers from background 0 to an ignore label without gaps."""
    labels, example = content["labels"], "write labels like {'background': 0, 'tumour': 1}"
    for name, value in labels.items():
        found = value if isinstance(value, list) else [value]
        if not found or not all(str(v).isdecimal() and str(v).isascii() for v in found):
            raise LimitedError(f"{file}: label {name!r} cannot be {value!r}; {example}")
        meant = next((key for key in ("background", "ignore") if re.match(key, name.strip().casefold())), name)
        if name != meant and (meant == "ignore" or name.strip().casefold() == meant):
            raise LimitedError(f"{file}: label {name!r} would be a class; write {meant!r}, or rename it")
    numbers: dict[int, str] = {}
    for name, value in labels.items():
        same = numbers.setdefault(int(value), name) if not isinstance(value, list) else name
        if same not in (name, "ignore") and name != "ignore":
            raise LimitedError(f"{file}: labels {same!r} and {name!r} are both {value}; correct or remove one")
    zero = next((name for name, value in labels.items() if value in (0, "0")), "background")
    if zero != "background":
        raise LimitedError(f"{file}: label {zero!r} has the value 0, which is that of 'background'; rename it so")
    values = sorted({v for value in labels.values() for v in values_of(value)})
    gap, following = values[-1:] != [len(values) - 1], values[:-1] == list(range(len(values) - 1))
    if gap and following and labels.get("ignore") in values[-1:]:
        raise LimitedError(
            f"{file}: label 'ignore' is {values[-1]}; give it the next value, {len(values) - 1}, here and in all labels"
        )
    if labels.get("background") not in (0, "0") or values != list(range(len(values))):
        raise LimitedError(f"{file}: the labels {labels} must be numbered from background 0 without gaps; {example}")
    if values == [0]:
        raise LimitedError(f"{file}: the labels {labels} have no class besides background; {example}")
    ignore = labels.get("ignore", values[-1])
    if values_of(ignore) != values[-1:]:
        raise LimitedError(f"{file}: label 'ignore' is {labels['ignore']}; give it the highest value, {values[-1]}")
    if not isinstance(ignore, int):
        raise LimitedError(f"{file}: label 'ignore' is {ignore!r}; write it as a number, {values[-1]}")
    shared = [n for n, v in labels.items() if n != "ignore" and "ignore" in labels and ignore in values_of(v)]
    if shared:
        raise LimitedError(f"{file}: label {shared[0]!r} has the value of 'ignore', {ignore}; give 'ignore' its own")


def _check_regions(content: dict[str, Any], file: Path) -> None:
    """Refuse regions whose ``regions_class_order`` is no value of each region, or would never write one of them."""
    labels, description = content["labels"], DatasetDescription(content)
    if not description.has_regions:
        return
    order, regions = content.get("regions_class_order"), description.classes
    name = next(name for name in regions if len(regions[name]) > 1)
    where = f"{file}: 'regions_class_order' is {order!r:.60}"
    if order is None:
        raise LimitedError(f"{file}: {name!r} is a region and needs 'regions_class_order'; {DATASET_FORMAT}")
    text = next((n for n, v in labels.items() if any(isinstance(one, str) for one in _listed(v))), None)
    if text is not None:
        raise LimitedError(f"{file}: label {text!r} is {labels[text]!r}; write numbers without quotes beside regions")
    zero = next((n for n, values in regions.items() if set(values) == {0}), None)
    if zero is not None:
        raise LimitedError(f"{file}: label {zero!r} is {labels[zero]!r}, the value of background; remove it")
    if not isinstance(order, list) or any(isinstance(value, bool) or not _is_whole(value) for value in order):
        raise LimitedError(f"{where}; write one number for each of {', '.join(regions)}, in this order")
    if len(order) != len(regions):
        raise LimitedError(
            f"{where}, {len(order)} values for {len(regions)} regions; write one for each of {', '.join(regions)}"
        )
    for (region, values), value in zip(regions.items(), order, strict=True):
        if value not in values:
            raise LimitedError(
                f"{where}; its value for {region!r}, {value}, is none of its values {values}; write one of these, "
                f"in the order {', '.join(regions)}"
            )
    last_first = list(zip(order, regions.values(), strict=True))[::-1]  # a later region overwrites earlier ones
    for region, values in regions.items():
        written = {next(number for number, inside in last_first if value in inside) for value in values}
        if not written & set(values):
            raise LimitedError(
                f"{where}, so that later regions overwrite all of {region!r} in predictions; list larger regions first "
                "in 'labels' and here"
            )


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, float)) and float(value).is_integer()


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def values_of(value: Any) -> list[int]:
    """Return the values of a label or of a region, as dataset.json has them."""
    return [int(v) for v in _listed(value)]
