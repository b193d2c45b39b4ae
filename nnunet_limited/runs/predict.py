"""Predict preprocessed cases with trained folds."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from nnunet_limited.engine import checkpoint
from nnunet_limited.engine.inputs import check_same, record_inputs
from nnunet_limited.engine.run import FINAL, RECORD, describe_run
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.plans import label_space
from nnunet_limited.host.predict import load_predictor, to_scan
from nnunet_limited.metrics.agreement import class_counts, mean_agreement
from nnunet_limited.runs.request import TrainRequest
from nnunet_limited.splits import Split
from nnunet_limited.util.files import file_hash, read_object

NOISE = 0.1  # standard deviations of a normalised image


def trained(model: TrainRequest, split: Split, folds: Sequence[int | str]) -> dict[str, str]:
    """Return the hash of the final checkpoint of each fold, by its name.

    Raises LimitedError for a fold that is not trained, or on another split or other plans than there are now.
    """
    checkpoints, plans = {}, model.planned.hash
    for fold in folds:
        base = model.results / f"fold_{fold}"
        if not (base / FINAL).is_file():
            raise LimitedError(f"{base / FINAL} does not exist; train fold {fold} of {model.trainer} first")
        if not (base / RECORD).is_file():
            raise LimitedError(
                f"{base} has no {RECORD}, so the labels that the model was trained on are unknown; use a trainer of "
                "this package, e.g. LimitedSupervisedTrainer"
            )
        record = read_object(base / RECORD, "run record", "train the fold again")
        for key, now in (("split_hash", split.hash), ("plans_hash", plans)):
            if record.get(key) != now:
                what = key.removesuffix("_hash")
                raise LimitedError(
                    f"{base} was trained on another {what} ({key} {record.get(key)}, now {now}); train it again"
                )
        run = describe_run(model.trainer, model.planned, model.configuration, fold, {})
        record_inputs(run, uses_unlabeled=False, remedy="run 'nnunet-limited plan'")
        for record in (run.begun, checkpoint.record_of(base / FINAL)):
            check_same(base, record, run.record)
        checkpoints[str(fold)] = file_hash(base / FINAL)
    return checkpoints


class Prediction(NamedTuple):
    """Label and confidence in [0, 1] (*spatial) on the grid of a scan, and how far several predictions agree.

    ``agreement`` (foreground classes or regions,) is the mean Dice of single predictions with their mean, NaN for a
    class that is in none of them.
    """

    label: np.ndarray
    confidence: np.ndarray
    agreement: np.ndarray


class Predictor:
    """nnU-Net's predictor of the folds of a trained model, an ensemble if there are several."""

    def __init__(self, results: Path, folds: Sequence[int | str], device: str) -> None:
        """Load the final checkpoints of ``folds``."""
        with contextlib.redirect_stdout(io.StringIO()):
            self.host = load_predictor(results, folds, device, FINAL)
        self.labels = label_space(self.host.label_manager)
        self.members = self.host.list_of_parameters
        self.reader = self.host.plans_manager.image_reader_writer_class()

    def predict(self, image: np.ndarray, properties: dict[str, Any]) -> Prediction:
        """Return the prediction for a preprocessed case, ``image`` (c, *spatial).

        The agreement is that of the members with their mean. For a single model it is that of the passes over mirrored
        images, which nnU-Net makes anyway, or of passes with noise where mirroring is not allowed.
        """
        self.host.compared, self.host.counts = (self.labels, {}) if len(self.members) == 1 else (None, {})
        logits = list(self._logits(image))
        self.host.compared = None
        label, probability = self._to_scan(torch.stack(logits).mean(0), properties)
        if len(logits) > 1:
            members = [self._counts(self._to_scan(each, properties)[0], label) for each in logits]
        else:
            members = list(self.host.counts.values()) or self._noisy_counts(image)
        return Prediction(label, self.labels.case_confidence(probability), mean_agreement(members))

    def _counts(self, one: np.ndarray, other: np.ndarray) -> torch.Tensor:
        maps = [torch.from_numpy(self.labels.foreground_maps(label)) for label in (one, other)]
        return class_counts(maps[0], maps[1], len(self.labels.foreground_values))

    def _noisy_counts(self, image: np.ndarray) -> list[torch.Tensor]:
        """Return the voxels of each class in predictions of the image with noise and in that without."""
        clean, *noisy = (self.labels.foreground_numbers(p[None].cpu()) for p in self.probabilities(image))
        return [class_counts(one, clean, len(self.labels.foreground_values)) for one in noisy]

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
        return self._to_scan(self.labels.to_logits(probabilities), properties)[0]

    def mean(self, image: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return probabilities (c, *spatial) on the image's own grid, and those of the members if there are several."""
        logits = [each.float() for each in self._logits(image)]
        nonlinear = self.host.label_manager.apply_inference_nonlin
        members = [nonlinear(each).numpy() for each in logits] if len(logits) > 1 else []
        return nonlinear(torch.stack(logits).mean(0)).numpy(), members

    def _logits(self, image: np.ndarray) -> Iterator[torch.Tensor]:
        for parameters in self.members:
            self.host.list_of_parameters = [parameters]
            yield self.host.predict_logits_from_preprocessed_data(torch.from_numpy(image)).cpu()

    def _to_scan(self, logits: torch.Tensor, properties: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        host = self.host
        return to_scan(logits, properties, host.plans_manager, host.configuration_manager, host.label_manager)
