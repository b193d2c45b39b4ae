"""Plans that are bound to a split: nnU-Net's planner, fed with what the split lets it see."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import nnunet_limited
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.cases import save_on_grid
from nnunet_limited.host.folders import preprocessed_folder
from nnunet_limited.host.images import label_digest, read_label
from nnunet_limited.host.planning import host_planner, limited_planner, scratch_preprocessed
from nnunet_limited.host.plans import managers
from nnunet_limited.planners.case_record import contents_of
from nnunet_limited.planners.fingerprint import Inspection, extract_fingerprint, inspect_dataset
from nnunet_limited.planners.preprocessing import (
    DATA_PREFIX,
    DIGESTS,
    box_folder,
    copy_ground_truth,
    data_folders,
    fingerprint_folder,
    preprocess,
    preprocessing_hash,
    refuse_trained_on,
)
from nnunet_limited.planners.readers import replacing_cases
from nnunet_limited.planners.request import PlanRequest
from nnunet_limited.planners.size import SETTINGS, fit_patch, shrink
from nnunet_limited.splits import Split, load_split
from nnunet_limited.util.files import read_object, write_json
from nnunet_limited.util.parallel import run_all
from nnunet_limited.util.provenance import digest_cache, is_made_from, write_sources

ODD_SPACING = 30.0  # times the median; scans of one kind differ less, and a wrong unit is a factor of 1,000
MOST_VOXELS = 1e6  # that one becomes by resampling
CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres")  # what nnU-Net's planners can plan, without the cascade


@dataclass(frozen=True)
class PlanResult:
    """Name and file of the plans, the preprocessed configurations, and warnings.

    ``again`` has a line for everything that was there, but was made again as what it was made from has changed.
    ``trainer`` is the one to begin with where there is no unlabelled case or labels are sparse, else None.
    """

    plans: str
    file: Path
    configurations: tuple[str, ...]
    warnings: tuple[str, ...]
    trainer: str | None
    again: tuple[str, ...]


def make_plans(request: PlanRequest) -> PlanResult:
    """Fingerprint, plan and preprocess one dataset for one split. Finished work is skipped."""
    dataset = RawDataset.load(request.dataset)
    preprocessed = preprocessed_folder(dataset.name)
    split = load_split(preprocessed, request.split)
    planner = host_planner(request.planner)
    check_configurations(request.configurations, CONFIGURATIONS)
    if request.patch and {2 if name == "2d" else 3 for name in request.configurations} != {len(request.patch)}:
        raise LimitedError(
            f"--patch {'x'.join(map(str, request.patch))} does not fit -c {' -c '.join(request.configurations)}; give "
            "two numbers and -c 2d, or three and -c 3d_fullres"
        )
    digests = digest_cache(preprocessed / DIGESTS)
    cache = preprocessed / "inspections.json"
    inspections, unusable = inspect_dataset(dataset, split, request.processes, cache, digests)

    with scratch_preprocessed(), contextlib.redirect_stdout(io.StringIO()):
        fingerprint = extract_fingerprint(dataset, split, inspections, request.geometry, request.processes)
        used = len(inspections) if request.geometry == "all" else len(split.never_hidden or split.labeled)
        plans = limited_planner(planner, used)(dataset.name).plan_experiment()
    warnings = [f"{why} (folds that validate on {case} cannot be trained)" for case, why in unusable.items()]
    warnings += [*off_grid(inspections), *hidden_numbers(inspections), *odd_spacings(inspections)]
    if not split.never_hidden:
        warnings.append("every labelled case is hidden in some fold, so intensities come from labels hidden there")
    available = tuple(name for name, c in plans["configurations"].items() if "previous_stage" not in c)
    check_configurations(request.configurations, available)
    configurations = request.configurations or available
    check_resampled(inspections, plans, configurations)
    bind(plans, dataset, split, request)
    name = plans["plans_name"]
    warnings += keep_settings(plans, preprocessed / f"{name}.json")

    with_label = sorted({*split.labeled, *split.validation} - set(unusable))
    for configuration in configurations:
        refuse_trained_on(plans, configuration, dataset, with_label, split.unlabeled)

    write_json(preprocessed / "dataset.json", dataset.dataset_json)
    write_json(fingerprint_folder(preprocessed, name) / "dataset_fingerprint.json", fingerprint)
    write_json(preprocessed / f"{name}.json", plans)
    validated = [dataset.cases[case] for case in split.validation if case not in unusable]
    reader, processes = dataset.reader(), request.processes
    again = copy_ground_truth(validated, preprocessed, dataset.description.file_ending, reader, digests)
    boxes = {case: file for case in split.labeled if (file := dataset.cases[case].boxes) is not None}
    drawn = {case: (file, label_digest(file, reader, digests)) for case, file in boxes.items()}
    digests.save()
    for configuration in configurations:
        again += preprocess(plans, configuration, dataset, with_label, split.unlabeled, processes)
        resample_boxes(drawn, data_folders(plans, configuration)[0], plans, configuration, processes)
    alone = None if split.unlabeled else "LimitedSupervisedTrainer"
    trainer = alone if dataset.description.ignore is None else "LimitedSparseTrainer"
    return PlanResult(name, preprocessed / f"{name}.json", configurations, tuple(warnings), trainer, tuple(again))


def off_grid(inspections: dict[str, Inspection]) -> list[str]:
    """Return one warning for all labels whose grids are a little off those of their images."""
    found = [one.warning for one in inspections.values() if one.warning]
    more = f" (and {len(found) - 1} more labels)" if len(found) > 1 else ""
    return [f"{found[0]}{more}"] if found else []


def hidden_numbers(inspections: dict[str, Inspection]) -> list[str]:
    """Return one warning for all images with voxels that are no numbers and that nnU-Net reads as 0."""
    found = {case: one.hidden for case, one in inspections.items() if one.hidden}
    if not found:
        return []
    case, count = next(iter(found.items()))
    more = f" (and those of {len(found) - 1} more cases)" if len(found) > 1 else ""
    voxels = "1 voxel that is" if count == 1 else f"{count} voxels that are"
    return [
        f"the image of case {case} has {voxels} NaN or infinite, which nnU-Net reads as 0{more}; replace such "
        "values if 0 is wrong there"
    ]


def odd_spacings(inspections: dict[str, Inspection]) -> list[str]:
    """Return one warning for all images whose spacing is far from that of the others, as in another unit."""
    sizes = {case: float(np.exp(np.mean(np.log(one.spacing)))) for case, one in inspections.items()}
    middle = float(np.median(list(sizes.values())))
    odd = {case: size / middle for case, size in sizes.items() if max(size / middle, middle / size) > ODD_SPACING}
    if not odd:
        return []
    case, factor = next(iter(odd.items()))
    steps = ", ".join(f"{step:.4g}" for step in inspections[case].spacing)
    more = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
    return [
        f"the image of case {case} has the spacing [{steps}] (z, y, x), about {factor:.2g} times that of the other "
        f"images{more}; check that all are in mm"
    ]


def check_resampled(inspections: dict[str, Inspection], plans: dict[str, Any], configurations: Sequence[str]) -> None:
    """Refuse an image that has no voxel left at the spacing of a configuration, or a million for each of its own."""
    for name in configurations:
        target = plans["configurations"][name]["spacing"]  # of the last axes, in the order of the network
        axes = plans["transpose_forward"][-len(target) :]
        for case, one in inspections.items():
            factors = [one.spacing[axis] / step for axis, step in zip(axes, target, strict=True)]
            made = [round(one.shape_after_crop[axis] * factor) for axis, factor in zip(axes, factors, strict=True)]
            if min(made) < 1 or np.prod(factors) > MOST_VOXELS:
                steps, others = (", ".join(f"{step:.4g}" for step in some) for some in (one.spacing, target))
                raise LimitedError(
                    f"the image of case {case} has the spacing [{steps}] (z, y, x), and so {made} voxels "
                    f"at the spacing [{others}] of {name}; correct its spacing (in mm), or remove the case"
                )


def check_configurations(wanted: Sequence[str], available: Sequence[str]) -> None:
    """Raise LimitedError for a configuration that is not ``available``."""
    for name in wanted:
        if name not in available:
            raise LimitedError(
                f"-c {name}: there are {', '.join(available)}; use one of them (cascades need predictions of every "
                "unlabelled case and are not supported)"
            )


def bind(plans: dict[str, Any], dataset: RawDataset, split: Split, request: PlanRequest) -> None:
    """Name the plans after the split, record what they depend on, and name the data by what shapes them."""
    tiny = request.size == "tiny"
    parts = [plans["plans_name"], split.name]
    parts += ["tiny"] if tiny else []
    parts += ["geolabeled"] if request.geometry == "labeled" else []
    parts += ["p" + "x".join(map(str, request.patch))] if request.patch else []
    plans["plans_name"] = "_".join(parts)
    plans["limited"] = {"version": nnunet_limited.__version__, "split": split.name, "split_hash": split.hash}
    settings = SETTINGS.copy() if tiny else {}
    plans["limited"] |= {"size": request.size, "geometry": request.geometry, "settings": settings}
    # Without the cascade: nnU-Net would predict for its next stage after every validation of 3d_lowres.
    kept = {name: c for name, c in plans["configurations"].items() if "previous_stage" not in c}
    plans["configurations"] = kept
    for name, configuration in kept.items():
        configuration.pop("next_stage", None)
        if tiny:
            shrink(configuration)
        if len(request.patch) == len(configuration["patch_size"]):
            fit_patch(configuration, request.patch)
        shaped_by = preprocessing_hash(plans, configuration, dataset.description.labels)
        configuration["data_identifier"] = f"{DATA_PREFIX}{shaped_by}_{name}"


def keep_settings(plans: dict[str, Any], file: Path) -> list[str]:
    """Leave the settings as they are in ``file``, plans of the same name and request; return a warning if they differ.

    The settings of a size may change from version to version; runs on the plans, and plans with other settings made
    from them, go by those that they began with.
    """
    if not file.is_file():
        return []
    mine, made = plans["limited"], read_object(file, "plans", "delete it").get("limited") or {}
    same = all(made.get(key) == value for key, value in mine.items() if key not in ("version", "settings"))
    if not same or made.get("settings") in (None, mine["settings"]):
        return []
    now, mine["settings"] = mine["settings"], made["settings"]
    others = [f"{key}={value}" for key, value in now.items() if (key, value) not in made["settings"].items()]
    others += [f"no {key}" for key in made["settings"] if key not in now]
    return [
        f"{file.name} keeps the settings that it was made with; new plans of this size have {', '.join(others)} "
        "instead (--set gives a run other settings)"
    ]


def resample_boxes(
    drawn: dict[str, tuple[Path, str]], folder: Path, plans: dict[str, Any], configuration: str, processes: int
) -> None:
    """Resample the images of boxes of cases preprocessed in ``folder`` to its grid, into a folder beside it.

    ``drawn`` has the file of each case and its digest.
    """
    made = box_folder(folder)
    tasks = []
    for case, (file, digest) in drawn.items():
        sources = {"boxes": digest, "case": contents_of(folder, case)}
        if not is_made_from(made / f"{case}.b2nd", sources, [file]):
            tasks.append((case, file, folder, plans, configuration, sources))
    there = [case for case, *_ in tasks if (made / f"{case}.b2nd").is_file()]
    with replacing_cases(made.parent, {made.name: there}):
        run_all(_resample_boxes, tasks, processes, "Preparing boxes")


def _resample_boxes(
    case: str, file: Path, folder: Path, plans: dict[str, Any], configuration: str, sources: dict[str, Any]
) -> None:
    manager, chosen = managers(plans, configuration)
    codes, _ = read_label(manager.image_reader_writer_class(), file, "image of boxes")
    save_on_grid(codes[None], case, folder, box_folder(folder), manager, chosen)
    write_sources(box_folder(folder) / f"{case}.b2nd", sources)
