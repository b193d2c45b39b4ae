"""How nnU-Net finds our trainers."""

import os
import re
import traceback
from functools import cache
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


def users_class(name: str) -> Path | None:
    """Return a module in one of the user's folders of trainers that defines a class ``name``; none is imported."""
    return _module_with(name, tuple(_folders()))


@cache
def _module_with(name: str, folders: tuple[str, ...]) -> Path | None:
    definition = re.compile(rf"^class\s+{re.escape(name)}\b", re.MULTILINE)
    for folder in map(Path, folders):
        if folder.is_dir() and not folder.samefile(extension_folder()):
            for file in sorted(folder.rglob("*.py")):
                if file.is_file() and definition.search(file.read_text(encoding="utf-8", errors="replace")):
                    return file
    return None


def _folders() -> list[str]:
    return [folder for folder in os.environ.get(EXT_TRAINER, "").split(os.pathsep) if folder]
