"""The description of a dataset, dataset.json, checked before nnU-Net fails on it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_limited.errors import LimitedError

DATASET_FORMAT = "write it as nnU-Net's dataset format asks"


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
        return bool(self.content.get("regions_class_order"))

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
    """Raise LimitedError for a dataset.json that nnU-Net would fail on later."""
    for key in ("labels", "file_ending"):
        if key not in content:
            raise LimitedError(f"{file} has no key {key!r}; {DATASET_FORMAT}")
    if not content.get("channel_names") and not content.get("modality"):
        raise LimitedError(f"{file} has no key 'channel_names', or it is empty; {DATASET_FORMAT}")
    kinds: dict[str, type] = {"labels": dict, "file_ending": str, "channel_names": dict, "dataset": dict}
    kinds |= {"unlabeled": dict, "grid_of_image": bool}
    for key, kind in kinds.items():
        if not isinstance(content.get(key, kind()), kind):
            raise LimitedError(f"{file}: {key!r} cannot be {content[key]!r:.60}; {DATASET_FORMAT}")
    for case, entry in content.get("dataset", {}).items():
        if not isinstance(entry, dict) or not {"images", "label"} <= set(entry):
            raise LimitedError(f"{file}: case {case!r} of 'dataset' needs 'images' and 'label'; {DATASET_FORMAT}")
    for case, entry in content.get("unlabeled", {}).items():
        if not isinstance(entry, dict) or "images" not in entry:
            raise LimitedError(f"{file}: case {case!r} of 'unlabeled' needs 'images'; list its files there")

    labels, example = content["labels"], "write labels like {'background': 0, 'tumour': 1}"
    for name, value in labels.items():
        if not all(str(v).isdecimal() for v in (value if isinstance(value, list) else [value])):
            raise LimitedError(f"{file}: label {name!r} cannot be {value!r}; {example}")
    values = sorted({v for value in labels.values() for v in values_of(value)})
    if labels.get("background") not in (0, "0") or values != list(range(len(values))):
        raise LimitedError(f"{file}: the labels {labels} must be numbered from background 0 without gaps; {example}")
    if values_of(labels.get("ignore", values[-1])) != values[-1:]:
        raise LimitedError(f"{file}: label 'ignore' is {labels['ignore']}; give it the highest value, {values[-1]}")
    regions = [name for name, value in labels.items() if len(values_of(value)) > 1]
    if regions and "regions_class_order" not in content:
        raise LimitedError(f"{file}: {regions[0]!r} is a region and needs 'regions_class_order'; {DATASET_FORMAT}")


def values_of(value: Any) -> list[int]:
    """Return the values of a label or of a region, as dataset.json has them."""
    return [int(v) for v in (value if isinstance(value, (list, tuple)) else [value])]
