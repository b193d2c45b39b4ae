"""How nnU-Net finds our trainers."""

import os
from pathlib import Path

EXT_TRAINER = "nnUNet_extTrainer"
GIVEN = os.environ.get(EXT_TRAINER, "")  # before this process adds to it


def extension_folder() -> Path:
    """Return the folder that ``nnUNet_extTrainer`` must name."""
    return Path(__file__).resolve().parent.parent / "_ext"


def export_extension_folder() -> None:
    """Append our folder to ``nnUNet_extTrainer`` for this process and its children, keeping the user's value."""
    ours = str(extension_folder())
    folders = [folder for folder in os.environ.get(EXT_TRAINER, "").split(os.pathsep) if folder]
    if ours not in folders:
        os.environ[EXT_TRAINER] = os.pathsep.join([*folders, ours])
