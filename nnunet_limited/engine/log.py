"""nnU-Net's local logger with further terms."""

import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
from matplotlib.figure import Figure
from nnunetv2.training.logging.nnunet_logger import LocalLogger

from nnunet_limited.util.files import replacing

PICTURE = "progress_limited.png"


class LimitedLogger(LocalLogger):
    """Keeps ``keys`` beside nnU-Net's own and draws them to ``progress_limited.png``.

    The pseudo Dice of an epoch without foreground in its validation batches is NaN. In nnU-Net the moving average then
    stays NaN and ``checkpoint_best`` is never written again; here such an epoch does not change the average.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        """Register ``keys``; each must be logged once an epoch."""
        super().__init__()
        self.keys = keys
        for key in keys:
            self.my_fantastic_logging[key] = []

    def log(self, key: str, value: Any, epoch: int) -> None:
        """Log one value for one epoch."""
        if key == "ema_fg_dice" and math.isnan(value):
            before = self.my_fantastic_logging[key]
            value = before[-1] if before else 0.0
        super().log(key, value, epoch)

    def load_checkpoint(self, checkpoint: dict[str, list[Any]]) -> None:
        """Restore a checkpoint's log; keys that it does not have are NaN for past epochs."""
        super().load_checkpoint(checkpoint)
        epochs = len(self.my_fantastic_logging["train_losses"])
        for key in self.keys:
            self.my_fantastic_logging.setdefault(key, [math.nan] * epochs)

    def plot_progress_png(self, output_folder: str) -> None:
        """Draw nnU-Net's picture and, beside it, ``progress_limited.png``."""
        super().plot_progress_png(output_folder)
        if not self.keys:
            return
        figure = Figure(figsize=(8, 2.2 * len(self.keys)), dpi=80)
        for axes, key in zip(
            figure.subplots(len(self.keys), 1, sharex=True, squeeze=False)[:, 0], self.keys, strict=True
        ):
            axes.plot(self.my_fantastic_logging[key], marker=".")
            axes.set_ylabel(key.replace("_", " "))
        axes.set_xlabel("epoch")
        figure.subplots_adjust(left=0.12, right=0.98, top=0.98, bottom=0.06)
        with replacing(Path(output_folder) / PICTURE) as temporary:
            figure.savefig(temporary, format="png")
