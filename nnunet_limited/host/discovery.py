"""How nnU-Net finds our trainers."""

import os
import traceback
from pathlib import Path

EXT_TRAINER = "nnUNet_extTrainer"
GIVEN = os.environ.get(EXT_TRAINER, "")  # before this process adds to it


def extension_folder() -> Path:
    """Return the folder that ``nnUNet_extTrainer`` must name."""
    return Path(__file__).resolve().parent.parent / "_ext"


def export_extension_folder() -> None:
    """Put our folder first in ``nnUNet_extTrainer`` for this process and its children, before those of the user.

    nnU-Net imports every module of a folder that it searches, so our trainers do not depend on the user's modules.
    """
    ours = str(extension_folder())
    os.environ[EXT_TRAINER] = os.pathsep.join([ours, *(folder for folder in _folders() if folder != ours)])


def is_users(error: BaseException) -> bool:
    """Return whether ``error`` was raised while a module in one of the user's folders of trainers was imported."""
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    files += [error.filename] if isinstance(error, SyntaxError) and error.filename else []
    return any(Path(file).resolve().is_relative_to(Path(folder).resolve()) for file in files for folder in _folders())


def _folders() -> list[str]:
    return [folder for folder in os.environ.get(EXT_TRAINER, "").split(os.pathsep) if folder]
