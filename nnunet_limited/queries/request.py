"""What is asked of a query, and which cases it may ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.datasets.derived import RECORD, ignore_of
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.queries.windows import Granularity
from nnunet_limited.runs.request import TrainRequest
from nnunet_limited.splits import Fold
from nnunet_limited.splits.make import grouped
from nnunet_limited.util.files import read_object


@dataclass(frozen=True)
class QueryRequest:
    """What ``nnunet-limited query`` is asked for.

    Without a ``model`` there is a cold start; ``split`` then says what is annotated already, if anything is. ``items``
    or ``minutes`` are the budget; ``seconds`` is what an outline takes; ``overlap`` the share of a window that may be
    annotated already, by default nothing of a patch, and not all of others; ``rounds`` how many rounds the loop is to
    have, ``number`` which of them this is, from 1. ``oracle`` is a folder of the hidden labels, for simulations: then
    foreground-aware random knows the foreground, and nothing is written for people.
    """

    dataset: str
    out: Path
    strategy: str = "clasp_pe"
    items: int | None = None
    minutes: float | None = None
    granularity: Granularity = Granularity()  # noqa: RUF009, it is frozen
    seed: int = 0
    model: TrainRequest | None = None
    folds: tuple[int, ...] = ()
    split: str | None = None
    features: Path | None = None
    number: int = 1
    rounds: int = 5
    overlap: float | None = None
    seconds: float = 79.0
    oracle: Path | None = None

    @property
    def most_annotated(self) -> float:
        """Return the largest share of a window that may be annotated already."""
        if self.overlap is not None:
            return self.overlap
        return 0.0 if self.granularity.kind == "patch" else 1 - 1e-9


@dataclass(frozen=True)
class CasePool:
    """Which cases a query may ask for: ``open`` ones have no label, ``sparse`` ones a label in part.

    ``known`` cases are annotated, learnt from in some fold and hidden in none.
    """

    open: tuple[str, ...]
    sparse: tuple[str, ...]
    known: tuple[str, ...]

    @property
    def pool(self) -> list[str]:
        """Return what may be asked for."""
        return sorted({*self.open, *self.sparse})

    @classmethod
    def of(
        cls,
        raw: RawDataset,
        folds: Sequence[Fold],
        label: Callable[[str], np.ndarray],
        group_by: str | None = None,
    ) -> CasePool:
        """Return the cases that every one of ``folds`` leaves open; without folds, those that have no label.

        What is of a patient (``group_by``) whom a fold validates on is left out. ``label`` reads a case's label image.
        Raises LimitedError if nothing is left to ask for.
        """
        if not folds:
            if not raw.without_label:
                raise LimitedError(
                    f"every image of {raw.folder} has a label, so nothing is left to ask for; hide some with "
                    "'nnunet-limited split' and give --split"
                )
            return cls(tuple(raw.without_label), (), tuple(raw.labeled))
        unlabeled = set.intersection(*(set(fold.unlabeled) for fold in folds))
        train = set.intersection(*(set(fold.train) for fold in folds))
        unit = {case: name for name, cases in grouped(list(raw.cases), group_by).items() for case in cases}
        validated = {unit[case] for fold in folds for case in fold.val}
        unlabeled, train = ({c for c in cases if unit[c] not in validated} for cases in (unlabeled, train))
        candidates = sorted(train) if raw.description.ignore is not None else []
        sparse = tuple(case for case in candidates if (label(case) == ignore_of(raw)).any())
        if not unlabeled and not sparse:
            raise LimitedError(
                "no case is left to ask for that the chosen folds neither learn from nor validate on; give one fold "
                "with -f, or make a split of the deployment protocol"
            )
        hidden = {case for fold in folds for case in fold.unlabeled}
        known = {case for fold in folds for case in fold.train} - hidden
        return cls(tuple(sorted(unlabeled)), sparse, tuple(sorted(known)))


def round_of(dataset: str) -> int:
    """Return the number of the round that a dataset is asked for: one more than that of which it was made."""
    return int(_record(RawDataset.load(dataset)).get("round", 0)) + 1


def _record(raw: RawDataset) -> dict[str, Any]:
    """Return what is recorded of the round that a dataset was made of, if it was made of one."""
    file = raw.folder / RECORD
    return read_object(file, "record of annotations", "make the dataset again") if file.is_file() else {}


def dice_so_far(raw: RawDataset, model: TrainRequest | None, folds: Sequence[int]) -> list[float]:
    """Return the mean validation Dice of the models that asked in the rounds so far and of ``model``.

    The validation cases are the same in all of them. A round whose model was of another trainer or configuration, or
    was not validated, and those before it do not count: one curve would not go through them.
    """
    found = []
    for fold in folds if model is not None else ():
        file = model.results / f"fold_{fold}" / "validation" / "summary.json" if model is not None else Path()
        if file.is_file():
            found.append(float(read_object(file, "validation", "validate again")["foreground_mean"]["Dice"]))
    if model is None or not found or not np.isfinite(found).all():
        return []
    before = _record(raw)
    asked = before.get("model") or {}
    alike = (asked.get("trainer"), asked.get("configuration")) == (model.trainer, model.configuration)
    return [*(float(one) for one in before.get("dice", []) if alike), float(np.mean(found))]
