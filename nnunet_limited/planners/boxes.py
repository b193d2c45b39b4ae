"""Images of boxes on the grid that a network trains on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunet_limited.host.grid import save_on_grid
from nnunet_limited.host.plans import managers
from nnunet_limited.util.files import is_current
from nnunet_limited.util.parallel import run_all


def resample_boxes(
    files: dict[str, Path], folder: Path, plans: dict[str, Any], configuration: str, processes: int
) -> None:
    """Resample the images of boxes of cases preprocessed in ``folder`` to its grid, into a folder beside it."""
    made = box_folder(folder)
    tasks = [
        (case, file, folder, plans, configuration)
        for case, file in files.items()
        if not is_current(made / f"{case}.b2nd", [file])
    ]
    run_all(_resample_boxes, tasks, processes, "Preparing boxes")


def box_folder(folder: Path) -> Path:
    """Return where the boxes of cases preprocessed in ``folder`` lie."""
    return folder.with_name(f"{folder.name}_boxes")


def _resample_boxes(case: str, file: Path, folder: Path, plans: dict[str, Any], configuration: str) -> None:
    manager, chosen = managers(plans, configuration)
    codes, _ = manager.image_reader_writer_class().read_seg(str(file))
    save_on_grid(codes, case, folder, box_folder(folder), manager, chosen)
