"""Pseudo-labels on disk: a label and a confidence image for each unlabelled case of a fold, on the grid of the scan.

They lie in ``nnUNet_preprocessed/DATASET/pseudo_labels/SPLIT/NAME/fold_K/``, or in ``ensemble/`` for all folds, as
``CASE.ENDING``, ``CASE_confidence.ENDING`` (percent, 0 to 100) and ``pseudo_labels.json``, which records their origin
and the confidence and stability of each case.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.annotations.grid import Words, check_grid, check_values
from nnunet_limited.errors import LimitedError, StaleError
from nnunet_limited.host.cases import LOCATIONS, save_locations, save_on_grid
from nnunet_limited.host.images import grid_of, read_label, write_label
from nnunet_limited.host.plans import managers
from nnunet_limited.losses.label_space import LabelSpace
from nnunet_limited.planners.case_record import CaseRecord, contents_of
from nnunet_limited.splits import Split, split_name
from nnunet_limited.util.files import content_hash, file_hash, read_object, write_json
from nnunet_limited.util.locks import one_at_a_time
from nnunet_limited.util.names import check_name
from nnunet_limited.util.parallel import default_processes, run_all
from nnunet_limited.util.provenance import is_made_from, write_sources

RECORD = "pseudo_labels.json"
REPLACED = "replaced"  # the folder of sets that were moved aside
MAKE = "make them with 'nnunet-limited pseudo-label'"


def set_folder(preprocessed: Path, split: Split, name: str) -> Path:
    """Return the folder of the pseudo-labels ``name`` of all folds of a split."""
    return preprocessed / "pseudo_labels" / split.name / split_name(name)


@dataclass(frozen=True)
class PseudoLabels:
    """The pseudo-labels in one folder: their ``origin``, and a record of each case that is done.

    ``cases[case]`` holds ``confidence``, the mean in percent over the foreground, None without any, and ``stability``,
    a Dice in [0, 1] or, in sets of earlier versions, None if there was nothing to compare with; ``image`` is the digest
    of the image, where it is known.
    """

    folder: Path
    file_ending: str
    origin: dict[str, Any]
    cases: dict[str, dict[str, Any]]

    @property
    def hash(self) -> str:
        """Identify where the pseudo-labels come from."""
        return content_hash(self.origin)

    def hash_of(self, cases: Sequence[str]) -> str:
        """Identify the pseudo-labels of ``cases`` by their content."""
        return content_hash([self.origin, {case: [file_hash(file) for file in self.files(case)] for case in cases}])

    def files(self, case: str) -> tuple[Path, Path]:
        """Return the files of label and confidence."""
        return self.folder / f"{case}{self.file_ending}", self.folder / f"{case}_confidence{self.file_ending}"

    def read(self, case: str, reader: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return label and confidence in percent (*spatial) with nnU-Net's ``reader``.

        Raises LimitedError for a damaged file, and for a label on another grid than its confidence.
        """
        (label, mine), (confidence, theirs) = (read_label(reader, file, "pseudo-label") for file in self.files(case))
        words = Words("pseudo-label", "its confidence", "copy the position of the confidence to it")
        check_grid(self.files(case)[0], grid_of(label.shape, mine), grid_of(confidence.shape, theirs), words=words)
        return label, confidence

    def add(
        self, case: str, label: np.ndarray, confidence: np.ndarray, properties: Any, about: dict[str, Any], writer: Any
    ) -> PseudoLabels:
        """Write one case with nnU-Net's ``writer``; confidence in [0, 1]. Return the set with this case."""
        percent = np.round(100 * confidence).astype(np.uint8)
        for file, array in zip(self.files(case), (label, percent), strict=True):
            write_label(writer, array, file, properties)
        done = replace(self, cases=dict(sorted({**self.cases, case: about}.items())))
        write_json(self.folder / RECORD, {**self.origin, "file_ending": self.file_ending, "cases": done.cases})
        return done

    def of_other_images(self, folder: Path) -> list[str]:
        """Return the cases whose images are others now than when they were labelled; ``folder`` has them preprocessed.

        What an earlier version did not record is not compared.
        """
        now = {case: CaseRecord.read(folder, case) for case, about in self.cases.items() if about.get("image")}
        return [case for case, one in now.items() if one and one.digests.get("image") != self.cases[case]["image"]]

    def most_stable(self, fraction: float, by_confidence: bool = True) -> list[str]:
        """Return the ``fraction`` of the cases with the highest stability times confidence of the foreground.

        A case without foreground has no confidence and comes last. Without ``by_confidence`` the stability alone
        counts, as in earlier versions. All cases are returned if the stability of one is unknown.
        """
        cases = sorted(self.cases)
        if any(self.cases[case]["stability"] is None for case in cases):
            return cases

        def rank(case: str) -> tuple[bool, float]:
            about = self.cases[case]
            confidence = about.get("confidence", 100.0) if by_confidence else 100.0
            return confidence is None, -about["stability"] * (confidence or 0.0)

        return sorted(sorted(cases, key=rank)[: max(1, round(fraction * len(cases)))])

    def refuse_empty(self) -> None:
        """Refuse pseudo-labels of sources without any foreground: a model would learn that there is none."""
        coverage = [about["foreground_coverage"] for about in self.cases.values() if "foreground_coverage" in about]
        if coverage and not any(coverage):
            raise LimitedError(
                f"{self.folder} has no foreground in any of {len(coverage)} cases: no source predicts any, or they "
                "disagree; look at its pictures, train the first model longer or give other --sources, and delete it"
            )


def open_set(folder: Path, file_ending: str, origin: dict[str, Any]) -> PseudoLabels:
    """Return the pseudo-labels of ``origin`` in ``folder``, new or incomplete.

    Raises StaleError for those of the same model before it was trained again, LimitedError for those of another origin.
    What an earlier version did not record is not compared.
    """
    file = folder / RECORD
    if not file.is_file():
        return PseudoLabels(folder, file_ending, origin, {})
    found = _load(folder)
    different = [key for key, value in origin.items() if found.origin.get(key, value) != value]
    for key in different:
        raise (StaleError if different == ["checkpoints"] else LimitedError)(
            f"{folder} holds pseudo-labels with {key}={found.origin.get(key)}, not {origin[key]}; choose another "
            "--name or delete that folder"
        )
    present = {case: about for case, about in found.cases.items() if all(f.is_file() for f in found.files(case))}
    return replace(found, cases=present)


def load_for_fold(preprocessed: Path, split: Split, name: str, fold: int | str) -> PseudoLabels:
    """Return the complete pseudo-labels ``name`` for a fold; its own or, if there are none, those of the ensemble.

    Raises LimitedError if there are none, some are missing, they were made for another split, or by models that were
    trained on validation cases of the fold.
    """
    base = set_folder(preprocessed, split, name)
    folder = next((f for f in (base / f"fold_{fold}", base / "ensemble") if (f / RECORD).is_file()), None)
    if folder is None:
        raise LimitedError(f"{base} has no pseudo-labels for fold {fold}; {MAKE} --name {name}")
    found = _load(folder)
    if found.origin.get("split_hash") != split.hash:
        raise LimitedError(
            f"{folder} was made for another split {split.name!r} (hash {found.origin.get('split_hash')}, now "
            f"{split.hash}); delete it and {MAKE} --name {name}"
        )
    found.refuse_empty()
    members, mine = found.origin.get("folds", []), split.fold(fold)
    # Labels that the fold trains on itself are no leak.
    leaked = sorted({case for k in members for case in split.fold(k).train} & set(mine.val) - set(mine.train))
    if leaked and fold != "all":
        raise LimitedError(
            f"{folder} was made by models trained on the label of {leaked[0]!r}, which fold {fold} validates on; "
            "train fold all, or make pseudo-labels without --ensemble"
        )
    for case in mine.unlabeled:
        if case not in found.cases or not all(file.is_file() for file in found.files(case)):
            raise LimitedError(
                f"{folder} has no pseudo-label of {case!r}; complete them with 'nnunet-limited pseudo-label'"
            )
    return found


def _load(folder: Path) -> PseudoLabels:
    content = read_object(folder / RECORD, "description of pseudo-labels", MAKE)
    cases, ending = content.pop("cases", {}), content.pop("file_ending", "")
    if not isinstance(cases, dict) or not all(isinstance(about, dict) for about in cases.values()):
        raise LimitedError(f"{folder / RECORD}: 'cases' is {cases!r:.40}, not a record of each case; {MAKE}")
    for case in (*cases, "case"):
        check_name(f"{case}{ending}", f"{folder / RECORD}: file of a case")
    return PseudoLabels(folder, ending, content, cases)


def resample_to_network(
    labels: PseudoLabels,
    cases: list[str],
    unlabeled_folder: Path,
    plans: dict[str, Any],
    configuration: str,
    threshold: float,
    space: LabelSpace,
) -> Path:
    """Return the folder of the labels of ``cases`` on the grid of the preprocessed images in ``unlabeled_folder``.

    Voxels with a confidence below ``threshold`` in [0, 1] become the unused value of ``space``. Beside each label lie
    voxels of its classes or regions. Those made from the same files, which people may correct, and for the same image
    are used again. One process prepares them; others wait for it.
    """
    place = content_hash([os.path.relpath(labels.folder, unlabeled_folder.parent), labels.origin])
    folder = unlabeled_folder.with_name(f"{unlabeled_folder.name}_pseudo_{place}_{round(100 * threshold)}")
    sources = {
        case: {"label": [file_hash(file) for file in labels.files(case)], "case": contents_of(unlabeled_folder, case)}
        for case in cases
    }

    def is_made(case: str, ending: str) -> bool:
        return is_made_from(folder / f"{case}{ending}", sources[case], labels.files(case))

    def missing() -> list[str]:
        return [case for case in cases if not (is_made(case, ".b2nd") and is_made(case, LOCATIONS))]

    if missing():
        with one_at_a_time(folder):
            resample = partial(_resample, labels, unlabeled_folder, folder, plans, configuration, threshold, space)
            tasks = [(case, sources[case]) for case in missing()]
            run_all(resample, tasks, default_processes(), "Preparing pseudo-labels")
    return folder


def _resample(
    labels: PseudoLabels,
    unlabeled_folder: Path,
    folder: Path,
    plans: dict[str, Any],
    configuration: str,
    threshold: float,
    space: LabelSpace,
    case: str,
    sources: dict[str, Any],
) -> None:
    manager, chosen = managers(plans, configuration)
    label, confidence = labels.read(case, manager.image_reader_writer_class())
    allowed = {0, space.unused_value, *(value for values in space.values for value in values)}
    label = check_values(labels.files(case)[0], label, allowed, "pseudo-label")
    label = np.where(confidence >= np.round(100 * threshold), label, space.unused_value)
    resampled = save_on_grid(label[None], case, unlabeled_folder, folder, manager, chosen)
    save_locations(resampled, space.foreground_values, folder / f"{case}{LOCATIONS}")
    for ending in (".b2nd", LOCATIONS):
        write_sources(folder / f"{case}{ending}", sources)
