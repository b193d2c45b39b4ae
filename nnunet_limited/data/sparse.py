"""Cases of which only some voxels are annotated."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from nnunet_limited.data.loaders import UnlabeledDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.cases import PreprocessedCases
from nnunet_limited.host.loaders import SegOnlyTransform

BEYOND, OUTSIDE = -1, -2  # what padding and rotation add; empty parts of an image, which nnU-Net leaves out
SPARSE = 1  # in the second channel of the segmentation of a case that is annotated in part


class LazyRecode:
    """A stored array that is read with other values; only slices that are asked for are read."""

    def __init__(self, array: Any, recode: Callable[[np.ndarray], np.ndarray]) -> None:
        """Read ``array`` through ``recode``."""
        self.array, self.recode = array, recode
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, item: Any) -> np.ndarray:
        return self.recode(np.asarray(self.array[item]))


class IgnoreBeyondBorder(SegOnlyTransform):
    """Ignore what lies beyond the border of a sparsely labelled image.

    nnU-Net makes background of it, which is right only where the rest of the image is annotated too. The channels of
    the segmentation are the label and the mark of :class:`SparseDataset`, which is dropped.
    """

    def __init__(self, ignore: int) -> None:
        """Take the value of the ignore label."""
        super().__init__()
        self.ignore = ignore

    def _apply_to_segmentation(self, segmentation: torch.Tensor, **params: Any) -> torch.Tensor:
        label, mark = segmentation.split([1, len(segmentation) - 1])
        if (mark == SPARSE).any():
            label[label == BEYOND] = self.ignore
            label[label == OUTSIDE] = 0
        return label


class AnnotatedCases(PreprocessedCases):
    """Preprocessed cases that know which of them are annotated in part only."""

    def __init__(self, folder: str, cases: Iterable[str], ignore: int) -> None:
        """Take the folder, the cases to use, and the value of the ignore label."""
        super().__init__(folder, sorted(cases))
        self.ignore = ignore
        self._sparse: dict[str, bool] = {}

    def is_sparse(self, case: str) -> bool:
        """Return whether some voxel of ``case`` is ignored; its label is read once."""
        if case not in self._sparse:
            self._sparse[case] = bool((super().load_case(case)[1][:] == self.ignore).any())
        return self._sparse[case]


class SparseDataset(AnnotatedCases):
    """Labelled cases for the labelled stream, with a mark of those that are annotated in part only.

    The mark takes the place of a previous stage's segmentation, so that nnU-Net crops, moves and stacks it like the
    label.
    """

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Return data, label, mark (*spatial) and properties; in sparse cases empty parts differ from padding."""
        data, label, _, properties = super().load_case(identifier)
        sparse = self.is_sparse(identifier)
        if sparse:
            label = LazyRecode(label, lambda values: np.where(values == BEYOND, OUTSIDE, values))
        mark = np.broadcast_to(np.int8(SPARSE if sparse else 0), data.shape[1:])
        return data, label, mark, properties


class UnannotatedDataset(UnlabeledDataset):
    """Unlabelled cases, and sparsely labelled ones, whose mask is 0 without annotation and 1 with it."""

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
                "no unlabelled voxels are left; use LimitedSparseTrainer"
            )

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Return data, mask, None and properties, as of an unlabelled case."""
        if identifier not in self.sparse:
            return super().load_case(identifier)
        data, label, previous, properties = self.annotated.load_case(identifier)
        ignore = self.annotated.ignore
        mask = LazyRecode(label, lambda v: np.where(v == BEYOND, BEYOND, v != ignore).astype(np.int8))
        return data, mask, previous, {**properties, "class_locations": {}}


class BoxDataset(UnlabeledDataset):
    """Cases annotated by boxes, with the boxes in place of a stored label; the mask is that of the image."""

    def load_case(self, identifier: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Return data, mask, boxes and properties."""
        data, label, boxes, properties = super().load_case(identifier)
        return data, LazyRecode(label, lambda v: np.where(v == BEYOND, BEYOND, 0).astype(np.int8)), boxes, properties
