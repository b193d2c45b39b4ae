"""Preprocess cases with nnU-Net's own code: resumable, and never opening the label of an unlabelled case."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.datasets.description import DatasetDescription
from nnunet_limited.datasets.raw import Case, RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import preprocessed_folder
from nnunet_limited.host.images import image_digest, label_digest, write_label
from nnunet_limited.host.planning import nonzero_mask
from nnunet_limited.host.plans import managers, with_inherited
from nnunet_limited.planners.case_record import (
    SHAPED_BY,
    CaseRecord,
    begin_replacing,
    files_of,
    stamps,
    why_not_current,
)
from nnunet_limited.planners.readers import TRUTH, is_any_reading, refuse_read, replacing_cases
from nnunet_limited.util.files import content_hash, copy_file, move_files, replacing, writing
from nnunet_limited.util.locks import one_at_a_time
from nnunet_limited.util.parallel import run_all
from nnunet_limited.util.provenance import DigestCache, digest_cache
from nnunet_limited.util.weights import check_pickle

UNLABELED_SUFFIX = "_unlabeled"
DATA_PREFIX = "nnUNetLimited_"
DIGESTS = "digests.json"  # what is known of the files of a dataset, in its preprocessed folder


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
) -> list[str]:
    """Preprocess the cases that are missing, damaged or made from other files than there are now.

    Returns a line for each case that was there, but is made again.
    """
    with_label, without_label = data_folders(plans, configuration)
    digests = digest_cache(with_label.parent / DIGESTS)
    with one_at_a_time(with_label):  # or another process that wants the same cases would make them too
        shutil.rmtree(scratch_folder(with_label), ignore_errors=True)  # of killed processes
        shutil.rmtree(scratch_folder(without_label), ignore_errors=True)
        wanted = ((with_label, labeled, True), (without_label, unlabeled, False))
        missing = [one for folder, cases, label in wanted for one in _missing(dataset, folder, cases, label, digests)]
        digests.save()
        with replacing_cases(with_label.parent, _replaced(missing)):
            tasks = []
            for folder, case, use_label, record, _ in missing:
                origin = origin_folder(dataset, folder)
                if origin is None or not link_preprocessed(case.identifier, origin, folder, record):
                    tasks.append((case, folder, use_label, plans, configuration, dataset.dataset_json, record))
            if tasks:
                run_all(preprocess_case, tasks, processes, f"Preprocessing {configuration}")
        for folder in (with_label, without_label):
            with contextlib.suppress(OSError):  # not there
                scratch_folder(folder).rmdir()
    again = [(case.identifier, why) for _, case, _, _, why in missing if why]
    return [f"{case}: {why}; preprocessed again for {configuration}" for case, why in again]


Missing = tuple[Path, Case, bool, CaseRecord, str]  # folder, case, with its label, what it is to be made from, why


def _missing(
    dataset: RawDataset, folder: Path, cases: Iterable[str], use_label: bool, digests: DigestCache
) -> Iterator[Missing]:
    """Yield the cases to preprocess into ``folder``; the last value is "" for those that were never there."""
    reader = dataset.reader()
    for case in map(dataset.cases.__getitem__, cases):
        record = record_of(case, use_label, reader, digests)
        why = why_not_current(folder, case.identifier, record)
        if why is not None:
            yield folder, case, use_label, record, why


def _replaced(missing: Iterable[Missing]) -> dict[str, list[str]]:
    """Return the cases among the ``missing`` whose files are there, by the name of the folder."""
    found: dict[str, list[str]] = {}
    for folder, case, _, _, why in missing:
        if why:
            found.setdefault(folder.name, []).append(case.identifier)
    return found


def refuse_trained_on(
    plans: dict[str, Any], configuration: str, dataset: RawDataset, labeled: Iterable[str], unlabeled: Iterable[str]
) -> None:
    """Raise LimitedError if a training runs on a case that :func:`preprocess` would have to make again."""
    with_label, without_label = data_folders(plans, configuration)
    if is_any_reading(with_label.parent):
        digests = digest_cache(with_label.parent / DIGESTS)
        missing = [*_missing(dataset, with_label, labeled, True, digests)]
        missing += _missing(dataset, without_label, unlabeled, False, digests)
        refuse_read(with_label.parent, _replaced(missing))


def record_of(case: Case, use_label: bool, reader: Any, digests: DigestCache) -> CaseRecord:
    """Return what a case is to be made from."""
    found = {"image": image_digest(case.images, reader, digests)}
    files: dict[str, Sequence[Path]] = {"image": case.images}
    for kind, file in case.labels if use_label else []:
        found[kind] = label_digest(file, reader, digests)
        files[kind] = [file]
    return CaseRecord(found, {kind: stamps(some) for kind, some in files.items()})


def origin_folder(dataset: RawDataset, folder: Path) -> Path | None:
    """Return where the dataset of which ``dataset`` is a view has the cases of ``folder``, if it has them.

    Such folders are named after all that preprocessing depends on, and cases in them are replaced, never changed.
    """
    name = dataset.dataset_json.get("view_of")
    if not isinstance(name, str) or not folder.name.startswith(DATA_PREFIX):
        return None
    found = folder.parents[1] / name / folder.name
    return found if found.is_dir() else None


def link_preprocessed(case: str, origin: Path, folder: Path, record: CaseRecord) -> bool:
    """Link a case that was made in ``origin`` from the same image and label; return whether there is one."""
    made = CaseRecord.read(origin, case)
    same = made is not None and all(made.digests.get(kind) == record.digests.get(kind) for kind in SHAPED_BY)
    if made is None or not same or not made.fits(origin, case, closely=True):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    begin_replacing(folder, case)
    for ending, file in files_of(origin, case).items():
        with replacing(folder / f"{case}{ending}") as temporary:
            try:
                os.link(file, temporary)
            except OSError:  # on a file system without links
                shutil.copy2(file, temporary)
    record.write(folder, case)
    return True


def preprocess_case(
    case: Case,
    folder: Path,
    use_label: bool,
    plans: dict[str, Any],
    configuration: str,
    dataset_json: dict[str, Any],
    record: CaseRecord,
) -> None:
    """Preprocess one case into ``folder`` with nnU-Net's ``run_case_save``; its ``record`` appears last.

    Without label nnU-Net computes the mask of the image itself (0 inside, -1 outside), as it does for prediction.
    """
    manager, chosen = managers(plans, configuration)
    label = case.label if use_label else None
    images = [str(image) for image in case.images]
    scratch = scratch_folder(folder)
    with writing(scratch), contextlib.ExitStack() as stack:
        for needed in (folder, scratch):
            needed.mkdir(parents=True, exist_ok=True)
        temporary = stack.enter_context(tempfile.TemporaryDirectory(dir=scratch))
        made = Path(temporary) / case.identifier
        ignore = DatasetDescription(dataset_json).ignore
        if label is not None and ignore is not None and any(chosen.use_mask_for_norm):
            copy = Path(temporary) / f"label{dataset_json['file_ending']}"
            label = background_outside(case, manager.image_reader_writer_class, ignore, copy)
        label_file = str(label) if label else None
        preprocessor = chosen.preprocessor_class(verbose=False)
        try:
            preprocessor.run_case_save(str(made), images, label_file, manager, chosen, dataset_json)
        except MemoryError as error:  # as for an image whose header gives a spacing of metres
            raise LimitedError(
                f"image {images[0]} of case {case.identifier} does not fit into memory at the spacing of the plans, "
                f"{chosen.spacing} mm; check the spacing in its header, or use a machine with more memory"
            ) from error
        begin_replacing(folder, case.identifier)
        move_files({Path(f"{made}{ending}"): file for ending, file in files_of(folder, case.identifier).items()})
        record.write(folder, case.identifier)


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
    write_label(reader, np.where(outside, 0, label[0]).astype(np.int16), target, properties)
    return target


def scratch_folder(folder: Path) -> Path:
    """Return where cases of ``folder`` are made; not inside it, where nnU-Net expects whole cases only."""
    return folder.with_name(folder.name + ".tmp")


def copy_ground_truth(
    cases: Sequence[Case], preprocessed: Path, file_ending: str, reader: Any, digests: DigestCache
) -> list[str]:
    """Copy validation labels to ``gt_segmentations``, where nnU-Net's validation looks for them.

    Returns a line for each that was there and differs.
    """
    again, missing = [], []
    for case in cases:
        truth = case.truth or case.label
        assert truth is not None
        target = preprocessed / TRUTH / f"{case.identifier}{file_ending}"
        wanted = label_digest(truth, reader, digests)
        if target.is_file():
            if _is_copy(target, wanted, reader, digests):
                continue
            again.append(case.identifier)
        missing.append((truth, target, wanted))
    with replacing_cases(preprocessed, {TRUTH: again}):
        for truth, target, wanted in missing:
            copy_file(truth, target)
            digests.add([target], wanted)
    return [f"{case}: its label has changed; copied again for validation" for case in again]


def _is_copy(target: Path, wanted: str, reader: Any, digests: DigestCache) -> bool:
    try:
        return label_digest(target, reader, digests) == wanted
    except LimitedError:  # it is damaged
        return False


def require_preprocessed(folder: Path, cases: Iterable[str], what: str, remedy: str) -> None:
    """Raise LimitedError for a case that is not preprocessed in ``folder``, or whose files are damaged."""
    for case in cases:
        files, record = files_of(folder, case), CaseRecord.read(folder, case)
        if not all(file.is_file() for file in files.values()):
            raise LimitedError(f"{what} case {case!r} is not preprocessed in {folder}; {remedy}")
        broken = [file for file in files.values() if not file.stat().st_size]
        if broken or (record is not None and not record.fits(folder, case, closely=False)):
            file = broken[0] if broken else files[".b2nd"]
            raise LimitedError(f"{what} case {case!r}: {file} or a file beside it is damaged; {remedy}")
        check_pickle(files[".pkl"], remedy)  # nnU-Net would run the code in it
