"""Unlabelled cases, and one loader for the labelled and the unlabelled stream."""

from __future__ import annotations

from typing import Any

from nnunet_limited.host.cases import PreprocessedCases
from nnunet_limited.host.loaders import nnUNetDataLoader
from nnunet_limited.util.random_state import RandomStream


class UnlabeledDataset(PreprocessedCases):
    """Cases preprocessed without a label; their stored segmentation is the mask of the image.

    ``further_channels`` of the data follow those of the image; they are moved like it and are not part of the views.
    """

    further_channels = 0

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Return data, mask, None and properties, with the class locations that nnU-Net's loader needs."""
        data, mask, previous, properties = super().load_case(identifier)
        return data, mask, previous, {**properties, "class_locations": {}}


class UnlabeledLoader(nnUNetDataLoader):
    """Random crops of unlabelled cases."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take nnU-Net's arguments."""
        super().__init__(*args, oversample_foreground_percent=0.0, **kwargs)
        self.has_ignore = False  # no annotated voxels to centre crops on


class TwoStreamLoader:
    """Batches of the labelled loader with a batch of the unlabelled one under the key ``unlabeled``.

    One augmenter serves both, so there are no more worker processes than in a supervised run. The unlabelled stream has
    its own randomness: the labelled batches are those of a supervised run.
    """

    def __init__(self, labeled: nnUNetDataLoader, unlabeled: nnUNetDataLoader, seed: tuple[int, ...] | None) -> None:
        """Combine two infinite loaders; ``seed`` is that of the unlabelled stream, None for fresh entropy."""
        self.labeled = labeled
        self.unlabeled = unlabeled
        self.seed = seed
        self.stream = RandomStream(seed)

    def __iter__(self) -> TwoStreamLoader:
        return self

    def __next__(self) -> dict[str, Any]:
        batch: dict[str, Any] = next(self.labeled)
        with self.stream.active():
            batch["unlabeled"] = next(self.unlabeled)
        return batch

    def set_thread_id(self, thread_id: int) -> None:
        """Give each worker process its own unlabelled stream; called by nnU-Net's augmenter in the worker."""
        self.labeled.set_thread_id(thread_id)
        self.unlabeled.set_thread_id(thread_id)
        self.stream = RandomStream(None if self.seed is None else (*self.seed, thread_id))
