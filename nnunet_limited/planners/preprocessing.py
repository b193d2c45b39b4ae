"""Preprocess cases with nnU-Net's own code: resumable, and never opening the label of an unlabelled case."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.datasets.description import DatasetDescription
from nnunet_limited.datasets.raw import Case, RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import preprocessed_folder
from nnunet_limited.host.planning import nonzero_mask
from nnunet_limited.host.plans import managers, with_inherited
from nnunet_limited.util.files import content_hash, is_current, one_at_a_time, replacing
from nnunet_limited.util.parallel import run_all

UNLABELED_SUFFIX = "_unlabeled"
DATA_PREFIX = "nnUNetLimited_"
FILES = (".b2nd", "_seg.b2nd", ".pkl")  # of a case; the last one is written last


def data_folders(plans: dict[str, Any], configuration: str) -> tuple[Path, Path]:
    """Return the folders of preprocessed cases with label and without.

    Cases without label lie in a folder of their own because nnU-Net takes every case of a folder for a labelled one.
    For plans of nnU-Net it is named after what shapes the data too: stock planning reuses the name of its folder.
    """
    chosen = with_inherited(plans, configuration)
    folder = preprocessed_folder(plans["dataset_name"]) / chosen["data_identifier"]
    suffix = UNLABELED_SUFFIX if is_bound(plans) else f"{UNLABELED_SUFFIX}_{preprocessing_hash(plans, chosen, {})}"
    return folder, folder.with_name(folder.name + suffix)


def box_folder(folder: Path) -> Path:
    """Return where the boxes of cases preprocessed in ``folder`` lie."""
    return folder.with_name(f"{folder.name}_boxes")


def is_bound(plans: dict[str, Any]) -> bool:
    """Return whether ``plans`` are ours, made from a split, and not nnU-Net's own."""
    return "split" in (plans.get("limited") or {})


def preprocessing_hash(plans: dict[str, Any], configuration: dict[str, Any], labels: dict[str, Any]) -> str:
    """Hash all that preprocessing depends on, so that plans with the same preprocessing share its folder."""
    keys = ["preprocessor_name", "spacing", "normalization_schemes", "use_mask_for_norm"]
    keys += [key for key in configuration if key.startswith("resampling_fn")]
    matters = {"labels": labels, **{key: configuration[key] for key in keys}}
    matters |= {key: plans[key] for key in ("transpose_forward", "image_reader_writer")}
    if "CTNormalization" in configuration["normalization_schemes"]:
        matters["intensities"] = plans["foreground_intensity_properties_per_channel"]
    return content_hash(matters)[:8]


def fingerprint_folder(preprocessed: Path, plans: str) -> Path:
    """Return where the fingerprint of ``plans`` lies; the stock fingerprint of the dataset is never touched."""
    return preprocessed / "fingerprints" / plans


def preprocess(
    plans: dict[str, Any],
    configuration: str,
    dataset: RawDataset,
    labeled: Iterable[str],
    unlabeled: Iterable[str],
    processes: int,
) -> None:
    """Preprocess the cases that are missing or older than their raw files."""
    with_label, without_label = data_folders(plans, configuration)
    with one_at_a_time(with_label):  # or another process that wants the same cases would make them too
        tasks = []
        origin = origin_of(dataset)
        for folder, cases, use_label in ((with_label, labeled, True), (without_label, unlabeled, False)):
            for identifier in cases:
                case = dataset.cases[identifier]
                if is_current(folder / f"{identifier}.pkl", sources_of(case, use_label)):
                    continue
                if origin is None or not link_preprocessed(case, origin, folder, use_label):
                    tasks.append((case, folder, use_label, plans, configuration, dataset.dataset_json))
        if tasks:
            run_all(preprocess_case, tasks, processes, f"Preprocessing {configuration}")
    for folder in (with_label, without_label):
        with contextlib.suppress(OSError):  # not there, or another process is making cases in it
            scratch_folder(folder).rmdir()


def sources_of(case: Case, use_label: bool) -> list[Path]:
    """Return the raw files that a preprocessed case is made from."""
    return [*case.images, *([case.label] if use_label and case.label else [])]


def origin_of(dataset: RawDataset) -> RawDataset | None:
    """Return the raw dataset of which ``dataset`` is a view, if it is one and the other is there."""
    name = dataset.dataset_json.get("view_of")
    try:
        return RawDataset.load(name) if name else None
    except LimitedError:  # it was removed or renamed, and is not needed
        return None


def link_preprocessed(case: Case, origin: RawDataset, folder: Path, use_label: bool) -> bool:
    """Link a case that ``origin`` has preprocessed from the same files in a folder of the same name.

    Returns whether there is one. Such folders are named after all that preprocessing depends on, and cases in them are
    replaced, never changed.
    """
    theirs = origin.cases.get(case.identifier)
    source = folder.parents[1] / origin.name / folder.name
    if theirs is None or not folder.name.startswith(DATA_PREFIX):
        return False
    mine, other = sources_of(case, use_label), sources_of(theirs, use_label)
    same = [file.resolve() for file in mine] == [file.resolve() for file in other]
    if not same or not is_current(source / f"{case.identifier}.pkl", other):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{case.identifier}.pkl").unlink(missing_ok=True)
    for ending in FILES:
        with replacing(folder / f"{case.identifier}{ending}") as temporary:
            try:
                os.link(source / f"{case.identifier}{ending}", temporary)
            except OSError:  # on a file system without links
                shutil.copy2(source / f"{case.identifier}{ending}", temporary)
    return True


def preprocess_case(
    case: Case, folder: Path, use_label: bool, plans: dict[str, Any], configuration: str, dataset_json: dict[str, Any]
) -> None:
    """Preprocess one case into ``folder`` with nnU-Net's ``run_case_save``; its ``.pkl`` appears last.

    Without label nnU-Net computes the mask of the image itself (0 inside, -1 outside), as it does for prediction.
    """
    manager, chosen = managers(plans, configuration)
    label = case.label if use_label else None
    images = [str(image) for image in case.images]
    scratch = scratch_folder(folder)
    for needed in (folder, scratch):
        needed.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as temporary:
        made = Path(temporary) / case.identifier
        ignore = DatasetDescription(dataset_json).ignore
        if label is not None and ignore is not None and any(chosen.use_mask_for_norm):
            copy = Path(temporary) / f"label{dataset_json['file_ending']}"
            label = background_outside(case, manager.image_reader_writer_class, ignore, copy)
        label_file = str(label) if label else None
        preprocessor = chosen.preprocessor_class(verbose=False)
        try:
            preprocessor.run_case_save(str(made), images, label_file, manager, chosen, dataset_json)
        except MemoryError as error:  # as of an image whose header gives a spacing of metres
            raise LimitedError(
                f"image {images[0]} of case {case.identifier} does not fit into memory at the spacing of the plans, "
                f"{chosen.spacing} mm; check the spacing in its header, or use a machine with more memory"
            ) from error
        (folder / f"{case.identifier}.pkl").unlink(missing_ok=True)
        for ending in FILES:
            os.replace(f"{made}{ending}", folder / f"{case.identifier}{ending}")


def background_outside(case: Case, reader_class: Any, ignore: int, target: Path) -> Path:
    """Return a label file of ``case`` with background where it is ignored outside the nonzero mask of its image.

    nnU-Net does not mark such voxels as outside, so that it would normalise a sparse image over its empty margin.
    """
    reader = reader_class()
    label, properties = reader.read_seg(str(case.label))
    image, _ = reader.read_images([str(file) for file in case.images])
    outside = (label[0] == ignore) & ~nonzero_mask(image)
    if not outside.any():
        return Path(str(case.label))
    reader.write_seg(np.where(outside, 0, label[0]).astype(np.int16), str(target), properties)
    return target


def scratch_folder(folder: Path) -> Path:
    """Return where cases of ``folder`` are made; not inside it, where nnU-Net expects whole cases only."""
    return folder.with_name(folder.name + ".tmp")


def copy_ground_truth(cases: Sequence[Case], preprocessed: Path, file_ending: str) -> None:
    """Copy validation labels to ``gt_segmentations``, where nnU-Net's validation looks for them."""
    for case in cases:
        truth = case.truth or case.label
        assert truth is not None
        target = preprocessed / "gt_segmentations" / f"{case.identifier}{file_ending}"
        wanted = truth.stat()
        there = target.stat() if target.is_file() else None
        if there is None or (there.st_mtime, there.st_size) != (wanted.st_mtime, wanted.st_size):
            with replacing(target) as temporary:
                shutil.copy2(truth, temporary)


def require_preprocessed(folder: Path, cases: Iterable[str], what: str, remedy: str) -> None:
    """Raise LimitedError for a case that is not preprocessed in ``folder``."""
    for case in cases:
        if not (folder / f"{case}.pkl").is_file():
            raise LimitedError(f"{what} case {case!r} is not preprocessed in {folder}; {remedy}")
