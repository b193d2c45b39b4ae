"""One round of queries, from a checked request to its cases and files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_limited.annotations.grid import DENSE, LABEL, Words
from nnunet_limited.datasets.derived import ignore_of
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.host import images
from nnunet_limited.host.folders import preprocessed_folder
from nnunet_limited.queries.features import describe_scan, load_features
from nnunet_limited.queries.record import ModelRecord, RoundRecord, begin_round, dice_so_far, next_round
from nnunet_limited.queries.request import QueryRequest
from nnunet_limited.queries.strategies.base import Strategy
from nnunet_limited.queries.strategies.registry import find_strategy
from nnunet_limited.runs.predict import trained
from nnunet_limited.splits import Fold, Split, load_split
from nnunet_limited.splits.groups import grouped
from nnunet_limited.util.files import file_hash

SCORES = ".scores"


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
        cls, raw: RawDataset, folds: Sequence[Fold], label: Callable[[str], np.ndarray], group_by: str | None = None
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
        unit = {case: name for name, cases in grouped(list(raw.cases), group_by).items() for case in cases}
        validated = {unit[case] for fold in folds for case in fold.val}
        unlabeled, train = (
            sorted(case for case in set.intersection(*map(set, kind)) if unit[case] not in validated)
            for kind in ([fold.unlabeled for fold in folds], [fold.train for fold in folds])
        )
        partial = train if raw.description.ignore is not None else []
        sparse = tuple(case for case in partial if (label(case) == ignore_of(raw)).any())
        if not unlabeled and not sparse:
            raise LimitedError(
                "no case is left to query: the chosen folds train or validate on all of them; give one fold with -f, "
                "or make a split of the deployment protocol"
            )
        hidden = {case for fold in folds for case in fold.unlabeled}
        annotated = {case for fold in folds for case in fold.train} - hidden
        return cls(tuple(unlabeled), sparse, tuple(sorted(annotated)))


@dataclass(frozen=True)
class QueryRound:
    """One round of queries: the request, the cases to choose from, and all that the result depends on."""

    request: QueryRequest
    strategy: Strategy
    raw: RawDataset
    cases: CasePool
    record: RoundRecord

    @property
    def class_names(self) -> dict[int, str]:
        """Return the name of each foreground value, in ascending order."""
        description = self.raw.description
        names = {int(value): name for name, value in description.labels.items() if not isinstance(value, list)}
        return {value: names.get(value, str(value)) for value in sorted(description.foreground_values)}

    def label(self, case: str) -> np.ndarray:
        """Return the label image (*spatial) of an annotated case."""
        return label_of_scan(self.raw, case, self.raw.cases[case].label, LABEL)

    def scores_file(self, case: str) -> Path:
        """Return the file of the scores of a case."""
        return self.request.out / SCORES / f"{case}.npz"


def read_label(raw: RawDataset, file: Path | None) -> np.ndarray:
    """Return a label image (*spatial); raise LimitedError if it cannot be read."""
    assert file is not None
    return images.read_label(raw.reader()(), file)[0]


def label_of_scan(raw: RawDataset, case: str, file: Path | None, words: Words = DENSE) -> np.ndarray:
    """Return a label image (*spatial); raise LimitedError if ``file`` does not belong to the image of the case."""
    assert file is not None
    reader, description = raw.reader()(), raw.description
    image, properties = images.read_scan(reader, raw.cases[case].images[:1])
    grid = images.grid_of(image.shape[1:], properties)
    values = {*description.label_values, ignore_of(raw)}
    return images.read_label_on(reader, file, grid, values, description.grid_of_image, words)[0]


def open_round(request: QueryRequest) -> QueryRound:
    """Check a request and begin its round, or continue an interrupted one; refuse a folder of another round."""
    made = check_round(request)
    begin_round(request.out, made.record)
    return made


def check_round(request: QueryRequest) -> QueryRound:
    """Check a request and return its round; raise LimitedError for options, data or a model that do not fit."""
    request.check()
    strategy = find_strategy(request.strategy_name)
    raw = RawDataset.load(request.dataset)
    split = None
    if request.model is not None:
        split = request.model.planned.split
    elif request.split is not None:
        split = load_split(preprocessed_folder(raw.name), request.split)
    folds = list(request.folds or range(len(split.folds))) if split else []
    chosen = [split.fold(fold) for fold in folds] if split else []
    group_by = split.info.get("group_by") if split else None
    cases = CasePool.of(raw, chosen, lambda case: read_label(raw, raw.cases[case].label), group_by)
    if request.model is None:
        _check_cold_start(request, strategy)
    record = _record(request, raw, split, folds)
    first = raw.cases[cases.candidates[0]]
    shape, spacing, _ = describe_scan(first, raw.reader())
    request.granularity.window_grid(shape, spacing, first.identifier)
    if request.features is not None:
        load_features(request.features, sorted({*cases.candidates, *cases.annotated}))
    return QueryRound(request, strategy, raw, cases, record)


def _check_cold_start(request: QueryRequest, strategy: Strategy) -> None:
    if strategy.needs_model or (strategy.needs_foreground and request.oracle is None):
        raise LimitedError(
            f"--strategy {strategy.name} needs a trained model; give its -tr, -p and configuration, or start with "
            "--strategy typiclust, core_set or random"
        )
    if strategy.features is not None and request.what != "case":
        raise LimitedError(
            f"--strategy {strategy.name} without a model compares whole cases; give --what case or another strategy"
        )


def _record(request: QueryRequest, raw: RawDataset, split: Split | None, folds: list[int]) -> RoundRecord:
    """Return all that the queries depend on; refuse a model that is not trained or was trained on another split."""
    model, features = request.model, request.features
    model_record = None
    if model is not None:
        model.planned.configuration(model.configuration)
        assert split is not None
        names = model.model_dump(include={"trainer", "plans", "configuration"})
        model_record = ModelRecord(**names, checkpoints=trained(model, split, folds))
    return RoundRecord(
        **request.model_dump(include={"rounds", "seed", "items", "minutes", "seconds"}),
        dataset=raw.name,
        cases=tuple(raw.cases),
        round=next_round(raw),
        strategy=request.strategy_name,
        granularity=request.granularity,
        overlap=request.max_annotated,
        oracle=request.oracle is not None,
        split=split.name if split else None,
        split_hash=split.hash if split else None,
        folds=tuple(folds),
        features=file_hash(features) if features and features.is_file() else None,
        model=model_record,
        dice=dice_so_far(raw, model, folds),
    )
