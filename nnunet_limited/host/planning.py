"""nnU-Net's planning: fingerprints, planners, network topology, cropping and cross-validation."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.errors import LimitedError
from nnunet_limited.util.files import writing


@contextmanager
def scratch_preprocessed() -> Iterator[Path]:
    """Let nnU-Net write its fixed file names into a temporary ``nnUNet_preprocessed`` for a while.

    ``nnUNet_n_proc_DA`` is unset meanwhile: nnU-Net's planner takes it for a number of threads and fails at 0.
    """
    before = {name: os.environ.pop(name, None) for name in ("nnUNet_preprocessed", "nnUNet_n_proc_DA")}
    with writing(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory(prefix="nnunet_limited_") as folder:
        os.environ["nnUNet_preprocessed"] = folder
        try:
            yield Path(folder)
        finally:
            del os.environ["nnUNet_preprocessed"]
            os.environ.update({name: value for name, value in before.items() if value is not None})


def fingerprint_extractor(dataset: str, processes: int) -> Any:
    """Return nnU-Net's extractor of the fingerprint of a dataset, without progress bar."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

    extractor = DatasetFingerprintExtractor(dataset, processes)
    extractor.show_progress_bar = False
    return extractor


def host_planner(name: str) -> type:
    """Return nnU-Net's planner class ``name``."""
    import nnunetv2
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    folder = str(Path(nnunetv2.__path__[0]) / "experiment_planning")
    found = recursive_find_python_class(folder, name, current_module="nnunetv2.experiment_planning")
    if found is None or not issubclass(found, ExperimentPlanner):
        raise LimitedError(f"-pl {name}: nnU-Net has no such planner; use e.g. nnUNetPlannerResEncM")
    return found


def limited_planner(base: type, num_cases: int) -> type:
    """Return ``base`` with a data set size of ``num_cases``.

    The batch size is capped at 5 % of the data set, which has unlabelled images too. Preprocessor and planner keep
    their host names in the plans because nnU-Net resolves them inside its own package.
    """

    parent: Any = base

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        parent.__init__(self, *args, **kwargs)
        self.dataset_json = {**self.dataset_json, "numTraining": num_cases}

    return type(base.__name__, (base,), {"__init__": __init__})


def network_topology(
    spacing: Sequence[float], patch: Sequence[int], min_feature_map: int, max_poolings: int
) -> tuple[list[list[int]], list[list[int]], list[int]]:
    """Return strides and kernel sizes of each stage, and the patch size that divides by all strides."""
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props

    _, strides, kernels, fitted, _ = get_pool_and_conv_props(spacing, patch, min_feature_map, max_poolings)
    kernels, strides = ([list(map(int, stage)) for stage in stages] for stages in (kernels, strides))
    return strides, kernels, [int(n) for n in fitted]


def cropped_to_nonzero(image: np.ndarray) -> np.ndarray:
    """Return an image (channels, *spatial) cropped to what is not 0 in every channel, as nnU-Net crops it."""
    from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero

    return crop_to_nonzero(image)[0]


def nonzero_mask(image: np.ndarray) -> np.ndarray:
    """Return nnU-Net's mask (*spatial) of the nonzero part of an image (channels, *spatial), holes filled."""
    from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask

    return create_nonzero_mask(image)


def normalization_problem(image: np.ndarray, channels: Sequence[str]) -> str | None:
    """Return why nnU-Net cannot normalize an ``image`` (channels, *spatial), and the remedy; None if it can.

    CT is not tried: it is clipped, to intensities of the whole dataset.
    """
    from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme

    for values, channel in zip(image, channels, strict=True):
        scheme = get_normalization_scheme(channel)
        if scheme.__name__ == "CTNormalization":
            continue
        low, high = float(values.min()), float(values.max())
        try:
            with np.errstate(all="ignore"):
                made = scheme(False, {}).run(values.copy(), None)
        except AssertionError:  # nnU-Net's word for values that are no colours
            return (
                f"channel {channel!r} has values from {low:g} to {high:g}, but {scheme.__name__} needs 0 to 255; "
                "correct channel_names in dataset.json"
            )
        # A standard deviation that overflows makes everything 0.
        if not np.isfinite(made).all() or (high > low and np.ptp(made) == 0):
            return f"channel {channel!r} has values from {low:g} to {high:g}, which overflow; correct or rescale them"
    return None


def crossval_folds(groups: Sequence[str], seed: int, folds: int) -> list[list[str]]:
    """Return the groups that each fold validates on, as nnU-Net partitions them."""
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    made = generate_crossval_split(list(groups), seed=seed, n_splits=folds)
    return [[str(group) for group in fold["val"]] for fold in made]
