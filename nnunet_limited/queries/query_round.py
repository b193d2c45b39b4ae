"""One round of queries, from a checked request to its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_limited.datasets.derived import ignore_of
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import preprocessed_folder
from nnunet_limited.queries import cold_start
from nnunet_limited.queries.case_pool import CasePool
from nnunet_limited.queries.record import ModelRecord, RoundRecord, begin_round, dice_so_far, next_round
from nnunet_limited.queries.request import QueryRequest
from nnunet_limited.queries.strategies.base import Strategy
from nnunet_limited.queries.strategies.registry import find_strategy
from nnunet_limited.runs.predict import trained
from nnunet_limited.splits import Split, load_split
from nnunet_limited.util.files import file_hash

SCORES = ".scores"


@dataclass(frozen=True)
class QueryRound:
    """One round of queries: the request, the cases to choose from, and all that the result depends on."""

    request: QueryRequest
    strategy: Strategy
    raw: RawDataset
    cases: CasePool
    record: RoundRecord

    @property
    def simulated(self) -> bool:
        """Whether an oracle answers in place of people."""
        return self.request.oracle is not None

    @property
    def values(self) -> list[int]:
        """Return the label values of the classes."""
        return sorted(self.raw.description.foreground_values)

    @property
    def class_names(self) -> dict[int, str]:
        """Return the name of each single label by its value."""
        labels = self.raw.description.labels
        names = {int(value): name for name, value in labels.items() if not isinstance(value, list)}
        return {value: names.get(value, str(value)) for value in self.values}

    def label(self, case: str) -> np.ndarray:
        """Return the label image (*spatial) of an annotated case."""
        return read_label(self.raw, self.raw.cases[case].label)

    def scores_file(self, case: str) -> Path:
        """Return the file of the scores of a case."""
        return self.request.out / SCORES / f"{case}.npz"

    def annotated_mask(self, case: str) -> np.ndarray | None:
        """Return where a case is annotated (*spatial); None if nowhere."""
        return self.label(case) != ignore_of(self.raw) if case in self.cases.annotated else None


def read_label(raw: RawDataset, file: Path | None) -> np.ndarray:
    """Return a label image (*spatial); raise LimitedError if it cannot be read."""
    try:
        return np.asarray(raw.reader()().read_seg(str(file))[0][0])
    except Exception as error:
        raise LimitedError(f"label {file} cannot be read ({error}); repair or restore it") from error


def open_round(request: QueryRequest) -> QueryRound:
    """Check a request and begin its round, or continue an interrupted one.

    Raises LimitedError for options, data or a model that do not fit together, and for a folder of another round.
    """
    request.check()
    strategy = find_strategy(request.strategy_name)
    raw = RawDataset.load(request.dataset)
    split = _split(request, raw)
    folds = list(request.folds or range(len(split.folds))) if split else []
    chosen = [split.fold(fold) for fold in folds] if split else []
    group_by = split.info.get("group_by") if split else None
    cases = CasePool.of(raw, chosen, lambda case: read_label(raw, raw.cases[case].label), group_by)
    if request.model is None:
        _check_cold_start(request, strategy)
    record = _record(request, raw, split, folds)
    first = raw.cases[cases.candidates[0]]
    shape, spacing, _ = cold_start.describe_scan(first, raw.reader())
    request.granularity.window_grid(shape, spacing, first.identifier)
    if request.features is not None:
        cold_start.load_features(request.features, sorted({*cases.candidates, *cases.annotated}))
    begin_round(request.out, record)
    return QueryRound(request, strategy, raw, cases, record)


def _split(request: QueryRequest, raw: RawDataset) -> Split | None:
    """Return the split that the model was trained on or, in a cold start, the one that was named."""
    if request.model is not None:
        return request.model.planned.split
    if request.split is None:
        return None
    return load_split(preprocessed_folder(raw.name), request.split)


def _check_cold_start(request: QueryRequest, strategy: Strategy) -> None:
    """Refuse what needs a model."""
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
        checkpoints = trained(model, split, folds)
        model_record = ModelRecord(
            trainer=model.trainer, plans=model.plans, configuration=model.configuration, checkpoints=checkpoints
        )
    return RoundRecord(
        dataset=raw.name,
        round=next_round(raw),
        rounds=request.rounds,
        strategy=request.strategy_name,
        seed=request.seed,
        items=request.items,
        minutes=request.minutes,
        granularity=request.granularity,
        overlap=request.max_annotated,
        seconds=request.seconds,
        oracle=request.oracle is not None,
        split=split.name if split else None,
        split_hash=split.hash if split else None,
        folds=tuple(folds),
        features=file_hash(features) if features and features.is_file() else None,
        model=model_record,
        dice=dice_so_far(raw, request.model, folds),
    )
