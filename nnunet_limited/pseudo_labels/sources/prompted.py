"""A promptable model as a source: it outlines what the sources before it predict, or boxes that people have drawn."""

import hashlib

import numpy as np

from nnunet_limited.errors import LimitedError
from nnunet_limited.prompters.outlining import outline
from nnunet_limited.prompters.prompter import Prompter
from nnunet_limited.prompters.prompts import PromptSettings
from nnunet_limited.pseudo_labels.sources.base import Scan, SourceContext, SourcePrediction, without_small_components


class PromptedSource:
    """A promptable model with prompts from the guess of the sources before it; it predicts nothing without a guess."""

    def __init__(self, prompter: Prompter, context: SourceContext) -> None:
        """Take the model, the kind of labels and the settings of its prompts."""
        self.prompter, self.labels, self.settings = prompter, context.labels, context.settings
        self.about = prompter.about

    def __call__(self, scan: Scan, guess: np.ndarray | None) -> SourcePrediction:
        """Return the model's outlines of the guess; the same for the same scan."""
        if guess is None:
            raise LimitedError("a promptable model needs a source before it for its prompts; give e.g. student,atlas")
        shown = without_small_components(guess, self.labels, self.settings.clean)
        return self._outline(scan, shown[self.labels.first_foreground :], self.settings)

    def within(self, scan: Scan, boxes: np.ndarray) -> SourcePrediction:
        """Return the model's outlines inside boxes, masks (foreground classes, *spatial), however small they are."""
        every_box = {"kind": "box", "min_area": 1, "max_objects": boxes[0].size}
        return self._outline(scan, boxes, self.settings.model_copy(update=every_box))

    def _outline(self, scan: Scan, foreground: np.ndarray, settings: PromptSettings) -> SourcePrediction:
        rng = np.random.default_rng(list(hashlib.sha256(scan.case.encode()).digest()[:8]))
        made = outline(self.prompter, scan.image[settings.channel], foreground, scan.spacing, settings, rng)
        about = {"embeddings": made.embeddings, "prompts": made.prompts}
        unasked = None if self.labels.overlapping else ~np.isfinite(made.probability)
        return SourcePrediction(self.labels.with_background(made.probability), made.stability, about, unasked)
