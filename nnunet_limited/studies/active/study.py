"""The file of a simulated loop of active learning: strategies, targets, trainers and seeds; hidden labels answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.host.folders import preprocessed_folder
from nnunet_limited.queries.strategies.registry import strategies
from nnunet_limited.splits import Fold, SplitRequest
from nnunet_limited.splits.make import class_reader, make_split
from nnunet_limited.studies.engine import study_file
from nnunet_limited.studies.engine.study_file import Method, Name, NumberOrName, Part, StudyFile

START, FULL = "start", "full"  # names of the trainings before the first query, and with all labels


class Target(Part):
    """The kind and number of the queries of a round."""

    what: Literal["case", "slice", "patch"] = Field("case", description="kind of query: whole cases, slices or patches")
    size: str | None = Field(None, pattern=r"^\d+x\d+(x\d+)?$", description="voxels of a patch, e.g. 20x20x20")
    axis: int | None = Field(None, ge=0, le=2, description="axis of slices; default: the largest spacing")
    items: int = Field(ge=1, description="number of items per round")

    @property
    def slug(self) -> str:
        """Return a name for tables and folders."""
        return "-".join(str(part) for part in (self.what, self.size, self.axis) if part is not None)


class ActiveMethod(Method):
    """A trainer with its settings, and the targets that its models are queried for."""

    targets: tuple[str, ...] | None = Field(None, description="targets, e.g. patch-20x20x20, case; default: all")


class ActiveStudy(StudyFile):
    """The file of ``nnunet-limited simulate-al``."""

    example: ClassVar[str] = "studies/active_smoke.yaml"
    dataset: NumberOrName = Field(description="number or name; 'phantom' is built in; every case needs a label")
    labeled: int = Field(2, ge=1, description="labelled cases (groups) at the start")
    targets: tuple[Target, ...] = Field(min_length=1, description="targets of the queries")
    strategies: tuple[Name, ...] = Field(min_length=1, description="query strategies; the first is the baseline")
    methods: tuple[ActiveMethod, ...] = Field(min_length=1, description="trainers with settings, as in studies")
    rounds: int = Field(4, ge=1, description="number of rounds of queries")
    configuration: Name = Field("3d_fullres", description="nnU-Net's configuration")
    seconds: float = Field(79.0, ge=0, description="seconds to outline an object on a slice; used to estimate minutes")

    def method(self, name: str) -> ActiveMethod:
        """Return the method of a name or slug."""
        return next(method for method in self.methods if name in (method.name, method.slug))

    def target(self, slug: str) -> Target:
        """Return the target of a slug."""
        return next(target for target in self.targets if target.slug == slug)

    def runs(self) -> list[Step]:
        """Return every training: with all labels, at the start, and after each round of each chain."""
        steps = [Step(FULL, self.methods[0].slug, "", seed, 0) for seed in self.seeds]
        steps += [Step(START, method.slug, "", seed, 0) for seed in self.seeds for method in self.methods]
        steps += [
            Step(target.slug, method.slug, strategy, seed, number)
            for number in range(1, self.rounds + 1)
            for seed in self.seeds
            for target in self.targets
            for method in self.methods
            if method.targets is None or target.slug in method.targets
            for strategy in self.strategies
        ]
        return steps


@dataclass(frozen=True, order=True)
class Step:
    """A training in a chain of rounds: after the queries of round ``number``, or before the first one (0)."""

    target: str
    method: str
    strategy: str
    seed: int
    number: int

    @property
    def identifier(self) -> str:
        """Return its name, which is its folder too."""
        chain = "/".join(part for part in (self.target, self.method, self.strategy) if part)
        return f"{chain}/s{self.seed}/round_{self.number}"

    @property
    def before(self) -> Step:
        """Return the training whose model asks for this round."""
        if self.number > 1:
            return Step(self.target, self.method, self.strategy, self.seed, self.number - 1)
        return Step(START, self.method, "", self.seed, 0)


def problems(study: ActiveStudy) -> Iterator[str]:
    """Yield the problems of a study that show without its data."""
    targets, methods = [one.slug for one in study.targets], [one.slug for one in study.methods]
    lists = {"seeds": study.seeds, "strategies": study.strategies, "targets": targets, "methods": methods}
    yield from study_file.repeated(lists)
    yield from study_file.training_problems(study, [study.configuration])
    known = ", ".join(strategies())
    yield from (f"strategy {one!r} is none of {known}" for one in study.strategies if one not in strategies())
    for target in study.targets:
        if (target.what == "patch") != (target.size is not None):
            yield f"target {target.slug}: patches need a size, cases and slices have none"
        if target.axis is not None and target.what != "slice":
            yield f"target {target.slug}: only slices have an axis"
    for method in study.methods:
        yield from study_file.method_problems(method)
        for unknown in sorted(set(method.targets or ()) - set(targets)):
            yield f"method {method.name!r}: {unknown!r} is none of {', '.join(targets)}"
        if method.labeled is not None:
            yield f"method {method.name!r}: labelled sizes are those of the rounds; remove labeled"


def data_problems(study: ActiveStudy) -> Iterator[str]:
    """Yield the problems of a study with its dataset."""
    raw = RawDataset.load(str(study.dataset))
    if raw.without_label:
        yield f"dataset {raw.name}: case {raw.without_label[0]} has no label, which the oracle needs; remove the case"
    used = study.cases or len(raw.labeled)
    if used > len(raw.labeled):
        yield f"cases={used}, but {raw.name} has {len(raw.labeled)} labelled cases; give at most that many"
    found: list[str] = []
    with study_file.gathered(found):
        raw.check_labels(raw.labeled)
        out = tuple(study_file.left_out(raw, study.cases, study.group_by))
        for seed in study.seeds:
            shared = {"protocol": "benchmark", "labeled": study.labeled, "seed": seed, "test_cases": out}
            request = SplitRequest(name="check", **shared, **study.draw)
            start = make_split(raw, preprocessed_folder(raw.name), request, class_reader(raw))[0].folds[0]
            found += _too_many(study, start)
            if found:
                break
    yield from found


def _too_many(study: ActiveStudy, start: Fold) -> Iterator[str]:
    """Yield the targets that ask for more cases than the fold of the start has."""
    training = len(start.train) + len(start.unlabeled)
    for target in study.targets:
        asked = len(start.train) + (study.rounds * target.items if target.what == "case" else 1)
        if asked > training:
            needed = f"{len(start.train)} labelled cases and {study.rounds} rounds take {asked}"
            of = f"{training} of {training + len(start.val)}"
            yield f"target {target.slug}: {needed}, but only {of} cases are training cases"
