"""Pseudo-labels on the network's grid, with a value of its own for voxels that are not confident."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.data.pseudo_label_store import PseudoLabels
from nnunet_limited.host.cases import save_on_grid
from nnunet_limited.host.plans import managers
from nnunet_limited.util.files import is_current, one_at_a_time
from nnunet_limited.util.parallel import default_processes, run_all


def resample_to_network(
    labels: PseudoLabels,
    cases: list[str],
    unlabeled_folder: Path,
    plans: dict[str, Any],
    configuration: str,
    threshold: float,
    unused: int,
) -> Path:
    """Return the folder of the labels of ``cases`` on the grid of the preprocessed images in ``unlabeled_folder``.

    Voxels with a confidence below ``threshold`` in [0, 1] become ``unused``. Labels that are newer than their files
    are used again. One process prepares them; others, as there are with several GPUs, wait for it.
    """
    name = f"{unlabeled_folder.name}_pseudo_{labels.hash}_{round(100 * threshold)}"
    folder = unlabeled_folder.with_name(name)
    missing = partial(_missing, labels, cases, folder)
    if missing():
        with one_at_a_time(folder):
            tasks = [
                (labels, case, unlabeled_folder, folder, plans, configuration, threshold, unused) for case in missing()
            ]
            run_all(_resample_case, tasks, default_processes(), "Preparing pseudo-labels")
    return folder


def _missing(labels: PseudoLabels, cases: list[str], folder: Path) -> list[str]:
    """Return the cases missing in ``folder`` or older than their pseudo-label, which people may correct."""
    return [case for case in cases if not is_current(folder / f"{case}.b2nd", labels.files(case))]


def _resample_case(
    labels: PseudoLabels,
    case: str,
    unlabeled_folder: Path,
    folder: Path,
    plans: dict[str, Any],
    configuration: str,
    threshold: float,
    unused: int,
) -> None:
    manager, chosen = managers(plans, configuration)
    label, confidence = labels.read(case, manager.image_reader_writer_class())
    label = np.where(confidence >= np.round(100 * threshold), label, unused)
    save_on_grid(label[None], case, unlabeled_folder, folder, manager, chosen)
