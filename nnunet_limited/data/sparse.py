"""Cases of which only some voxels are annotated."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from nnunet_limited.data.loaders import UnlabeledDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.cases import PreprocessedCases
from nnunet_limited.host.transforms import SegOnlyTransform

BEYOND, OUTSIDE = -1, -2  # what padding and rotation add; what the host left out of an image as being empty


class Recoded:
    """A stored array that is read with other values; what is not sliced is not read."""

    def __init__(self, array: Any, recode: Callable[[np.ndarray], np.ndarray]) -> None:
        """Read ``array`` through ``recode``."""
        self.array, self.recode = array, recode
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, item: Any) -> np.ndarray:
        return self.recode(np.asarray(self.array[item]))


class BordersUnknown(SegOnlyTransform):
    """Ignore what lies beyond the border of a sparsely labelled image.

    The host makes background of it, which is right only where the rest of the image is annotated too. It is told of
    each case by :class:`SparseDataset`, whose loader augments a case as soon as it is loaded.
    """

    def __init__(self, ignore: int) -> None:
        """Take the value of the ignore label."""
        super().__init__()
        self.ignore = ignore
        self.sparse = False

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params: Any) -> torch.Tensor:
        if self.sparse:
            segmentation[segmentation == BEYOND] = self.ignore
            segmentation[segmentation == OUTSIDE] = 0
        return segmentation


class AnnotatedCases(PreprocessedCases):
    """Preprocessed cases that know which of them are annotated in part only."""

    def __init__(self, folder: str, cases: Iterable[str], ignore: int) -> None:
        """Take the folder, the cases to use, and the value of the ignore label."""
        super().__init__(folder, sorted(cases))
        self.ignore = ignore
        self._sparse: dict[str, bool] = {}

    def is_sparse(self, case: str) -> bool:
        """Tell whether some voxel of ``case`` is ignored; its label is read once."""
        if case not in self._sparse:
            self._sparse[case] = bool((super().load_case(case)[1][:] == self.ignore).any())
        return self._sparse[case]


class SparseDataset(AnnotatedCases):
    """Labelled cases for the labelled stream."""

    def __init__(self, folder: str, cases: Iterable[str], borders: BordersUnknown) -> None:
        """Take the folder, its cases, and the transform to tell which of them are sparse."""
        super().__init__(folder, cases, borders.ignore)
        self.borders = borders

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Return what the host does; of a sparse case, what is empty is told apart from what padding will add."""
        data, label, previous, properties = super().load_case(identifier)
        self.borders.sparse = self.is_sparse(identifier)
        if self.borders.sparse:
            label = Recoded(label, lambda values: np.where(values == BEYOND, OUTSIDE, values))
        return data, label, previous, properties


class UnannotatedDataset(UnlabeledDataset):
    """Unlabelled cases, and sparsely labelled ones: of those, the mask says 0 without annotation and 1 with it."""

    def __init__(
        self, folder: str, unlabeled: Iterable[str], labeled_folder: str, labeled: Iterable[str], ignore: int
    ) -> None:
        """Take the unlabelled cases and the labelled ones, of which the sparse ones are used.

        Raises LimitedError if there is no voxel without annotation.
        """
        self.annotated = AnnotatedCases(labeled_folder, labeled, ignore)
        self.sparse = {case for case in self.annotated.identifiers if self.annotated.is_sparse(case)}
        super().__init__(folder, sorted({*unlabeled, *self.sparse}))
        if not self.identifiers:
            raise LimitedError(
                f"every voxel of the labelled cases in {labeled_folder} is annotated and no case is unlabelled, so "
                "there is nothing to learn from without label; use LimitedSparseTrainer"
            )

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Return data, mask, None and properties, as of an unlabelled case."""
        if identifier not in self.sparse:
            return super().load_case(identifier)
        data, label, previous, properties = self.annotated.load_case(identifier)
        ignore = self.annotated.ignore
        mask = Recoded(label, lambda v: np.where(v == BEYOND, BEYOND, v != ignore).astype(np.int8))
        return data, mask, previous, {**properties, "class_locations": {}}


class BoxDataset(UnlabeledDataset):
    """Cases annotated by boxes, with the boxes in place of a stored label; the mask is that of the image."""

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Return data, mask, boxes and properties."""
        data, label, boxes, properties = super().load_case(identifier)
        return data, Recoded(label, lambda v: np.where(v == BEYOND, BEYOND, 0).astype(np.int8)), boxes, properties
