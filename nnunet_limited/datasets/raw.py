"""Raw nnU-Net datasets: images, and the label files of those that have one."""

from __future__ import annotations

import codecs
import filecmp
import hashlib
import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_limited.datasets.channels import check_channels
from nnunet_limited.datasets.description import DATASET_FORMAT, DatasetDescription, check_description
from nnunet_limited.datasets.listing import channels_by_case, one_file_by_case
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import dataset_name, nnunet_folder
from nnunet_limited.host.images import listed_files, reader_for
from nnunet_limited.util.files import read_object
from nnunet_limited.util.names import check_name
from nnunet_limited.util.whole import check_file

UNLABELED_FOLDER = "imagesUn"
TRUTH_FOLDER = "labelsVal"
BOX_FOLDER = "labelsBoxes"


@dataclass(frozen=True)
class Case:
    """One scan: a file per channel, and its label file if there is one.

    ``truth`` is the label to validate on where it differs from ``label``, which may be sparse.
    ``boxes`` is an image of the boxes where they are the annotation (see ``annotations.annotation.box_codes``).
    """

    identifier: str
    images: tuple[Path, ...]
    label: Path | None
    truth: Path | None = None
    boxes: Path | None = None

    @property
    def labels(self) -> list[tuple[str, Path]]:
        """The file of the "label", to learn from, and of the "truth", to validate on, where there are such."""
        return [(kind, file) for kind, file in (("label", self.label), ("truth", self.truth)) if file is not None]


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
    def description(self) -> DatasetDescription:
        """The description of the dataset, dataset.json."""
        return DatasetDescription(self.dataset_json)

    def check_labels(self, cases: Iterable[str]) -> None:
        """Raise LimitedError if the label of one of the ``cases`` is no file; no other label is looked at."""
        for case in cases:
            label = self.cases[case].label
            if label is None:
                continue
            if "dataset" in self.dataset_json and not os.path.lexists(label):
                raise LimitedError(
                    f"label {label} of case {case} does not exist; correct 'dataset' in "
                    f"{self.folder / 'dataset.json'}, or list the case under 'unlabeled' there"
                )
            check_file(label, "label")

    def reader(self) -> Any:
        """Return nnU-Net's reader class for the dataset's images: as nnU-Net, by its first training case."""
        training = (case for case in self.cases.values() if case.label is not None)
        return reader_for(self.dataset_json, next(training, next(iter(self.cases.values()))).images[0])

    @classmethod
    def load(cls, dataset: str) -> RawDataset:
        """Find the dataset in ``nnUNet_raw`` and list its cases.

        Images without a label are in ``imagesUn/`` or under the key ``unlabeled`` of dataset.json; ``labelsVal/`` holds
        labels to validate on in place of those to train on.
        """
        raw = nnunet_folder("nnUNet_raw")
        if not raw.is_dir():
            raise LimitedError(f"nnUNet_raw={raw} is not a folder; set nnUNet_raw to the folder with your datasets")
        folder = raw / dataset_name(dataset)
        if not folder.is_dir():
            raise LimitedError(f"{folder} does not exist; put the raw dataset there or correct nnUNet_raw")
        return cls.read(folder, folder.name)

    @classmethod
    def read(cls, folder: Path, name: str) -> RawDataset:
        """List the cases of the raw dataset ``name`` in ``folder``, which may be another one while it is made."""
        dataset_json = read_object(folder / "dataset.json", "dataset description", DATASET_FORMAT)
        if (folder / "dataset.json").read_bytes().startswith(codecs.BOM_UTF8):
            raise LimitedError(
                f"{folder / 'dataset.json'} begins with a byte order mark, at which nnU-Net fails; save it as UTF-8 "
                "without one ('UTF-8', not 'UTF-8 with BOM')"
            )
        check_description(dataset_json, folder / "dataset.json")
        check_folder_names(folder, "unlabeled" in dataset_json)
        unlabeled = unlabeled_images(folder, dataset_json)
        cases = labeled_cases(folder, dataset_json, unlabeled)
        cases |= {identifier: Case(identifier, tuple(images), None) for identifier, images in unlabeled.items()}
        for case in cases:
            check_name(case, f"case of {folder}")
        check_collisions(folder, cases)
        made = cls(name, folder, dataset_json, dict(sorted(cases.items())))
        by_case = {case.identifier: case.images for case in made.cases.values()}
        check_channels(by_case, made.description.num_channels, made.reader, folder)
        return made


def check_folder_names(folder: Path, listed: bool = False) -> None:
    """Refuse entries of a raw dataset named like its folders but for the case of letters, and those that are none.

    Unless unlabelled cases are ``listed`` in dataset.json, so is another folder that seems to be of unlabelled images.
    """
    known = {name.casefold(): name for name in ("imagesTr", "labelsTr", UNLABELED_FOLDER, TRUTH_FOLDER, BOX_FOLDER)}
    for found in sorted(folder.iterdir()):
        name = known.get(found.name.casefold())
        if name == found.name and not found.is_dir():
            raise LimitedError(f"{found} is a file or a dangling link, not a folder; correct or remove it")
        if name and not (folder / name).exists():
            raise LimitedError(f"{found} is not read, as its name is in other letters; rename it to {name}")
        seems = re.fullmatch(r"(images?)?[ _-]?(un(labell?ed)?|ul)", found.name.casefold()) and found.is_dir()
        if seems and not listed and not (folder / UNLABELED_FOLDER).exists():
            raise LimitedError(f"{found} is not read; rename it to {UNLABELED_FOLDER}, or move it elsewhere")


def labeled_cases(folder: Path, dataset_json: dict[str, Any], unlabeled: Collection[str]) -> dict[str, Case]:
    """Return the training cases of a raw dataset, which dataset.json lists or ``imagesTr/`` holds.

    Raises LimitedError for a case that is among the ``unlabeled`` ones too, or whose label is not recognised.
    """
    ending, listed = dataset_json["file_ending"], {}
    if "dataset" in dataset_json:  # nnU-Net completes the entries in place; ours stay as they are on disk
        copy = {"dataset": {case: dict(files) for case, files in dataset_json["dataset"].items()}}
        listed = listed_files(folder, copy)
        images = {case: [Path(image) for image in files["images"]] for case, files in listed.items()}
        _check_images(images)
    else:
        images = _training_images(folder, ending)
    for case in images:
        if case in unlabeled:
            both = "'dataset'" if listed else folder / "imagesTr", _unlabeled_source(folder, dataset_json, case)
            raise LimitedError(f"case {case} is in {both[0]} and in {both[1]}; remove one")
    labels = {case: Path(files["label"]) for case, files in listed.items()}
    if "dataset" not in dataset_json:
        labels = _labels(folder / "labelsTr", ending, images, unlabeled)
    truths, boxes = (_labels(folder / name, ending, images, unlabeled) for name in (TRUTH_FOLDER, BOX_FOLDER))
    return {
        case: Case(case, tuple(files), labels.get(case), truths.get(case), boxes.get(case))
        for case, files in images.items()
    }


def _training_images(folder: Path, ending: str) -> dict[str, list[Path]]:
    """Return the images in ``imagesTr/`` by case; it may be missing or empty if there are unlabelled images."""
    training, unlabeled = folder / "imagesTr", folder / UNLABELED_FOLDER
    if not training.is_dir() and not unlabeled.is_dir():
        raise LimitedError(f"{training} does not exist; put the training images there")
    if unlabeled.is_dir() and not (training.is_dir() and any(training.iterdir())):
        return {}
    return channels_by_case(training, ending)


def _labels(folder: Path, ending: str, cases: Collection[str], unlabeled: Collection[str]) -> dict[str, Path]:
    """Return the label files of a folder by case, none if it is not there."""
    if not folder.is_dir():
        return {}
    found = one_file_by_case(folder, [ending], {*cases, *unlabeled}, look=False)  # they may be of hidden cases
    for case, file in found.items():
        if case in unlabeled:
            raise LimitedError(
                f"label {file} is of case {case}, which is listed as unlabelled; move its images to imagesTr, or the "
                "label elsewhere"
            )
    return found


def unlabeled_images(folder: Path, dataset_json: dict[str, Any]) -> dict[str, list[Path]]:
    """Return the images of the cases that dataset.json or ``imagesUn/`` lists as unlabelled."""
    images = {
        identifier: [folder / os.path.expandvars(image) for image in entry["images"]]
        for identifier, entry in dataset_json.get("unlabeled", {}).items()
    }
    _check_images(images)
    if (folder / UNLABELED_FOLDER).is_dir():
        for case, files in channels_by_case(folder / UNLABELED_FOLDER, dataset_json["file_ending"]).items():
            if images.setdefault(case, files) != files:
                raise LimitedError(
                    f"case {case} is in {folder / UNLABELED_FOLDER} and under 'unlabeled' in {folder / 'dataset.json'};"
                    " remove one"
                )
    return images


def _check_images(images: dict[str, list[Path]]) -> None:
    for case, files in images.items():
        for file in files:
            check_file(file, f"image of case {case}")


def _unlabeled_source(folder: Path, dataset_json: dict[str, Any], case: str) -> str:
    return "'unlabeled'" if case in dataset_json.get("unlabeled", {}) else str(folder / UNLABELED_FOLDER)


def check_collisions(folder: Path, cases: dict[str, Case]) -> None:
    """Refuse cases whose files would overwrite each other, and copies of one image with and without label."""
    for case in cases:
        for suffix in ("_seg", "_confidence"):  # of nnU-Net's preprocessed labels, and of our pseudo-labels
            if f"{case}{suffix}" in cases:
                raise LimitedError(
                    f"cases {case} and {case}{suffix} of {folder} would overwrite each other's files; rename one"
                )
    check_copies(folder, cases)


def check_copies(folder: Path, cases: dict[str, Case]) -> None:
    """Refuse an image of an unlabelled case that is, or is a copy of, the image of a labelled one.

    Only files of one size are opened, and these in full only where samples of them agree.
    """
    images = {case.identifier: (case.images[0], case.images[0].stat().st_size) for case in cases.values()}
    sizes = [{images[case][1] for case in cases if (cases[case].label is None) == hidden} for hidden in (False, True)]
    labeled: dict[tuple[int, bytes], list[str]] = {}
    twice = [(case, image, size) for case, (image, size) in images.items() if size in sizes[0] & sizes[1]]
    for case, image, size in sorted(twice, key=lambda one: cases[one[0]].label is None):  # those with a label first
        alike = labeled.setdefault((size, _sample(image)), [])
        if cases[case].label is not None:
            alike.append(case)
            continue
        for other in alike:
            if filecmp.cmp(image, images[other][0], shallow=False):
                raise LimitedError(
                    f"image {image} of the unlabelled case {case} is that of the labelled case {other} too; remove one "
                    f"of these cases from {folder}"
                )


def _sample(file: Path) -> bytes:
    """Return a hash of some blocks within a file."""
    size, found = file.stat().st_size, hashlib.sha256()
    with file.open("rb") as stream:
        for part in range(8):
            stream.seek(size * part // 8)
            found.update(stream.read(4096))
    return found.digest()
