"""nnU-Net's preprocessed cases on disk, and labels on their grid and back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from torch.nn import functional

from nnunet_limited.util.files import replacing
from nnunet_limited.util.weights import check_pickle

__all__ = [
    "PreprocessedCases",
    "from_network",
    "network_spacing",
    "read_locations",
    "save_label",
    "save_locations",
    "save_on_grid",
    "to_network",
]

LOCATIONS = "_locations.npz"
LOCATIONS_PER_CLASS = 2000  # nnU-Net stores 10,000; crops around them differ by less than an object's size


class PreprocessedCases(nnUNetDatasetBlosc2):
    """nnU-Net's cases of a folder, none of which runs code when it is read."""

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Return image, label, label of a previous stage and properties; refuse properties that could act."""
        check_pickle(Path(self.source_folder, f"{identifier}.pkl"), "run 'nnunet-limited plan' to make the case again")
        case: tuple[Any, Any, Any, dict[str, Any]] = super().load_case(identifier)
        return case


def save_label(label: np.ndarray, file: Path) -> None:
    """Write a label to ``file`` as nnU-Net stores those of a previous stage."""
    with replacing(file, ".b2nd") as temporary:
        PreprocessedCases.save_seg(label.astype(np.int16), str(temporary.with_suffix("")))


def save_on_grid(label: np.ndarray, case: str, folder: Path, target: Path, manager: Any, chosen: Any) -> np.ndarray:
    """Write ``label`` (1, *spatial of the scan) to ``target`` on the grid of the case preprocessed in ``folder``.

    Returns it (1, *spatial of the network).
    """
    data, _, _, properties = PreprocessedCases(str(folder), [case]).load_case(case)
    resampled = to_network(label, properties, data.shape[1:], manager, chosen)
    save_label(resampled[0], target / f"{case}.b2nd")
    return resampled


def save_locations(label: np.ndarray, groups: Sequence[tuple[int, ...]], file: Path) -> None:
    """Write voxels of each of the ``groups`` of values in a ``label`` (1, *spatial), as nnU-Net chooses them."""
    found = DefaultPreprocessor._sample_foreground_locations(
        label, list(groups), min_num_samples=LOCATIONS_PER_CLASS, min_percent_coverage=0.0
    )
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, *(np.asarray(found[group], np.int16).reshape(-1, label.ndim) for group in groups))


def read_locations(folder: Path, case: str) -> dict[int, np.ndarray]:
    """Return the voxels (n, 4) of each group that :func:`save_locations` wrote for a case, by their number."""
    with np.load(folder / f"{case}{LOCATIONS}") as stored:
        return {number: stored[name].astype(np.int64) for number, name in enumerate(stored.files)}


def to_network(
    label: np.ndarray, properties: dict[str, Any], shape: tuple[int, ...], plans_manager: Any, configuration: Any
) -> np.ndarray:
    """Transpose, crop and resample ``label`` (1, *spatial of the scan) as nnU-Net did its image, to ``shape``."""
    axes = plans_manager.transpose_forward
    label = label.transpose([0, *(axis + 1 for axis in axes)])
    inside = tuple(slice(start, end) for start, end in properties["bbox_used_for_cropping"])
    label = label[0][inside][None]
    spacing = [properties["spacing"][axis] for axis in axes]
    target = network_spacing(properties, plans_manager, configuration)
    return configuration.resampling_fn_seg(label, shape, spacing, target)


def from_network(mask: np.ndarray, properties: dict[str, Any], plans_manager: Any, outside: bool) -> np.ndarray:
    """Return a boolean ``mask`` (*spatial) of a preprocessed image on the grid of its scan.

    Each voxel is that of the mask at its middle, and ``outside`` where nnU-Net has cropped the image.
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
