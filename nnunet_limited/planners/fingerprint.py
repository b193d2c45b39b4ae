"""The dataset fingerprint of a split: geometry from images, intensities from visible labels only."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from nnunet_limited.datasets.description import DatasetDescription
from nnunet_limited.datasets.raw import Case, RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import preprocessed_folder
from nnunet_limited.host.images import (
    count_hidden,
    grid_of,
    read_label,
    read_label_on,
    read_scan,
    scan_digest,
    write_label,
)
from nnunet_limited.host.planning import cropped_to_nonzero, fingerprint_extractor, normalization_problem
from nnunet_limited.splits import Split
from nnunet_limited.util.files import content_hash, read_json, write_json
from nnunet_limited.util.parallel import run_all
from nnunet_limited.util.provenance import DigestCache, array_digest, read_record, stamp

Geometry = Literal["all", "labeled"]
CHECKS = 5  # raised when inspections check more, so that those of earlier versions are made again
SMALLEST_SPACING = 1e-8  # mm; electron microscopy has 1e-6
VOXELS_PER_CASE = 1e6  # that intensities are measured at; nnU-Net's number for a hundred cases


class Inspection(NamedTuple):
    """The geometry of one case; ``problem`` states why its label cannot be used, None if it can.

    ``warning`` states where the label's grid is a little off; ``annotated`` is False if every voxel is ignored.
    ``voxels`` is a hash of the image's values, whatever its file and header.
    ``digests`` are those of the image, and of the label and the truth if they were read and can be used.
    ``hidden`` counts the voxels of the image that are no numbers and are read as 0.
    """

    spacing: list[float]
    shape_after_crop: list[int]
    relative_size: float
    problem: str | None
    warning: str | None = None
    annotated: bool = True
    voxels: str = ""
    digests: dict[str, str] = {}  # noqa: RUF012 (nothing changes it)
    hidden: int = 0


def inspect_case(case: Case, use_label: bool, reader_class: Any, description: DatasetDescription) -> Inspection:
    """Read one case, check it, and return its geometry.

    The label is opened only if ``use_label``; ``problem`` states why it cannot be used. Any fault of the image is an
    error.
    """
    reader = reader_class()
    image, properties = read_scan(reader, case.images, description.num_channels)
    check_image(case, image, properties, description)
    problem, warnings, annotated = None, [], True
    digests = {"image": scan_digest(image, properties)}
    if use_label:
        grid = grid_of(image.shape[1:], properties)
        try:
            if case.label is None:
                raise LimitedError(f"case {case.identifier} has no label file; add it")
            for kind, file in case.labels:
                label, warning = read_label_on(reader, file, grid, description.label_values, description.grid_of_image)
                digests[kind] = array_digest(label)
                warnings += [warning] if warning else []
                if file == case.label:
                    annotated = bool((label != description.ignore).any()) or case.boxes is not None
        except LimitedError as error:
            problem = str(error)
    cropped = cropped_to_nonzero(image)
    return Inspection(
        [float(s) for s in properties["spacing"]],
        [int(s) for s in cropped.shape[1:]],
        float(np.prod(cropped.shape[1:]) / np.prod(image.shape[1:])),
        problem,
        warnings[0] if warnings else None,
        annotated,
        array_digest(image),
        digests,
        count_hidden(reader, case.images),
    )


def check_image(case: Case, image: np.ndarray, properties: dict[str, Any], description: DatasetDescription) -> None:
    """Refuse an image (c, *spatial) with values or spacings that nnU-Net cannot use."""
    named = f"the image of case {case.identifier} ({', '.join(map(str, case.images))})"
    if not np.isfinite(image).all():
        raise LimitedError(
            f"{named} has {int((~np.isfinite(image)).sum())} voxels that are NaN or infinite; replace them"
        )
    if not image.any():
        raise LimitedError(f"{named} is 0 everywhere; remove the case")
    spacing = properties["spacing"]
    if any(isinstance(step, str) for step in spacing):
        raise LimitedError(f"{named} has the spacing {list(spacing)!r} in its .json file; write numbers without quotes")
    spacing = [float(step) for step in spacing]
    if not all(SMALLEST_SPACING < step < np.inf for step in spacing):
        steps = ", ".join(f"{step:g}" for step in spacing)
        raise LimitedError(f"{named} has the spacing [{steps}] (z, y, x) in mm; correct its header")
    reason = normalization_problem(image, description.channel_names)
    if reason:
        raise LimitedError(f"{named} cannot be normalized: {reason}")


def inspect_dataset(
    dataset: RawDataset, split: Split, processes: int, cache_file: Path, digests: DigestCache
) -> tuple[dict[str, Inspection], dict[str, str]]:
    """Inspect every case the split uses; return geometries, and why the labels of validation cases are unusable.

    A training case with an unusable label is an error. A case that is only validated on is not: its fold is refused
    when it is trained, and all other folds are as if that label did not exist. What was found of files that have not
    changed since is taken from ``cache_file``. What is read is entered into ``digests``.
    """
    cases = sorted({*split.labeled, *split.validation, *split.unlabeled})
    missing = [case for case in cases if case not in dataset.cases]
    if missing:
        raise LimitedError(
            f"split {split.name!r} names case {missing[0]!r}, which {dataset.folder} does not have; make a split for "
            "this dataset with 'nnunet-limited split'"
        )
    labeled = {*split.labeled, *split.validation}
    reader, description = dataset.reader(), dataset.description
    keys = {case: inspection_key(dataset.cases[case], case in labeled, reader, description) for case in cases}
    cache = read_record(cache_file) or {}
    new = [case for case in cases if keys[case] not in cache]
    tasks = [(dataset.cases[case], case in labeled, reader, description) for case in new]
    if tasks:
        inspected = run_all(inspect_case, tasks, processes, "Inspecting images")
        cache.update({keys[case]: list(result) for case, result in zip(new, inspected, strict=True)})
    found = {case: Inspection(*cache[keys[case]]) for case in cases}
    for case, inspection in found.items():
        files = {"image": dataset.cases[case].images, **{kind: [file] for kind, file in dataset.cases[case].labels}}
        for kind, digest in inspection.digests.items():
            digests.add(files[kind], digest)
    for case in split.labeled:
        if found[case].problem:
            raise LimitedError(f"{found[case].problem} (case {case} is labelled in split {split.name!r})")
    for number, fold in enumerate(split.folds):
        if not any(found[case].annotated for case in fold.train):
            raise LimitedError(
                f"{dataset.cases[fold.train[0]].label} has no annotated voxel, nor has any other label that fold "
                f"{number} of split {split.name!r} trains on: all are {description.ignore} (ignore); annotate some"
            )
    refuse_copies(dataset, split, found)
    if new:
        write_json(cache_file, cache)
    return found, {case: str(found[case].problem) for case in split.validation if found[case].problem}


def refuse_copies(dataset: RawDataset, split: Split, found: Mapping[str, Inspection]) -> None:
    """Refuse an unlabelled case whose image has the voxels of a labelled one, under whatever format and header."""
    labeled = {*split.labeled, *split.validation}
    known = {found[case].voxels: case for case in labeled}
    for case in sorted({*split.unlabeled} - labeled):  # a case may be labelled in one fold and unlabelled in another
        other = known.get(found[case].voxels)
        if other is not None and dataset.cases[case].label is None:
            raise LimitedError(
                f"image {dataset.cases[case].images[0]} of the unlabelled case {case} has the voxels of the labelled "
                f"case {other}; remove one of these cases from {dataset.folder}, and make the split again"
            )


def inspection_key(case: Case, use_label: bool, reader: Any, description: DatasetDescription) -> str:
    """Identify what an inspection depends on: the files as they are now, and what dataset.json says of them."""
    files = [*case.images, *(file for _, file in case.labels if use_label)]
    stats = [[str(file), *(stamp(file) if file.exists() else ())] for file in files]
    said = [description.label_values, description.ignore, description.channel_names, description.grid_of_image]
    return content_hash([CHECKS, case.identifier, stats, use_label, reader.__name__, said, case.boxes is not None])


def visible_labels(dataset: RawDataset, visible: Sequence[str], processes: int) -> dict[str, Path]:
    """Return the label files to measure foreground intensities by; call it inside :func:`scratch_preprocessed`.

    Ignored voxels are none of the foreground, unless nothing else could be, as where boxes are all there is.
    """
    own = {case: Path(str(dataset.cases[case].label)) for case in visible}
    ignore = dataset.description.ignore
    if ignore is None:
        return own
    folder = preprocessed_folder(dataset.name) / "labels"
    folder.mkdir(parents=True)
    ending = dataset.description.file_ending
    tasks = [(dataset.cases[case], dataset.reader(), ignore, folder / f"{case}{ending}") for case in visible]
    found = run_all(without_ignored, tasks, processes, "Reading annotations")
    if not any(foreground for _, foreground in found):
        return own
    return {case: label for case, (label, _) in zip(visible, found, strict=True)}


def without_ignored(case: Case, reader_class: Any, ignore: int, target: Path) -> tuple[Path, bool]:
    """Return a label file of ``case`` with background where it is ignored, and whether it has foreground.

    nnU-Net would count the ignore label as foreground. The file is ``target``, or the case's own
    file if that ignores nothing.
    """
    assert case.label is not None
    reader = reader_class()
    label, properties = read_label(reader, case.label)
    ignored = label == ignore
    foreground = bool(((label > 0) & ~ignored).any())
    if not ignored.any():
        return Path(str(case.label)), foreground
    write_label(reader, np.where(ignored, 0, label).astype(np.int16), target, properties)
    return target, foreground


def extract_fingerprint(
    dataset: RawDataset, split: Split, inspections: dict[str, Inspection], geometry: Geometry, processes: int
) -> dict[str, Any]:
    """Return the fingerprint of the split in nnU-Net's format; call it inside :func:`scratch_preprocessed`.

    Intensities come from the labels that no fold hides (if there are none, from all that some fold may see), geometry
    from all images or, on request, from those labelled cases alone.
    """
    visible = split.never_hidden or split.labeled
    extractor = fingerprint_extractor(dataset.name, processes)
    # nnU-Net draws 10e7 voxels in all. From few cases it would draw the same ones again and again, for a minute.
    extractor.num_foreground_voxels_for_intensitystats = min(
        extractor.num_foreground_voxels_for_intensitystats, VOXELS_PER_CASE * len(visible)
    )
    labels = visible_labels(dataset, visible, processes)
    extractor.dataset = {
        case: {"images": [str(i) for i in dataset.cases[case].images], "label": str(label)}
        for case, label in labels.items()
    }
    no_foreground = LimitedError(f"the labels of {', '.join(visible[:3])}… have no foreground; label some foreground")
    try:
        extractor.run(overwrite_existing=True)
    except IndexError as error:
        raise no_foreground from error
    file = preprocessed_folder(dataset.name) / "dataset_fingerprint.json"
    fingerprint: dict[str, Any] = read_json(file, "fingerprint", "run the command again")
    means = fingerprint["foreground_intensity_properties_per_channel"].values()
    if not all(np.isfinite(channel["mean"]) for channel in means):
        raise no_foreground
    if geometry == "all":
        everything = [inspections[case] for case in sorted(inspections)]
        fingerprint["spacings"] = [i.spacing for i in everything]
        fingerprint["shapes_after_crop"] = [i.shape_after_crop for i in everything]
        fingerprint["median_relative_size_after_cropping"] = float(np.median([i.relative_size for i in everything]))
    return fingerprint
