"""Unlabelled cases, and one loader for the labelled and the unlabelled stream."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_limited.data.exploration import Exploration
from nnunet_limited.data.sightings import Sightings, origins
from nnunet_limited.data.views import Views
from nnunet_limited.host.cases import PreprocessedCases, read_locations
from nnunet_limited.host.loaders import nnUNetDataLoader
from nnunet_limited.util.random_state import RandomStream


class UnlabeledDataset(PreprocessedCases):
    """Cases preprocessed without a label; their stored segmentation is the mask of the image.

    ``further_channels`` of the data follow those of the image; they are moved like it and are not part of the views.
    """

    further_channels = 0
    sightings: Sightings | None = None

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Return data, mask, None and properties, with the class locations that nnU-Net's loader needs."""
        data, mask, previous, properties = super().load_case(identifier)
        return data, mask, previous, {**properties, "class_locations": {}}

    def foreground(self, identifier: str) -> dict[Any, Any]:
        """Return voxels (n, 4) of each class that may be in a case, in the format of nnU-Net's class locations."""
        return {} if self.sightings is None else self.sightings.foreground(identifier)


class PseudoLabeledDataset(UnlabeledDataset):
    """Unlabelled cases with stored pseudo-labels, whose voxels of each class lie beside them."""

    def __init__(self, folder: str, cases: list[str], labels: Path) -> None:
        """Take the folder of the images, the cases, and the folder of their labels."""
        super().__init__(folder, cases, str(labels))
        self.labels = labels

    def foreground(self, identifier: str) -> dict[Any, Any]:
        """Return voxels (n, 4) of each class of the stored label."""
        return read_locations(self.labels, identifier)


class UnlabeledLoader(nnUNetDataLoader):
    """Crops of unlabelled cases: as many around foreground as nnU-Net's labelled ones, the others all over the case.

    Where no foreground is known, all are. Where sightings of foreground are recorded, a batch has the key ``origin``
    (see :mod:`~nnunet_limited.data.sightings`).
    """

    transforms: Views

    def __init__(
        self, *args: Any, exploration: Exploration | None, oversample_foreground_percent: float, **kwargs: Any
    ) -> None:
        """Take nnU-Net's arguments and the places to look at; without them crops are independent and uniform."""
        oversample = 0.0 if exploration is None else oversample_foreground_percent
        super().__init__(*args, oversample_foreground_percent=oversample, **kwargs)
        self.has_ignore = False  # no annotated voxels to centre crops on
        self.exploration = exploration
        self.drawn: list[str] = []
        self.corners: list[list[int]] = []

    @property
    def sightings(self) -> Sightings | None:
        """Where networks have seen foreground, if it is recorded."""
        found: Sightings | None = self._data.sightings
        return found

    @property
    def buffers(self) -> dict[str, torch.Tensor]:
        """Return what decides where crops are drawn, in shared memory."""
        made = {} if self.exploration is None else {"explored": self.exploration.counts}
        return made if self.sightings is None else {**made, "sightings": self.sightings.points}

    def get_indices(self) -> Any:
        """Return the cases of the next batch, as nnU-Net does."""
        self.drawn, self.corners = list(super().get_indices()), []
        return self.drawn

    def get_bbox(self, data_shape: Any, force_fg: bool, class_locations: Any, *args: Any, **kwargs: Any) -> Any:
        """Return nnU-Net's box around a voxel of the foreground, or around the next place to look at."""
        if self.exploration is not None:
            case = self.drawn[len(self.corners)]
            class_locations = self._data.foreground(case) if force_fg else {}
            if not any(len(voxels) for voxels in class_locations.values()):
                centre = self.exploration.next_centre(case, data_shape, self.final_patch_size)
                force_fg, class_locations = True, {"unexplored": np.array([[0, *centre]])}
        lower, upper = super().get_bbox(data_shape, force_fg, class_locations, *args, **kwargs)
        self.corners.append(lower)
        return lower, upper

    def generate_train_batch(self) -> dict[str, Any]:
        """Return a batch as nnU-Net does, and where its crops come from."""
        self.transforms.maps.clear()
        batch: dict[str, Any] = super().generate_train_batch()
        if self.sightings is not None:
            cases = [self.sightings.index[case] for case in self.drawn]
            batch["origin"] = origins(cases, self.corners, self.transforms.maps)
        return batch


class TwoStreamLoader:
    """Batches of the labelled loader with a batch of the unlabelled one under the key ``unlabeled``.

    One augmenter serves both, so there are no more worker processes than in a supervised run. The unlabelled stream has
    its own randomness: the labelled batches are those of a supervised run. While ``active`` is off, which worker
    processes see too, the unlabelled stream rests and the key is missing.
    """

    def __init__(self, labeled: nnUNetDataLoader, unlabeled: UnlabeledLoader, seed: tuple[int, ...] | None) -> None:
        """Combine two infinite loaders; ``seed`` is that of the unlabelled stream, None for fresh entropy."""
        self.labeled = labeled
        self.unlabeled = unlabeled
        self.seed = seed
        self.stream = RandomStream(seed)
        self.active = torch.ones(1, dtype=torch.bool).share_memory_()

    def __iter__(self) -> TwoStreamLoader:
        return self

    def __next__(self) -> dict[str, Any]:
        batch: dict[str, Any] = next(self.labeled)
        if self.active:
            with self.stream.active():
                batch["unlabeled"] = next(self.unlabeled)
        return batch

    def set_thread_id(self, thread_id: int) -> None:
        """Give each worker process its own unlabelled stream; called by nnU-Net's augmenter in the worker."""
        self.labeled.set_thread_id(thread_id)
        self.unlabeled.set_thread_id(thread_id)
        self.stream = RandomStream(None if self.seed is None else (*self.seed, thread_id))
