"""Raw nnU-Net datasets: images, and the label files of those that have one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_limited.datasets.description import DATASET_FORMAT, DatasetDescription, check_description
from nnunet_limited.datasets.listing import channels_by_case
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import dataset_name, nnunet_folder
from nnunet_limited.host.images import listed_files, reader_for
from nnunet_limited.util.files import read_object

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

    def reader(self) -> Any:
        """Return nnU-Net's reader class for the dataset's images."""
        return reader_for(self.dataset_json, next(iter(self.cases.values())).images[0])

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
        dataset_json = read_object(folder / "dataset.json", "dataset description", DATASET_FORMAT)
        check_description(dataset_json, folder / "dataset.json")
        cases = labeled_cases(folder, dataset_json)
        for identifier, images in unlabeled_images(folder, dataset_json).items():
            if identifier in cases:
                raise LimitedError(
                    f"case {identifier} is in {folder / 'imagesTr'} and in {folder / UNLABELED_FOLDER}; remove one"
                )
            cases[identifier] = Case(identifier, tuple(images), None)
        made = cls(folder.name, folder, dataset_json, dict(sorted(cases.items())))
        for case in made.cases.values():
            if len(case.images) != made.description.num_channels:
                raise LimitedError(
                    f"case {case.identifier} in {folder} has {len(case.images)} image files but dataset.json declares "
                    f"{made.description.num_channels} channels; add the missing files or correct channel_names"
                )
        return made


def labeled_cases(folder: Path, dataset_json: dict[str, Any]) -> dict[str, Case]:
    """Return the training cases of a raw dataset, which dataset.json lists or ``imagesTr/`` holds."""
    unlabeled, training, ending = folder / UNLABELED_FOLDER, folder / "imagesTr", dataset_json["file_ending"]
    if "dataset" in dataset_json:  # nnU-Net completes the entries in place; ours stay as they are on disk
        copy = {"dataset": {case: dict(files) for case, files in dataset_json["dataset"].items()}}
        listed = listed_files(folder, copy)
    else:
        if not training.is_dir() and not unlabeled.is_dir():
            raise LimitedError(f"{training} does not exist; put the training images there")
        only_unlabeled = unlabeled.is_dir() and not (training.is_dir() and any(training.iterdir()))
        images = {} if only_unlabeled else channels_by_case(training, ending)
        listed = {i: {"images": images[i], "label": folder / "labelsTr" / f"{i}{ending}"} for i in images}
    cases = {}
    for identifier, files in listed.items():
        further = [folder / name / f"{identifier}{ending}" for name in (TRUTH_FOLDER, BOX_FOLDER)]
        found = [file if file.is_file() else None for file in (Path(files["label"]), *further)]
        cases[identifier] = Case(identifier, tuple(map(Path, files["images"])), *found)
    return cases


def unlabeled_images(folder: Path, dataset_json: dict[str, Any]) -> dict[str, list[Path]]:
    """Return the images of the cases that dataset.json or ``imagesUn/`` lists as unlabelled."""
    images = {
        identifier: [folder / os.path.expandvars(image) for image in entry["images"]]
        for identifier, entry in dataset_json.get("unlabeled", {}).items()
    }
    if (folder / UNLABELED_FOLDER).is_dir():
        images |= channels_by_case(folder / UNLABELED_FOLDER, dataset_json["file_ending"])
    return images
