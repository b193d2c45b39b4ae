"""A simulated loop of active learning: strategies, what they ask for, trainers and seeds; hidden labels answer."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import Field

from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.queries.strategies.registry import strategies
from nnunet_limited.studies.comparison.folder import METHODS, StudyFolder, failed_marker, link_dataset
from nnunet_limited.studies.comparison.study import CONFIGURATIONS, Method, Part, listed, method_problems, read_part
from nnunet_limited.util.files import read_object, replacing, write_json

FILE, NUMBERS = "active.yaml", "datasets.json"
START, FULL = "start", "full"
ORACLE, LEFT_OUT = "oracle", "left_out.txt"
FIRST_NUMBER = 601
SNAKEFILE = Path(__file__).with_name("Snakefile")


class Target(Part):
    """What is asked for in each round, and how much of it."""

    what: Literal["case", "slice", "patch"] = Field("case", description="whole cases, slices or patches")
    size: str | None = Field(None, pattern=r"^\d+x\d+(x\d+)?$", description="voxels of a patch, e.g. 20x20x20")
    axis: int | None = Field(None, ge=0, le=2, description="axis of slices; default: the largest spacing")
    items: int = Field(ge=1, description="how many in each round")

    @property
    def slug(self) -> str:
        """Return a name for tables and folders."""
        return "-".join(
            [self.what, *([self.size] if self.size else []), *([str(self.axis)] if self.axis is not None else [])]
        )


class ActiveMethod(Method):
    """A trainer with its settings, as in studies, and what is asked for with its models."""

    targets: tuple[str, ...] | None = Field(None, description="e.g. patch-20x20x20, case; default: all")


class ActiveStudy(Part):
    """The file of ``nnunet-limited simulate-al``."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="of the study")
    dataset: str | int = Field(description="number or name; 'phantom' is built in; every case needs a label")
    cases: int | None = Field(None, ge=4, description="cases to use, chosen at random; default: all")
    labeled: int = Field(2, ge=1, description="labelled cases at the start")
    targets: tuple[Target, ...] = Field(min_length=1, description="what is asked for")
    strategies: tuple[str, ...] = Field(min_length=1, description="of queries; the first is the baseline")
    methods: tuple[ActiveMethod, ...] = Field(min_length=1, description="trainers, as in studies")
    rounds: int = Field(4, ge=1, description="rounds of queries")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="of start, queries and runs")
    number_of_folds: int = Field(5, ge=2, description="folds of the partition, of which the first is used")
    configuration: str = Field("3d_fullres", description="nnU-Net's")
    size: Literal["tiny"] | None = Field(None, description="'tiny' for a network that learns on a CPU")
    iterations: int = Field(250_000, ge=1, description="steps of a run")
    iterations_per_epoch: int = Field(250, ge=1, description="steps of an epoch")
    seconds: float = Field(79.0, ge=0, description="that an outline takes")

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


@dataclass(frozen=True)
class ActiveFolder(StudyFolder):
    """The folder of a simulation. What came of each training is in ``rounds/``, logs in ``logs/``."""

    @cached_property
    def study(self) -> Any:
        """Return the study, as it was when it last ran."""
        return read_active(self.path / FILE)

    def run_folder(self, run: Any) -> Path:
        """Return where the results of a training are."""
        return self.path / "rounds" / run.identifier

    def log(self, run: Any, step: str) -> Path:
        """Return the log of a training, its queries included."""
        return self.path / "logs" / f"{run.identifier}.log"

    def state(self, run: Any) -> tuple[str, Path | None]:
        """Return ``done``, ``failed``, ``started`` or ``waiting``, and the log to look at."""
        log = self.log(run, "")
        if (self.run_folder(run) / "trained.json").is_file():
            return "done", log
        if failed_marker(log).is_file():
            return "failed", log
        return ("started", log) if log.is_file() else ("waiting", None)

    def dataset_of(self, step: Step) -> str:
        """Return the name of the dataset that a training learns."""
        numbers = read_object(self.path / NUMBERS, "numbers of datasets", "delete the folder and run again")
        return str(numbers[step.identifier]) if step.number else str(self.study.dataset)


def read_active(file: Path) -> ActiveStudy:
    """Read the file of a simulation; what is none is one error."""
    return read_part(file, ActiveStudy, "studies/active_smoke.yaml")


def open_active(file: Path, out: Path) -> ActiveFolder:
    """Check a simulation with its data and make its folder, or go on in one that holds the same; all problems at once.

    Strategies, targets, methods and seeds may be added, but nothing that has run may change.
    """
    study = read_active(file)
    if problems := list(_problems(study)):
        raise LimitedError(listed(file, problems))
    fresh = not (out / FILE).is_file()
    if fresh and out.exists() and any(out.iterdir()):
        raise LimitedError(f"{out} is not empty and holds no simulation; give another --out")
    if not fresh:
        _refuse_changes(ActiveFolder(out), study, file)
    try:
        for name in ("raw", "preprocessed", "results"):
            (out / name).mkdir(parents=True, exist_ok=True)
        name = link_dataset(str(study.dataset), out / "raw")
        if not fresh and name != ActiveFolder(out).study.dataset:
            was = ActiveFolder(out).study.dataset
            raise LimitedError(f"{file}: dataset is {name}, but {out} was run with {was}; give another --out")
        study = study.model_copy(update={"dataset": name})
        with ActiveFolder(out).active():
            if problems := list(_data_problems(study)):
                raise LimitedError(listed(file, problems))
            _prepare_oracle(study, out)
        _number(study, out / NUMBERS)
        if not fresh:
            write_json(out / METHODS, _ever(ActiveFolder(out)))
    except LimitedError:
        if fresh:
            shutil.rmtree(out)
        raise
    with replacing(out / FILE) as temporary:
        temporary.write_text(yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    return ActiveFolder(out)


def _problems(study: ActiveStudy) -> Iterator[str]:
    known = strategies()
    for what, values in (
        ("seeds", study.seeds),
        ("strategies", study.strategies),
        ("targets", [target.slug for target in study.targets]),
        ("methods", [method.slug for method in study.methods]),
    ):
        told = [str(value) for value in values]
        for value in sorted({one for one in told if told.count(one) > 1}):
            yield f"{what} {value} is there twice; once is enough"
    for strategy in study.strategies:
        if strategy not in known:
            yield f"strategy {strategy!r} is none of {', '.join(known)}"
    for target in study.targets:
        if (target.what == "patch") != (target.size is not None):
            yield f"target {target.slug}: size belongs to patches, and they need one"
        if target.axis is not None and target.what != "slice":
            yield f"target {target.slug}: axis belongs to slices"
    if study.iterations % study.iterations_per_epoch:
        yield f"iterations={study.iterations} is no multiple of iterations_per_epoch={study.iterations_per_epoch}"
    if study.configuration not in CONFIGURATIONS:
        yield f"configuration {study.configuration!r} is none of {', '.join(CONFIGURATIONS)}"
    for seed in study.seeds:
        if not 0 <= seed < 2**32:
            yield f"seed {seed} is not within 0 and 2^32"
    for method in study.methods:
        yield from method_problems(method)
        for unknown in sorted(set(method.targets or ()) - {target.slug for target in study.targets}):
            yield f"method {method.name!r}: {unknown!r} is none of {', '.join(one.slug for one in study.targets)}"
        if method.labeled is not None:
            yield f"method {method.name!r}: labelled sizes are those of the rounds; leave labeled out"


def _data_problems(study: ActiveStudy) -> Iterator[str]:
    raw = RawDataset.load(str(study.dataset))
    if raw.without_label:
        yield f"dataset {raw.name}: case {raw.without_label[0]} has no label, which the oracle needs; take it out"
    used = study.cases or len(raw.labeled)
    if used > len(raw.labeled):
        yield f"cases={used}, but {raw.name} has {len(raw.labeled)} labelled cases"
    training = used - -(-used // study.number_of_folds)
    for target in study.targets:
        asked = study.labeled + (study.rounds * target.items if target.what == "case" else 1)
        if asked > training:
            yield (
                f"target {target.slug}: {study.labeled} labelled cases and {study.rounds} rounds take {asked}, but "
                f"only {training} of {used} cases are not validated on"
            )


def _refuse_changes(folder: ActiveFolder, now: ActiveStudy, file: Path) -> None:
    free = ("dataset", "strategies", "targets", "methods", "seeds")
    old, new = folder.study.model_dump(), now.model_dump()
    for key, value in new.items():
        if key not in free and value != old[key]:
            raise LimitedError(
                f"{file}: {key} is {value!r}, but {folder.path} was run with {old[key]!r}; give another --out"
            )
    for kind, ever in _ever(folder).items():  # those too that were left out since
        for one in getattr(now, kind):
            if ever.get(one.slug, one.model_dump(mode="json")) != one.model_dump(mode="json"):
                raise LimitedError(
                    f"{file}: {kind[:-1]} {one.slug} is not as {folder.path} was run with it; give another --out"
                )


def _ever(folder: ActiveFolder) -> dict[str, dict[str, Any]]:
    """Return all methods and targets that a folder was ever run with, by their slugs."""
    file = folder.path / METHODS
    found: dict[str, Any] = read_object(file, "record of methods", "delete the folder") if file.is_file() else {}
    return {
        kind: {**found.get(kind, {}), **{one.slug: one.model_dump(mode="json") for one in getattr(folder.study, kind)}}
        for kind in ("methods", "targets")
    }


def _number(study: ActiveStudy, file: Path) -> None:
    """Give each round a number for its dataset; those that have one keep it."""
    numbers = read_object(file, "numbers of datasets", "delete the folder") if file.is_file() else {}
    taken = {int(name[7:10]) for name in (str(study.dataset), *numbers.values())}
    free = iter(number for number in range(FIRST_NUMBER, 1000) if number not in taken)
    for step in study.runs():
        if step.number and step.identifier not in numbers:
            number = next(free, None)
            if number is None:
                raise LimitedError(f"{file}: nnU-Net knows dataset numbers up to 999; ask for fewer rounds or chains")
            told = re.sub(r"[^A-Za-z0-9]+", "_", step.identifier)
            numbers[step.identifier] = f"Dataset{number}_{told}"
    write_json(file, numbers)


def _prepare_oracle(study: ActiveStudy, out: Path) -> None:
    """Put links to all labels into one folder, and list the cases that are not used, chosen at random but always alike.

    Before any job starts, since jobs run side by side.
    """
    raw, oracle = RawDataset.load(str(study.dataset)), out.resolve() / ORACLE
    oracle.mkdir(exist_ok=True)
    for case in raw.labeled:
        link = oracle / f"{case}{raw.dataset_json['file_ending']}"
        if not link.exists():
            link.symlink_to(Path(str(raw.cases[case].label)).resolve())
    order = np.random.default_rng(0).permutation(raw.labeled).tolist()
    with replacing(out / LEFT_OUT) as temporary:
        temporary.write_text("\n".join(["# not used", *sorted(order[study.cases or len(order) :])]), encoding="utf-8")
