"""Pseudo-labels from a trained model: its own prediction for a fold, or that of the ensemble of all folds."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_limited.data.loaders import UnlabeledDataset
from nnunet_limited.data.pseudo_label_store import PseudoLabels, begin, find, set_folder
from nnunet_limited.engine.run import (
    RECORD,
    find_run,
    load_run_split,
    planned_configuration,
    plans_hash,
    preprocess_unlabeled,
)
from nnunet_limited.errors import LimitedError
from nnunet_limited.planners.preprocessing import data_folders, require
from nnunet_limited.runs.launch import TrainRequest
from nnunet_limited.splits import Split
from nnunet_limited.util.files import file_hash, one_at_a_time, read_object

CHECKPOINT = "checkpoint_final.pth"
NOISE = 0.1  # standard deviations of a normalised image


@dataclass(frozen=True)
class Said:
    """A label on the grid of a scan, its confidence and its stability in [0, 1], and what else is known of it."""

    label: np.ndarray
    confidence: np.ndarray
    stability: float | None = None
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSource:
    """The folds of one trainer on one split, and what to call the pseudo-labels they make.

    With ``ensemble`` all folds predict together. Otherwise each predicts for itself, because the other folds have
    learnt from the labels that it is validated on.
    """

    model: TrainRequest
    name: str
    previous: str | None = None
    ensemble: bool = False

    def check_sources(self, folds: Sequence[int | str]) -> None:
        """Raise LimitedError for what is wrong whatever the models of ``folds`` are."""

    def told(self, labels: PseudoLabels) -> list[str]:
        """Return what there is to say of a set that has been made."""
        return []

    def check(self, folds: Sequence[int | str]) -> list[PseudoLabels]:
        """Return the sets to make, which may be begun; raise LimitedError for what cannot be made."""
        plans = self.model.load_plans()
        planned_configuration(plans, self.model.configuration)
        self.check_sources(folds)
        split = load_run_split(plans)
        if self.previous == self.name:
            raise LimitedError(f"--previous {self.previous} is the --name to make; give them different names")
        for fold in folds:
            split.fold(fold)
        if self.ensemble:
            _refuse_hidden_labels(split, folds)
            return [self._begin(split, "ensemble", folds)]
        return [self._begin(split, f"fold_{fold}", [fold]) for fold in folds]

    def _begin(self, split: Split, folder: str, members: Sequence[int | str]) -> PseudoLabels:
        preprocessed = self.model.folder
        checkpoints = self.checkpoints(split, members)
        if self.previous is not None:
            for fold in members:
                find(preprocessed, split, self.previous, "all" if self.ensemble else fold)
        origin = {
            "source": "model",
            "split": split.name,
            "split_hash": split.hash,
            "trainer": self.model.trainer,
            "plans": self.model.plans,
            "configuration": self.model.configuration,
            "folds": list(members),
            "checkpoints": checkpoints,
            "previous": self.previous,
            **self.further_origin(sorted({case for fold in members for case in split.fold(fold).train})),
        }
        file_ending = self.model.dataset_json()["file_ending"]
        return begin(set_folder(preprocessed, split, self.name) / folder, file_ending, origin)

    def checkpoints(self, split: Split, members: Sequence[int | str]) -> dict[str, str]:
        """Return the hash of each member's checkpoint, which must be there."""
        return trained(self.model, split, members)

    def further_origin(self, cases: Sequence[str]) -> dict[str, Any]:
        """Return what else says where the pseudo-labels come from, which may depend on the labelled ``cases``."""
        return {}

    def make(self, labels: PseudoLabels, device: str, track: Callable[[list[str]], Iterable[str]]) -> PseudoLabels:
        """Predict the cases of one set that are missing; ``track`` shows how far it is.

        A second process waits for the first and goes on with what that has made.
        """
        if self._missing(labels):
            with one_at_a_time(labels.folder):
                labels = self._make(begin(labels.folder, labels.file_ending, labels.origin), device, track)
        labels.refuse_empty()
        return labels

    def _missing(self, labels: PseudoLabels) -> list[str]:
        split = load_run_split(self.model.load_plans())
        return sorted({c for fold in labels.origin["folds"] for c in split.fold(fold).unlabeled} - set(labels.cases))

    def _make(self, labels: PseudoLabels, device: str, track: Callable[[list[str]], Iterable[str]]) -> PseudoLabels:
        plans = self.model.load_plans()
        split, folds, cases = load_run_split(plans), labels.origin["folds"], self._missing(labels)
        folder = data_folders(plans, self.model.configuration)[1]
        for fold in folds:  # plans of the host leave it to the first run to preprocess them
            run = find_run(self.model.trainer, plans, self.model.configuration, fold, {})
            preprocess_unlabeled(run, plans, self.model.configuration, lambda line: None)
        require(folder, cases, "unlabelled", "run 'nnunet-limited plan'")
        label_case = self.labeller(labels, split, plans, device)
        reader = PlansManager(plans).image_reader_writer_class()
        previous = None
        if self.previous is not None:
            previous = find(self.model.folder, split, self.previous, "all" if self.ensemble else folds[0])
        dataset = UnlabeledDataset(str(folder), cases)
        for case in track(cases):
            data, _, _, properties = dataset.load_case(case)
            said = label_case(case, np.asarray(data[:]), properties)
            about = {"confidence": _mean_confidence(said.label, said.confidence), "stability": said.stability}
            if previous is not None:
                about["stability"] = dice(said.label, previous.read(case, reader)[0])
            labels = labels.add(case, said.label, said.confidence, properties, about | said.about, reader)
        return labels

    def labeller(
        self, labels: PseudoLabels, split: Split, plans: dict[str, Any], device: str
    ) -> Callable[[str, np.ndarray, dict[str, Any]], Said]:
        """Return the function of a case, its preprocessed image and properties that labels it."""
        predictor = Predictor(self.model.results, labels.origin["folds"], device)

        def label_case(case: str, image: np.ndarray, properties: dict[str, Any]) -> Said:
            label, confidence, members = predictor.predict(image, properties)
            return Said(label, confidence, float(np.mean([dice(label, m) for m in members])) if members else None)

        return label_case


def trained(model: TrainRequest, split: Split, folds: Sequence[int | str]) -> dict[str, str]:
    """Return the hash of the final checkpoint of each fold, by its name.

    Raises LimitedError for a fold that is not trained, or on another split or other plans than there are now.
    """
    checkpoints, plans = {}, plans_hash(model.load_plans())
    for fold in folds:
        base = model.results / f"fold_{fold}"
        if not (base / CHECKPOINT).is_file():
            raise LimitedError(f"{base / CHECKPOINT} does not exist; train fold {fold} of {model.trainer} first")
        if not (base / RECORD).is_file():
            raise LimitedError(
                f"{base} has no {RECORD}, so it cannot be told which labels the model has seen; use a trainer of "
                "this package, e.g. LimitedSupervisedTrainer"
            )
        record = read_object(base / RECORD, "run record", "train the fold again")
        for key, now in (("split_hash", split.hash), ("plans_hash", plans)):
            if record.get(key) != now:
                what = key.removesuffix("_hash")
                raise LimitedError(
                    f"{base} was trained on another {what} ({key} {record.get(key)}, now {now}); train it again"
                )
        checkpoints[str(fold)] = file_hash(base / CHECKPOINT)
    return checkpoints


def _refuse_hidden_labels(split: Split, folds: Sequence[int | str]) -> None:
    """Refuse an ensemble in which one fold has learnt from a label that is hidden in another."""
    hidden = {case for fold in folds for case in split.fold(fold).unlabeled}
    seen = sorted({case for fold in folds for case in split.fold(fold).train} & hidden)
    if seen:
        raise LimitedError(
            f"--ensemble: case {seen[0]!r} of split {split.name!r} is labelled in one fold and unlabelled in another, "
            "so the ensemble has seen hidden labels; leave out --ensemble, and each fold uses its own model"
        )


class Predictor:
    """The host's predictor, which tells label, confidence and what each member of the ensemble says."""

    def __init__(self, results: Path, folds: Sequence[int | str], device: str) -> None:
        """Load the final checkpoints of ``folds``."""
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        with contextlib.redirect_stdout(io.StringIO()):
            self.host = nnUNetPredictor(
                device=torch.device(device), perform_everything_on_device=device == "cuda", allow_tqdm=False
            )
            self.host.initialize_from_trained_model_folder(str(results), list(folds), CHECKPOINT)
        self.members = self.host.list_of_parameters
        self.reader = self.host.plans_manager.image_reader_writer_class()

    def predict(self, image: np.ndarray, properties: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Return label, confidence in [0, 1] and the members' labels (none for a single one), on the scan's grid.

        ``image`` (c, *spatial) is a preprocessed case.
        """
        logits = []
        for parameters in self.members:
            self.host.list_of_parameters = [parameters]
            logits.append(self.host.predict_logits_from_preprocessed_data(torch.from_numpy(image)).cpu())
        label, probability = self._to_scan(torch.stack(logits).mean(0), properties)
        if self.host.label_manager.has_regions:
            confidence = np.maximum(probability, 1 - probability).min(0)
        else:
            confidence = probability.max(0)
        members = [self._to_scan(each, properties)[0] for each in logits] if len(logits) > 1 else []
        return label, confidence, members

    def probabilities(self, image: np.ndarray) -> Iterator[torch.Tensor]:
        """Yield what each member predicts for a preprocessed ``image``, as probabilities (c, *spatial) on its grid.

        A single fold becomes an ensemble by mirroring the image, or by noise where mirroring is not allowed.
        """
        flat = len(self.host.configuration_manager.patch_size) == 2
        axes = [int(axis) + (2 if flat else 1) for axis in self.host.allowed_mirroring_axes or ()]
        flips: list[tuple[int, ...]] = [()]
        noise = np.zeros(1)
        if len(self.members) == 1 and axes:
            flips = [some for n in range(len(axes) + 1) for some in combinations(axes, n)]
        elif len(self.members) == 1:
            noise = np.array([0.0] + 3 * [NOISE])
        random = torch.Generator().manual_seed(0)
        self.host.use_mirroring = False
        try:
            for parameters in self.members:
                self.host.list_of_parameters = [parameters]
                for flip, level in product(flips, noise):
                    shown = torch.from_numpy(image)
                    shown = shown + level * torch.randn(shown.shape, generator=random) if level else shown
                    logits = self.host.predict_logits_from_preprocessed_data(shown.flip(flip)).flip(flip)
                    yield self.host.label_manager.apply_inference_nonlin(logits.float())
        finally:
            self.host.use_mirroring = True

    def to_scan(self, probabilities: torch.Tensor, properties: dict[str, Any]) -> np.ndarray:
        """Return the label (*spatial), on the scan's grid, of what :meth:`probabilities` yields or its mean."""
        return self._to_scan(to_logits(probabilities, self.host.label_manager.has_regions), properties)[0]

    def mean(self, image: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return probabilities (c, *spatial) on the image's own grid, and those of the members if there are several."""
        logits = []
        for parameters in self.members:
            self.host.list_of_parameters = [parameters]
            logits.append(self.host.predict_logits_from_preprocessed_data(torch.from_numpy(image)).cpu().float())
        nonlinear = self.host.label_manager.apply_inference_nonlin
        members = [nonlinear(each).numpy() for each in logits] if len(logits) > 1 else []
        return nonlinear(torch.stack(logits).mean(0)).numpy(), members

    def _to_scan(self, logits: torch.Tensor, properties: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        host = self.host
        return to_scan(logits, properties, host.plans_manager, host.configuration_manager, host.label_manager)


def to_scan(
    logits: torch.Tensor, properties: dict[str, Any], plans: Any, configuration: Any, labels: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return label (*spatial) and probabilities (c, *spatial) on the scan's grid of logits on the network's grid."""
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

    label, probability = convert_predicted_logits_to_segmentation_with_correct_shape(
        logits, plans, configuration, labels, properties, return_probabilities=True
    )
    return label, probability


def to_logits(probabilities: torch.Tensor, regions: bool) -> torch.Tensor:
    """Return logits that the host makes these ``probabilities`` of."""
    return torch.logit(probabilities, 1e-6) if regions else probabilities.clamp_min(1e-6).log()


def _mean_confidence(label: np.ndarray, confidence: np.ndarray) -> float | None:
    """Return the mean confidence in percent over the foreground; None if there is none."""
    return round(100 * float(confidence[label > 0].mean()), 2) if (label > 0).any() else None


def dice(label: np.ndarray, other: np.ndarray) -> float:
    """Return the mean Dice of two label images over the classes that one of them has; 1 if both are empty."""
    classes = sorted({*np.unique(label), *np.unique(other)} - {0})
    if not classes:
        return 1.0
    return float(
        np.mean([2 * ((label == c) & (other == c)).sum() / ((label == c).sum() + (other == c).sum()) for c in classes])
    )
