"""A round of queries on disk: its record, and the files that go to the annotators and come back.

``request.json`` is written first and ``queries.json`` last; a folder with only the first one is a round that was
interrupted and can be continued.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from nnunet_limited.datasets.derived import RECORD as ANNOTATIONS
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.evaluation import mean_dice
from nnunet_limited.queries.windows import Granularity, Window
from nnunet_limited.report.tables import csv_text
from nnunet_limited.runs.request import TrainRequest
from nnunet_limited.util.files import read_object, replace_text, write_json
from nnunet_limited.util.names import check_name

RECORD, REQUEST, TABLE = "queries.json", "request.json", "queries.csv"
LABELS, IMAGES = "labels", "images"
MAKE = "make a round with 'nnunet-limited query'"


class ModelRecord(BaseModel):
    """The model of a round; ``checkpoints`` are the hashes of its final checkpoints by fold."""

    model_config = ConfigDict(frozen=True)

    trainer: str
    plans: str
    configuration: str
    checkpoints: dict[str, str]


class RoundRecord(BaseModel):
    """All that the queries of a round depend on; it begins ``request.json`` and ``queries.json``.

    ``round`` counts from 1 to ``rounds``; ``overlap`` is the largest fraction of a window that may already be
    annotated, ``seconds`` the time to outline one object on one slice. ``features`` is the hash of a file of features,
    ``oracle`` is True in a simulation. ``dice`` is the mean validation Dice of the rounds so far. ``cases`` are all of
    the dataset, None in rounds of earlier versions.
    """

    model_config = ConfigDict(frozen=True)

    dataset: str
    round: PositiveInt
    rounds: PositiveInt
    strategy: str
    seed: int
    items: int | None
    minutes: float | None
    granularity: Granularity
    overlap: float | None = None
    seconds: float = Field(ge=0, allow_inf_nan=False)
    oracle: bool = False
    split: str | None
    split_hash: str | None
    folds: tuple[NonNegativeInt, ...]
    features: str | None = None
    model: ModelRecord | None
    dice: tuple[float, ...]
    cases: tuple[str, ...] | None = None


class QueryRecord(BaseModel):
    """A query as ``queries.json`` has it; ``start`` and ``size`` of its window are in voxels (z, y, x)."""

    model_config = ConfigDict(strict=True)

    case: str
    start: list[NonNegativeInt]
    size: list[PositiveInt]
    score: float | None
    minutes: float | None
    why: str


class InitialLabel(BaseModel):
    """The hashes of the label ``file`` that annotators start from, and of its content in each window of the case."""

    model_config = ConfigDict(frozen=True)

    file: str
    windows: tuple[str, ...] = Field(validation_alias=AliasChoices("windows", "regions"), serialization_alias="regions")


@dataclass(frozen=True)
class Query:
    """A window to annotate, the utility it was chosen by, the estimated minutes, and the reason in words."""

    window: Window
    score: float | None
    minutes: float | None
    why: str

    def as_dict(self) -> dict[str, Any]:
        """Return the query for JSON."""
        return {**self.window._asdict(), "score": self.score, "minutes": self.minutes, "why": self.why}

    @classmethod
    def from_dict(cls, content: Any) -> Query:
        """Return the query that :meth:`as_dict` has written; raise pydantic's ValidationError for another content."""
        read = QueryRecord.model_validate(content)
        return cls(Window(read.case, tuple(read.start), tuple(read.size)), read.score, read.minutes, read.why)


@dataclass(frozen=True)
class Round:
    """The queries in ``folder``, and the label files by case that annotators start from."""

    folder: Path
    record: RoundRecord
    queries: tuple[Query, ...]
    initial_labels: dict[str, InitialLabel] = field(default_factory=dict)

    @property
    def cases(self) -> list[str]:
        """Return the cases with queries, in the order of their first one."""
        return list(dict.fromkeys(query.window.case for query in self.queries))

    def windows_of(self, case: str) -> list[Window]:
        """Return the windows to annotate in a case."""
        return [query.window for query in self.queries if query.window.case == case]

    def write(self) -> None:
        """Write the table and then the record."""
        rows = [query.as_dict() for query in self.queries]
        table = pd.DataFrame(rows, index=pd.RangeIndex(1, len(rows) + 1, name="number"))
        for key in ("start", "size"):
            table[key] = ["x".join(map(str, row[key])) for row in rows]
        replace_text(self.folder / TABLE, csv_text(table, index=True))
        labels = {case: label.model_dump(by_alias=True) for case, label in self.initial_labels.items()}
        write_json(self.folder / RECORD, {**self.record.model_dump(mode="json"), "prefilled": labels, "queries": rows})


def load_round(folder: Path) -> Round:
    """Read the round in ``folder``; raise LimitedError if there is none, or an incomplete one."""
    if (folder / REQUEST).is_file() and not (folder / RECORD).is_file():
        raise LimitedError(
            f"{folder} holds a query that was interrupted; run 'nnunet-limited query' again to finish it"
        )
    content = read_object(folder / RECORD, "queries", MAKE)
    try:
        queries = tuple(Query.from_dict(query) for query in content["queries"])
        labels = {case: InitialLabel.model_validate(label) for case, label in content["prefilled"].items()}
        if not queries:
            raise ValueError("it has no query")
        made = Round(folder, RoundRecord.model_validate(content), queries, labels)
        check_name(made.record.dataset, "dataset")
        for case in {*made.cases, *labels, *(made.record.cases or ())}:
            check_name(case, "case")
        for case in made.cases:
            if case not in labels:
                raise ValueError(f"case {case!r} has no entry in 'prefilled'")
            if len(labels[case].windows) != len(made.windows_of(case)):
                raise ValueError(f"case {case} has another number of windows in 'prefilled' than queries")
        return made
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else str(error)
        raise LimitedError(f"{folder / RECORD} has been changed ({what}); restore it, or {MAKE}") from error


def begin_round(folder: Path, record: RoundRecord) -> None:
    """Create the folder of a round, or take the one of the same ``record``, complete or not; refuse any other."""
    content = record.model_dump(mode="json")
    if (folder / RECORD).is_file():
        made = read_object(folder / RECORD, "queries", MAKE)
        if any(made.get(key) != value for key, value in content.items()):
            raise LimitedError(
                f"--out {folder} holds queries already; give another folder, or delete it to query again"
            )
        return
    if not (folder / REQUEST).is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise LimitedError(f"--out {folder} exists and holds no queries; give another folder")
        write_json(folder / REQUEST, content)
        return
    before = read_object(folder / REQUEST, "request", "delete its folder")
    for key, value in content.items():
        if before.get(key, value) != value:
            raise LimitedError(
                f"--out {folder} was started with {key}={before[key]!s:.80}, not {value!s:.80}; give another folder or "
                "delete that one"
            )


def window_hash(label: np.ndarray, window: Window) -> str:
    """Identify the values of a label image in a window."""
    return hashlib.sha256(np.ascontiguousarray(label[window.inside], np.int16).tobytes()).hexdigest()[:16]


# ---- earlier rounds --------------------------------------------------------------------------------------------------


class AnnotationRecord(BaseModel):
    """What the rounds before have left in ``annotations.json`` of a dataset; empty for datasets of other kinds.

    ``round`` is 0 before the first one, ``model`` the names of the model that chose the last queries.
    """

    round: NonNegativeInt = 0
    dice: tuple[float, ...] = ()
    model: dict[str, Any] | None = None


def annotations_of(raw: RawDataset) -> AnnotationRecord:
    """Return the record of the annotations that a dataset was made from, an empty one if there is none."""
    file = raw.folder / ANNOTATIONS
    remedy = "restore it, or make the dataset again"
    try:
        content = read_object(file, "record of annotations", remedy) if file.is_file() else {}
        return AnnotationRecord.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise LimitedError(
            f"{file}: {'.'.join(map(str, first['loc']))} is {first['input']!r:.60} ({first['msg'].lower()}); {remedy}"
        ) from error


def next_round(raw: RawDataset) -> int:
    """Return the number of the next round of a dataset: one more than that of the round it was made from."""
    return annotations_of(raw).round + 1


def dice_so_far(raw: RawDataset, model: TrainRequest | None, folds: Sequence[int]) -> tuple[float, ...]:
    """Return the mean validation Dice of the models of the rounds so far and of ``model``.

    The validation cases are the same in all of them. A round with another trainer or configuration, or without
    validation, and all before it do not count, because their Dice is not on the same curve.
    """
    if model is None:
        return ()
    files = [model.results / f"fold_{fold}" / "validation" / "summary.json" for fold in folds]
    summaries = [read_object(file, "validation", "validate again") for file in files if file.is_file()]
    found = [mean_dice(summary) for summary in summaries]
    if not found or not np.isfinite(found).all():
        return ()
    before = annotations_of(raw)
    earlier = before.model or {}
    same = (earlier.get("trainer"), earlier.get("configuration")) == (model.trainer, model.configuration)
    return (*(dice for dice in before.dice if same), float(np.mean(found)))
