"""The cases that a query may choose from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_limited.datasets.derived import ignore_of
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.splits import Fold
from nnunet_limited.splits.make import grouped


@dataclass(frozen=True)
class CasePool:
    """The cases to choose from: ``unlabeled`` ones and ``sparse`` ones, which are annotated in part.

    ``annotated`` cases are training cases of some fold and hidden in none.
    """

    unlabeled: tuple[str, ...]
    sparse: tuple[str, ...]
    annotated: tuple[str, ...]

    @property
    def candidates(self) -> list[str]:
        """Return the cases to choose from."""
        return sorted({*self.unlabeled, *self.sparse})

    @classmethod
    def of(
        cls,
        raw: RawDataset,
        folds: Sequence[Fold],
        label: Callable[[str], np.ndarray],
        group_by: str | None = None,
    ) -> CasePool:
        """Return the cases that are unlabelled in every one of ``folds``; without folds, those without a label.

        Cases of a patient (``group_by``) in the validation cases of a fold are left out. ``label`` reads the label
        image of a case. Raises LimitedError if no case is left.
        """
        if not folds:
            if not raw.without_label:
                raise LimitedError(
                    f"every image of {raw.folder} has a label, so no case is left to query; hide some with "
                    "'nnunet-limited split' and give --split"
                )
            return cls(tuple(raw.without_label), (), tuple(raw.labeled))
        unlabeled = set.intersection(*(set(fold.unlabeled) for fold in folds))
        train = set.intersection(*(set(fold.train) for fold in folds))
        unit = {case: name for name, cases in grouped(list(raw.cases), group_by).items() for case in cases}
        validated = {unit[case] for fold in folds for case in fold.val}
        unlabeled, train = ({c for c in cases if unit[c] not in validated} for cases in (unlabeled, train))
        partial = sorted(train) if raw.description.ignore is not None else []
        sparse = tuple(case for case in partial if (label(case) == ignore_of(raw)).any())
        if not unlabeled and not sparse:
            raise LimitedError(
                "no case is left to query: the chosen folds train or validate on all of them; give one fold with -f, "
                "or make a split of the deployment protocol"
            )
        hidden = {case for fold in folds for case in fold.unlabeled}
        annotated = {case for fold in folds for case in fold.train} - hidden
        return cls(tuple(sorted(unlabeled)), sparse, tuple(sorted(annotated)))
