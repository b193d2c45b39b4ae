"""nnU-Net's three folders, and the names of datasets in them."""

import os
from pathlib import Path

from nnunet_limited.errors import LimitedError
from nnunet_limited.util.names import check_name


def nnunet_folder(variable: str) -> Path:
    """Return the folder that the environment ``variable`` (``nnUNet_raw`` etc.) names, which must be set."""
    value = os.environ.get(variable)
    if not value:
        raise LimitedError(f"{variable} is not set; export {variable}=/path/to/{variable} (see nnU-Net's docs)")
    return Path(value)


def raw_folder(dataset: str) -> Path:
    """Return the folder of the raw dataset of this full name."""
    return nnunet_folder("nnUNet_raw") / dataset


def preprocessed_folder(dataset: str) -> Path:
    """Return the folder of the preprocessed dataset of this full name."""
    return nnunet_folder("nnUNet_preprocessed") / dataset


def results_folder(dataset: str) -> Path:
    """Return the folder of all results on the dataset of this full name."""
    return nnunet_folder("nnUNet_results") / dataset


def has_raw(dataset: str) -> bool:
    """Return whether the raw dataset is on this machine; it need not be where training runs."""
    return (Path(os.environ.get("nnUNet_raw") or "/nonexistent") / dataset).is_dir()


def free_number() -> str:
    """Return the first number from 601 that no dataset has."""
    folders = [nnunet_folder(variable) for variable in ("nnUNet_raw", "nnUNet_preprocessed")]
    taken = {dataset.name[7:10] for folder in folders if folder.is_dir() for dataset in folder.iterdir()}
    return next(f"{n:03d}" for n in range(601, 1000) if f"{n:03d}" not in taken)


def dataset_name(dataset: str) -> str:
    """Return the full name, e.g. ``Dataset004_Hippocampus``, of a dataset from its name or number."""
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
    return check_name(matches[0], "dataset")
