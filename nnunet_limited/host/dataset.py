"""A raw nnU-Net dataset as we see it: images, and which of them have a label file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_limited.errors import LimitedError
from nnunet_limited.host.files import read_json

UNLABELED_FOLDER = "imagesUn"


def nnunet_folder(variable: str) -> Path:
    """Return the folder that the environment ``variable`` (``nnUNet_raw`` etc.) names, which must be set."""
    value = os.environ.get(variable)
    if not value:
        raise LimitedError(f"{variable} is not set; export {variable}=/path/to/{variable} (see nnU-Net's set-up)")
    return Path(value)


def dataset_name(dataset: str) -> str:
    """Return the full name (``Dataset004_Hippocampus``) of a dataset given by name or number."""
    if not dataset.startswith("Dataset") and not dataset.isdigit():
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
    """One scan: a file per channel, and its label file if there is one."""

    identifier: str
    images: tuple[Path, ...]
    label: Path | None


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

    @classmethod
    def load(cls, dataset: str) -> RawDataset:
        """Find the dataset in ``nnUNet_raw`` and list its cases; ``imagesUn/`` holds images without labels."""
        from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

        raw = nnunet_folder("nnUNet_raw")
        if not raw.is_dir():
            raise LimitedError(f"nnUNet_raw={raw} is not a folder; set nnUNet_raw to the folder with your datasets")
        folder = raw / dataset_name(dataset)
        if not folder.is_dir():
            raise LimitedError(f"{folder} does not exist; put the raw dataset there or correct nnUNet_raw")
        remedy = "write it as nnU-Net's dataset format asks"
        dataset_json = read_json(folder / "dataset.json", "dataset description", remedy)
        for key in ("labels", "file_ending"):
            if key not in dataset_json:
                raise LimitedError(f"{folder / 'dataset.json'} has no key {key!r}; {remedy}")
        if "channel_names" not in dataset_json and "modality" not in dataset_json:
            raise LimitedError(f"{folder / 'dataset.json'} has no key 'channel_names'; {remedy}")
        if "dataset" not in dataset_json and not (folder / "imagesTr").is_dir():
            raise LimitedError(f"{folder / 'imagesTr'} does not exist; put the training images there")

        # The host edits the 'dataset' entry in place; give it a copy so that ours stays as on disk.
        copy = {
            **dataset_json,
            **({"dataset": _copied(dataset_json["dataset"])} if "dataset" in dataset_json else {}),
        }
        listed = get_filenames_of_train_images_and_targets(str(folder), copy)
        cases = {}
        for identifier, files in listed.items():
            label = Path(files["label"])
            images = tuple(Path(i) for i in files["images"])
            cases[str(identifier)] = Case(str(identifier), images, label if label.is_file() else None)
        for case in _unlabeled_images(folder, dataset_json["file_ending"]):
            if case.identifier in cases:
                raise LimitedError(
                    f"case {case.identifier} is both in {folder / 'imagesTr'} and in {folder / UNLABELED_FOLDER}; "
                    "remove one of the two"
                )
            cases[case.identifier] = case
        dataset_object = cls(folder.name, folder, dataset_json, dict(sorted(cases.items())))
        for case in dataset_object.cases.values():
            if len(case.images) != dataset_object.num_channels:
                raise LimitedError(
                    f"case {case.identifier} in {folder} has {len(case.images)} image files but dataset.json declares "
                    f"{dataset_object.num_channels} channels; add the missing files or correct channel_names"
                )
        return dataset_object


def _copied(dataset: dict[str, Any]) -> dict[str, Any]:
    return {key: dict(value) for key, value in dataset.items()}


def _unlabeled_images(folder: Path, file_ending: str) -> list[Case]:
    unlabeled = folder / UNLABELED_FOLDER
    if not unlabeled.is_dir():
        return []
    files: dict[str, list[Path]] = {}
    for file in sorted(unlabeled.iterdir()):
        stem = file.name[: -len(file_ending)]
        if file.name.endswith(file_ending) and len(stem) > 5 and stem[-5] == "_" and stem[-4:].isdigit():
            files.setdefault(stem[:-5], []).append(file)
    if not files:
        raise LimitedError(
            f"{unlabeled} holds no image named like case_0000{file_ending}; put the unlabelled images there "
            "or remove the folder"
        )
    return [Case(identifier, tuple(images), None) for identifier, images in files.items()]
