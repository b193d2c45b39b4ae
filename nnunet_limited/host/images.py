"""nnU-Net's readers and writers of images."""

import contextlib
import io
from pathlib import Path
from typing import Any

from nnunet_limited.errors import LimitedError
from nnunet_limited.util.files import replacing


def reader_for(dataset_json: dict[str, Any], example: Path) -> Any:
    """Return nnU-Net's reader class for images like ``example``."""
    from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

    try:
        # nnU-Net prints a traceback for each reader that fails, and a line for the one that does not.
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return determine_reader_writer_from_dataset_json(dataset_json, str(example), verbose=False)
    except RuntimeError as error:
        raise LimitedError(
            f"{example} cannot be read by nnU-Net as {dataset_json['file_ending']!r}; check the file and "
            "file_ending in dataset.json"
        ) from error


def write_label(reader: Any, label: Any, file: Path, properties: Any, ending: str) -> None:
    """Write a label (*spatial) with a reader of nnU-Net at once; its writers go by the ``ending`` of a name."""
    with replacing(file) as temporary:
        made = temporary.with_name(f"{temporary.name}{ending}")
        reader.write_seg(label, str(made), properties)
        made.replace(temporary)


def listed_files(folder: Path, dataset_json: dict[str, Any]) -> dict[str, Any]:
    """Return the files of each training case of a raw dataset as nnU-Net lists them."""
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    return get_filenames_of_train_images_and_targets(str(folder), dataset_json)
