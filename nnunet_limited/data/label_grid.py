"""Pseudo-labels on the grid that a network trains on, with the voxels that are not sure set apart, and boxes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from nnunet_limited.data.loaders import UnlabeledDataset
from nnunet_limited.data.pseudo_label_store import PseudoLabels
from nnunet_limited.util.files import is_current, one_at_a_time, replacing
from nnunet_limited.util.parallel import default_processes, run_all


def bring_to_network(
    labels: PseudoLabels,
    cases: list[str],
    unlabeled_folder: Path,
    plans: dict[str, Any],
    configuration: str,
    threshold: float,
    unsure: int,
) -> Path:
    """Return the folder of the labels of ``cases`` on the grid of the preprocessed images in ``unlabeled_folder``.

    Voxels with a confidence below ``threshold`` in [0, 1] become ``unsure``. What is there and not older than its files
    is not made again. One process prepares them; others, as there are with several GPUs, wait for it.
    """
    name = f"{unlabeled_folder.name}_pseudo_{labels.hash}_{round(100 * threshold)}"
    folder = unlabeled_folder.with_name(name)
    missing = partial(_missing, labels, cases, folder)
    if missing():
        with one_at_a_time(folder):
            tasks = [
                (labels, case, unlabeled_folder, folder, plans, configuration, threshold, unsure) for case in missing()
            ]
            run_all(_bring_case, tasks, default_processes(), "Preparing pseudo-labels")
    return folder


def _missing(labels: PseudoLabels, cases: list[str], folder: Path) -> list[str]:
    """Return the cases that ``folder`` does not have, or older than their pseudo-label, which people may correct."""
    return [case for case in cases if not is_current(folder / f"{case}.b2nd", labels.files(case))]


def _bring_case(
    labels: PseudoLabels,
    case: str,
    unlabeled_folder: Path,
    folder: Path,
    plans: dict[str, Any],
    configuration: str,
    threshold: float,
    unsure: int,
) -> None:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans)
    chosen = manager.get_configuration(configuration)
    label, confidence = labels.read(case, manager.image_reader_writer_class())
    label = np.where(confidence >= np.round(100 * threshold), label, unsure)
    _save_on_grid(label[None], case, unlabeled_folder, folder, manager, chosen)


def bring_boxes(
    files: dict[str, Path], folder: Path, plans: dict[str, Any], configuration: str, processes: int
) -> None:
    """Bring the images of boxes of cases preprocessed in ``folder`` onto its grid, beside it, unless that is done."""
    made = box_folder(folder)
    tasks = [
        (case, file, folder, plans, configuration)
        for case, file in files.items()
        if not is_current(made / f"{case}.b2nd", [file])
    ]
    run_all(_bring_boxes, tasks, processes, "Preparing boxes")


def box_folder(folder: Path) -> Path:
    """Return where the boxes of cases preprocessed in ``folder`` lie."""
    return folder.with_name(f"{folder.name}_boxes")


def _bring_boxes(case: str, file: Path, folder: Path, plans: dict[str, Any], configuration: str) -> None:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans)
    codes, _ = manager.image_reader_writer_class().read_seg(str(file))
    _save_on_grid(codes, case, folder, box_folder(folder), manager, manager.get_configuration(configuration))


def _save_on_grid(label: np.ndarray, case: str, folder: Path, target: Path, manager: Any, chosen: Any) -> None:
    """Write ``label`` (1, *spatial of the scan) to ``target`` on the grid of the case preprocessed in ``folder``."""
    data, _, _, properties = UnlabeledDataset(str(folder), [case]).load_case(case)
    save_label(to_network(label, properties, data.shape[1:], manager, chosen)[0], target / f"{case}.b2nd")


def save_label(label: np.ndarray, file: Path) -> None:
    """Write a label to ``file`` as the host stores those of a previous stage."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    with replacing(file) as temporary:
        made = temporary.with_name(f"{temporary.name}.b2nd")
        nnUNetDatasetBlosc2.save_seg(label.astype(np.int16), str(made.with_suffix("")))
        made.replace(temporary)


def to_network(
    label: np.ndarray, properties: dict[str, Any], shape: tuple[int, ...], plans_manager: Any, configuration: Any
) -> np.ndarray:
    """Transpose, crop and resample ``label`` (1, *spatial of the scan) as the host did its image, to ``shape``."""
    axes = plans_manager.transpose_forward
    label = label.transpose([0, *(axis + 1 for axis in axes)])
    inside = tuple(slice(start, end) for start, end in properties["bbox_used_for_cropping"])
    label = label[0][inside][None]
    spacing = [properties["spacing"][axis] for axis in axes]
    target = network_spacing(properties, plans_manager, configuration)
    resampled: np.ndarray = configuration.resampling_fn_seg(label, shape, spacing, target)
    return resampled


def from_network(mask: np.ndarray, properties: dict[str, Any], plans_manager: Any, outside: bool) -> np.ndarray:
    """Return a boolean ``mask`` (*spatial) of a preprocessed image on the grid of its scan.

    Each voxel is that of the mask at its middle, and ``outside`` where the host has cropped the image.
    """
    shape = [int(size) for size in properties["shape_after_cropping_and_before_resampling"]]
    near = functional.interpolate(torch.from_numpy(mask)[None, None].float(), shape, mode="nearest-exact")[0, 0] > 0.5
    whole = np.full(properties["shape_before_cropping"], outside)
    whole[tuple(slice(start, end) for start, end in properties["bbox_used_for_cropping"])] = near.numpy()
    return whole.transpose(plans_manager.transpose_backward)


def network_spacing(properties: dict[str, Any], plans_manager: Any, configuration: Any) -> list[float]:
    """Return the spacing of a preprocessed case, whose slices a 2D configuration leaves as thick as they are."""
    spacing = [properties["spacing"][axis] for axis in plans_manager.transpose_forward]
    return [*spacing[: len(spacing) - len(configuration.spacing)], *configuration.spacing]
