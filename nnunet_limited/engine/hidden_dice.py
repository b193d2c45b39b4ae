"""Dice of the network on unlabelled cases whose hidden labels exist; it is logged and never used."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nnunet_limited.host.loaders import nnUNetDataLoader
from nnunet_limited.util.random_state import RandomStream

CASES, BATCHES = 4, 4


class HiddenLabelDice:
    """The Dice of the predicting network on crops of a few unlabelled cases whose label is preprocessed.

    The only reader of a hidden label, on request (``log_pseudo_label_dice``). It has a random stream of its own, the
    same for every epoch, so that epochs compare.
    """

    def __init__(self, loader: nnUNetDataLoader) -> None:
        """Measure on crops of ``loader``."""
        self.loader = loader

    @classmethod
    def of(cls, trainer: Any, validation: Any) -> HiddenLabelDice | None:
        """Return the measure for a trainer's unlabelled cases; None where no hidden label exists.

        ``validation`` is the trainer's validation loader, whose transforms are used.
        """
        folder = trainer.run.labeled_folder
        cases = [c for c in sorted(trainer.run.fold.unlabeled) if (folder / f"{c}.pkl").is_file()][:CASES]
        if not cases:
            trainer.print_to_log_file("log_pseudo_label_dice: no unlabelled case has a hidden label; nothing to log.")
            return None
        patch_size = trainer.configuration_manager.patch_size
        loader = nnUNetDataLoader(
            trainer.dataset_class(str(folder), cases),
            trainer.batch_size,
            patch_size,
            patch_size,
            trainer.label_manager,
            oversample_foreground_percent=trainer.config.oversample_foreground_percent,
            transforms=validation.transforms,
        )
        return cls(loader)

    def dice(self, trainer: Any) -> float:
        """Return the mean foreground Dice over a few batches."""
        training = trainer.network.training
        trainer.network.eval()
        totals = []
        with RandomStream((0,)).active(), torch.no_grad():
            for _ in range(BATCHES):
                totals.append(trainer.predictor_validation_step(next(self.loader)))
        trainer.network.train(training)
        tp, fp, fn = (np.sum([t[key] for t in totals], axis=0) for key in ("tp_hard", "fp_hard", "fn_hard"))
        with np.errstate(invalid="ignore"):
            return float(np.nanmean(2 * tp / (2 * tp + fp + fn))) if (tp + fp + fn).any() else float("nan")
