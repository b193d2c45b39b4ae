"""A raw nnU-Net dataset as we see it: images, and which of them have a label file."""

from __future__ import annotations

import contextlib
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_limited.errors import LimitedError
from nnunet_limited.util.files import read_object, replacing

UNLABELED_FOLDER = "imagesUn"
TRUTH_FOLDER = "labelsVal"
BOX_FOLDER = "labelsBoxes"
FORMAT = "write it as nnU-Net's dataset format asks"


def nnunet_folder(variable: str) -> Path:
    """Return the folder that the environment ``variable`` (``nnUNet_raw`` etc.) names, which must be set."""
    value = os.environ.get(variable)
    if not value:
        raise LimitedError(f"{variable} is not set; export {variable}=/path/to/{variable} (see nnU-Net's set-up)")
    return Path(value)


def dataset_name(dataset: str) -> str:
    """Return the full name (``Dataset004_Hippocampus``) of a dataset given by name or number."""
    if not dataset.startswith("Dataset") and not dataset.isdecimal():
        raise LimitedError(f"dataset {dataset!r} is neither a number nor a name like Dataset004_Hippocampus; give one")
    found = set()
    for variable in ("nnUNet_raw", "nnUNet_preprocessed"):
        folder = Path(os.environ.get(variable) or "/nonexistent")
        if folder.is_dir():
            found |= {f.name for f in folder.iterdir() if f.is_dir() and f.name.startswith("Dataset")}
    prefix = dataset if dataset.startswith("Dataset") else f"Dataset{int(dataset):03d}_"
    matches = sorted(name for name in found if name == prefix or (prefix.endswith("_") and name.startswith(prefix)))
    if len(matches) != 1:
        raise LimitedError(
            f"dataset {dataset} is {'ambiguous: ' + ', '.join(matches) if matches else 'unknown'} in "
            f"nnUNet_raw={os.environ.get('nnUNet_raw')} and nnUNet_preprocessed="
            f"{os.environ.get('nnUNet_preprocessed')}; check the name and the two variables"
        )
    return matches[0]


@dataclass(frozen=True)
class Case:
    """One scan: a file per channel, and its label file if there is one.

    ``truth`` is the label to validate on where it is another, as it is where the label to learn from is sparse.
    ``boxes`` is an image of the boxes where they are the annotation (see ``annotations.annotation.box_codes``).
    """

    identifier: str
    images: tuple[Path, ...]
    label: Path | None
    truth: Path | None = None
    boxes: Path | None = None


@dataclass(frozen=True)
class RawDataset:
    """The raw dataset ``name``: its ``dataset.json`` and its cases by identifier."""

    name: str
    folder: Path
    dataset_json: dict[str, Any]
    cases: dict[str, Case]

    @property
    def labeled(self) -> list[str]:
        """Cases that have a label file."""
        return sorted(i for i, case in self.cases.items() if case.label is not None)

    @property
    def without_label(self) -> list[str]:
        """Cases that have no label file."""
        return sorted(i for i, case in self.cases.items() if case.label is None)

    @property
    def num_channels(self) -> int:
        """Number of image channels that dataset.json declares."""
        return len(self.dataset_json.get("channel_names") or self.dataset_json["modality"])

    @property
    def label_values(self) -> list[int]:
        """Every value that a label file may hold, ignore included."""
        return sorted({v for value in self.dataset_json["labels"].values() for v in _values(value)})

    @property
    def foreground_values(self) -> set[int]:
        """All label values that dataset.json declares, but background and ignore."""
        labels = self.dataset_json["labels"]
        return {v for name, value in labels.items() if name != "ignore" for v in _values(value)} - {0}

    def reader(self) -> Any:
        """Return the host's reader class for the dataset's images."""
        return reader_for(self.dataset_json, next(iter(self.cases.values())).images[0])

    @classmethod
    def load(cls, dataset: str) -> RawDataset:
        """Find the dataset in ``nnUNet_raw`` and list its cases.

        Images without label are in ``imagesUn/`` or under the key ``unlabeled`` of dataset.json; ``labelsVal/`` holds
        labels to validate on in place of those to learn from.
        """
        from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

        raw = nnunet_folder("nnUNet_raw")
        if not raw.is_dir():
            raise LimitedError(f"nnUNet_raw={raw} is not a folder; set nnUNet_raw to the folder with your datasets")
        folder = raw / dataset_name(dataset)
        if not folder.is_dir():
            raise LimitedError(f"{folder} does not exist; put the raw dataset there or correct nnUNet_raw")
        dataset_json = read_object(folder / "dataset.json", "dataset description", FORMAT)
        check_description(dataset_json, folder / "dataset.json")
        unlabeled, training = folder / UNLABELED_FOLDER, folder / "imagesTr"
        if "dataset" not in dataset_json and not training.is_dir() and not unlabeled.is_dir():
            raise LimitedError(f"{training} does not exist; put the training images there")

        cases = {}
        ending = dataset_json["file_ending"]
        if "dataset" in dataset_json:  # the host completes the entries in place; ours stay as they are on disk
            copy = {"dataset": {case: dict(files) for case, files in dataset_json["dataset"].items()}}
            listed = get_filenames_of_train_images_and_targets(str(folder), copy)
        else:
            nothing_yet = unlabeled.is_dir() and not (training.is_dir() and any(training.iterdir()))
            images = {} if nothing_yet else images_by_case(training, ending)
            listed = {i: {"images": images[i], "label": folder / "labelsTr" / f"{i}{ending}"} for i in images}
        for identifier, files in listed.items():
            label = Path(files["label"])
            further = [folder / name / f"{identifier}{ending}" for name in (TRUTH_FOLDER, BOX_FOLDER)]
            found = [file if file.is_file() else None for file in (label, *further)]
            cases[identifier] = Case(identifier, tuple(map(Path, files["images"])), *found)
        without = {
            identifier: [folder / os.path.expandvars(image) for image in entry["images"]]
            for identifier, entry in dataset_json.get("unlabeled", {}).items()
        }
        if unlabeled.is_dir():
            without |= images_by_case(unlabeled, ending)
        for identifier, images_found in without.items():
            if identifier in cases:
                raise LimitedError(
                    f"case {identifier} is both in {folder / 'imagesTr'} and in {unlabeled}; remove one of the two"
                )
            cases[identifier] = Case(identifier, tuple(images_found), None)
        dataset_object = cls(folder.name, folder, dataset_json, dict(sorted(cases.items())))
        for case in dataset_object.cases.values():
            if len(case.images) != dataset_object.num_channels:
                raise LimitedError(
                    f"case {case.identifier} in {folder} has {len(case.images)} image files but dataset.json declares "
                    f"{dataset_object.num_channels} channels; add the missing files or correct channel_names"
                )
        return dataset_object


def reader_for(dataset_json: dict[str, Any], example: Path) -> Any:
    """Return the host's reader class for images like ``example``."""
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    try:
        # The host prints a traceback for each reader that fails, and a line for the one that does not.
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return determine_reader_writer_from_dataset_json(dataset_json, str(example), verbose=False)
    except RuntimeError as error:
        raise LimitedError(
            f"{example} cannot be read by nnU-Net as {dataset_json['file_ending']!r}; check the file and "
            "file_ending in dataset.json"
        ) from error


def write_label(reader: Any, label: Any, file: Path, properties: Any, ending: str) -> None:
    """Write a label (*spatial) with a reader of the host at once; its writers go by the ``ending`` of a name."""
    with replacing(file) as temporary:
        made = temporary.with_name(f"{temporary.name}{ending}")
        reader.write_seg(label, str(made), properties)
        made.replace(temporary)


def check_description(content: dict[str, Any], file: Path) -> None:
    """Refuse a dataset.json that nnU-Net would stumble over later."""
    for key in ("labels", "file_ending"):
        if key not in content:
            raise LimitedError(f"{file} has no key {key!r}; {FORMAT}")
    if not content.get("channel_names") and not content.get("modality"):
        raise LimitedError(f"{file} has no key 'channel_names', or names no channel there; {FORMAT}")
    for key, kind in (
        ("labels", dict),
        ("file_ending", str),
        ("channel_names", dict),
        ("dataset", dict),
        ("unlabeled", dict),
    ):
        if not isinstance(content.get(key, kind()), kind):
            raise LimitedError(f"{file}: {key!r} cannot be {content[key]!r:.60}; {FORMAT}")
    for case, entry in content.get("dataset", {}).items():
        if not isinstance(entry, dict) or not {"images", "label"} <= set(entry):
            raise LimitedError(f"{file}: case {case!r} of 'dataset' needs 'images' and 'label'; {FORMAT}")
    for case, entry in content.get("unlabeled", {}).items():
        if not isinstance(entry, dict) or "images" not in entry:
            raise LimitedError(f"{file}: case {case!r} of 'unlabeled' needs 'images'; list its files there")

    labels, example = content["labels"], "write labels like {'background': 0, 'tumour': 1}"
    for name, value in labels.items():
        if not all(str(v).isdecimal() for v in (value if isinstance(value, list) else [value])):
            raise LimitedError(f"{file}: label {name!r} cannot be {value!r}; {example}")
    values = sorted({v for value in labels.values() for v in _values(value)})
    if labels.get("background") not in (0, "0") or values != list(range(len(values))):
        raise LimitedError(
            f"{file}: the labels {labels} must start with background 0 and leave out no number; {example}"
        )
    if _values(labels.get("ignore", values[-1])) != values[-1:]:
        raise LimitedError(f"{file}: label 'ignore' is {labels['ignore']}; give it the highest value, {values[-1]}")
    regions = [name for name, value in labels.items() if len(_values(value)) > 1]
    if regions and "regions_class_order" not in content:
        raise LimitedError(f"{file}: {regions[0]!r} is a region, which asks for a key 'regions_class_order'; {FORMAT}")


def _values(value: Any) -> list[int]:
    return [int(v) for v in (value if isinstance(value, (list, tuple)) else [value])]


def images_by_case(folder: Path, file_ending: str) -> dict[str, list[Path]]:
    """Return the image files of a folder by case, in the order of channels, by the host's rule for their names.

    The host's own listing starts twelve processes; a file that it would take for a case without images is refused.
    """
    files: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        match = re.fullmatch(r"(.+)_\d{4}", file.name.removesuffix(file_ending))
        if match and file.name.endswith(file_ending):
            files.setdefault(match[1], []).append(file)
        elif file.name.endswith(file_ending):
            raise LimitedError(f"{file} is not named like case_0000{file_ending}; add the channel number or remove it")
    if not files:
        raise LimitedError(f"{folder} holds no image named like case_0000{file_ending}; put images there or remove it")
    return files
