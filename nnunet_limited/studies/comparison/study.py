"""The study file: what is compared on what, checked as a whole before anything runs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nnunet_limited.datasets.raw import RawDataset, images_by_case
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import preprocessed_folder
from nnunet_limited.metrics.registry import METRICS
from nnunet_limited.splits import Split, SplitRequest, adopt_partition, make_split
from nnunet_limited.splits.classes import class_reader
from nnunet_limited.splits.make import grouped
from nnunet_limited.splits.published import make_published_split

PHANTOM = "phantom"
ALL = "all"
CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres")
SHARED = ("num_epochs", "num_iterations_per_epoch", "seed", "pseudo_labels")  # what the study sets for every run
Labeled = int | str


class Part(BaseModel):
    """A part of a study file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


P = TypeVar("P", bound=Part)


class Method(Part):
    """A trainer with its settings; one that learns pseudo-labels is self-trained, its teacher first."""

    name: str = Field(pattern=r"[A-Za-z0-9]", description="what tables and pictures call it")
    trainer: str = Field("LimitedSupervisedTrainer", description="class name, as for -tr")
    settings: dict[str, Any] = Field({}, description="as for --set")
    labeled: tuple[Labeled, ...] | None = Field(None, description="sizes to train it on; default: those of the study")
    teacher: str | None = Field(None, description="self-training: the trainer that labels first")
    rounds: int = Field(1, ge=1, description="self-training: rounds")
    sources: str | None = Field(None, description="self-training: --sources, variables like $HOME replaced")
    ask: tuple[str, ...] = Field((), description="self-training: each as for --ask")
    accept_licence: str | None = Field(None, description="self-training: --accept-licence")

    @property
    def slug(self) -> str:
        """Return the name as a part of file names."""
        return re.sub(r"[^A-Za-z0-9.+]+", "-", self.name).strip("-")


class TestSet(Part):
    """Images that no run learns from, with labels; paths may be relative to the raw dataset."""

    images: Path = Field(Path("imagesTs"), description="folder of images")
    labels: Path = Field(Path("labelsTs"), description="folder of their labels")


class Study(Part):
    """A study file."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="of the study")
    datasets: tuple[str | int, ...] = Field(min_length=1, description="numbers or names; 'phantom' is built in")
    labeled: tuple[Labeled, ...] = Field(min_length=1, description="labelled cases (groups): 4, 10%, all")
    methods: tuple[Method, ...] = Field(min_length=1, description="what is compared")
    baseline: str = Field("", description="name of the method that others are compared with; default: the first")
    cases: int | None = Field(None, ge=4, description="cases to use, chosen at random but always alike; default: all")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="of split and run")
    protocol: Literal["benchmark", "deployment"] | None = Field(None, description="as for split; default: by the data")
    group_by: str | None = Field(None, description="regular expression of patients, as for split")
    published: Path | None = Field(None, description="published split, a file that may be relative to the raw dataset")
    number_of_folds: int = Field(5, ge=2, description="folds of the partition")
    folds: tuple[int, ...] = Field((0,), min_length=1, description="folds to train")
    configurations: tuple[str, ...] = Field(("3d_fullres",), min_length=1, description="nnU-Net's configurations")
    size: Literal["tiny"] | None = Field(None, description="'tiny' for a network that learns on a CPU")
    patch: str | None = Field(
        None, pattern=r"^\d+x\d+(x\d+)?$", description="patch size, e.g. 112x112x80; default: nnU-Net's choice"
    )
    iterations: int = Field(250_000, ge=1, description="steps of a run")
    iterations_per_epoch: int = Field(250, ge=1, description="steps of an epoch")
    test: TestSet | None = Field(None, description="test set; default: the validation cases of the folds")
    metrics: tuple[str, ...] = Field(
        default_factory=lambda: tuple(METRICS), min_length=1, description="metrics of the report; the first is the main"
    )
    tolerance: float = Field(1.0, ge=0, description="of the surface Dice, in mm or voxels")
    voxels: bool = Field(False, description="distances and volumes in voxels")
    minutes_per_run: float | None = Field(None, gt=0, description="of a supervised run, to estimate the cost")

    @property
    def reference(self) -> str:
        """Return the name of the method that others are compared with."""
        return self.baseline or self.methods[0].name

    def sizes(self, method: Method) -> tuple[Labeled, ...]:
        """Return the labelled sizes that a method is trained on."""
        return self.labeled if method.labeled is None else method.labeled

    def method(self, name: str) -> Method:
        """Return the method of a name or slug."""
        return next(method for method in self.methods if name in (method.name, method.slug))

    def runs(self) -> list[Run]:
        """Return every run."""
        return [
            Run(str(dataset), configuration, str(labeled), seed, fold, method.slug)
            for seed in self.seeds
            for dataset in self.datasets
            for configuration in self.configurations
            for fold in self.folds
            for method in self.methods
            for labeled in self.sizes(method)
        ]


@dataclass(frozen=True, order=True)
class Run:
    """One training of a study."""

    dataset: str
    configuration: str
    labeled: str
    seed: int
    fold: int
    method: str

    @property
    def split(self) -> str:
        """Return the name of its split."""
        return f"l{self.labeled.replace('%', 'p')}s{self.seed}"

    @property
    def identifier(self) -> str:
        """Return its name, which is its folder too."""
        return f"{self.dataset}/{self.configuration}/{self.split}/{self.method}/fold_{self.fold}"


def load_study(file: Path) -> Study:
    """Read a study file and check all that can be known without its data, every problem in one error."""
    study = read_study(file)
    if problems := list(_problems(study)):
        raise LimitedError(listed(file, problems))
    return study


def read_study(file: Path) -> Study:
    """Read a study file; what is no study is one error."""
    return read_part(file, Study, "studies/smoke.yaml")


def read_part(file: Path, kind: type[P], example: str) -> P:
    """Read a YAML file of a ``kind``; anything else is one error, which names an ``example``."""
    import yaml

    if not file.is_file():
        raise LimitedError(f"study file {file} does not exist; write one, e.g. like {example}")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LimitedError(f"{file} is not readable YAML ({error}); mend it") from error
    if not isinstance(content, dict):
        raise LimitedError(f"{file} holds {content!r:.40}, not keys and values; write one like {example}")
    try:
        return kind(**content)
    except ValidationError as error:
        told = [f"{'.'.join(map(str, e['loc']))}={e['input']!r:.60}: {e['msg'].lower()}" for e in error.errors()]
        raise LimitedError(listed(file, told)) from error


def check_data(study: Study, file: Path, known: Sequence[str] = ()) -> None:
    """Check a study against its datasets, which must be in ``nnUNet_raw``; every problem in one error."""
    problems = list(known)
    for dataset in study.datasets:
        try:
            problems += [f"dataset {dataset}: {problem}" for problem in _data_problems(study, str(dataset))]
        except LimitedError as error:
            problems.append(str(error))
    if problems:
        raise LimitedError(listed(file, problems))


def listed(file: Path, problems: list[str]) -> str:
    """Return one line that tells all problems of a file."""
    count = f"{len(problems)} problems: " if len(problems) > 1 else ""
    return f"{file}: {count}" + "; ".join(f"({n}) {p}" if count else p for n, p in enumerate(problems, 1))


def _problems(study: Study) -> Iterator[str]:
    for what, values in (
        ("seeds", study.seeds),
        ("folds", study.folds),
        ("labeled", study.labeled),
        ("datasets", study.datasets),
        ("configurations", study.configurations),
        ("method", [method.slug for method in study.methods]),
        ("metrics", study.metrics),
    ):
        told = [str(value) for value in values]
        for value in sorted({one for one in told if told.count(one) > 1}):
            yield f"{what} {value} is there twice; once is enough"
    if study.reference not in [method.name for method in study.methods]:
        names = ", ".join(method.name for method in study.methods)
        yield f"baseline {study.baseline!r} is no method; there are {names}"
    if study.iterations % study.iterations_per_epoch:
        yield f"iterations={study.iterations} is no multiple of iterations_per_epoch={study.iterations_per_epoch}"
    if study.published is not None and study.cases is not None:
        yield "cases: a published split says which cases there are; leave cases out"
    if study.published is not None and (study.folds != (0,) or study.group_by or study.protocol):
        yield "published: there is one fold, and patients and protocol are the file's; leave out the other keys"
    for metric in study.metrics:
        if metric not in METRICS:
            yield f"metrics: {metric!r} is none of {', '.join(METRICS)}"
    for fold in study.folds:
        if not 0 <= fold < study.number_of_folds:
            yield f"fold {fold} is none of the {study.number_of_folds} folds, which count from 0"
    for seed in study.seeds:
        if not 0 <= seed < 2**32:
            yield f"seed {seed} is not within 0 and 2^32"
    for configuration in study.configurations:
        if configuration not in CONFIGURATIONS:
            yield f"configuration {configuration!r} is none of {', '.join(CONFIGURATIONS)}"
        elif study.patch and study.patch.count("x") + 1 != (2 if configuration == "2d" else 3):
            yield f"patch {study.patch} does not fit configuration {configuration}"
    for method in study.methods:
        for size in study.sizes(method):
            if not re.fullmatch(r"[1-9]\d*|[1-9]\d?%|all", str(size)):
                yield f"labeled {size!r} is neither a number, nor a percentage, nor 'all'"
        yield from method_problems(method)


def method_problems(method: Method) -> Iterator[str]:
    """Yield what is wrong with a method."""
    # Steps of studies and their workflow read study files too; they are spared seconds of imports.
    from nnunet_limited.engine.settings import resolve
    from nnunet_limited.pseudo_labels.sources import check_sources
    from nnunet_limited.runs.request import find_trainer

    try:
        trainer = find_trainer(method.trainer)
    except LimitedError as error:
        yield f"method {method.name!r}: {error}"
        return
    if not hasattr(trainer, "Config"):
        yield f"method {method.name!r}: {method.trainer} is no trainer of nnunet-limited, nor made from one"
        return
    for key in SHARED:
        if key in method.settings:
            yield f"method {method.name!r}: {key} is the study's to set; leave it out"
    try:
        resolve(trainer.Config, method.settings, set(trainer.Config.model_fields), f"method {method.name!r}")
    except LimitedError as error:
        yield str(error)
    if method.sources is not None and "pseudo_labels" not in trainer.Config.model_fields:
        yield f"method {method.name!r}: {method.trainer} learns from no sources; leave them out"
    if method.sources is not None:
        try:
            check_sources(os.path.expandvars(method.sources).split(","))
        except LimitedError as error:
            yield f"method {method.name!r}: {error}"
    if (method.ask or method.accept_licence) and method.sources is None:
        yield f"method {method.name!r}: ask and accept_licence are for sources; give some, or leave them out"
    if getattr(trainer, "learns_consensus", False) and method.sources is None:
        yield f"method {method.name!r}: {method.trainer} learns what sources agree on; give e.g. sources: student,atlas"
    if method.teacher is not None:
        if "pseudo_labels" not in trainer.Config.model_fields:
            yield f"method {method.name!r}: {method.trainer} takes no teacher; leave it out"
        try:
            if not hasattr(find_trainer(method.teacher, "teacher"), "resolve_config"):
                yield f"method {method.name!r}: teacher {method.teacher} is no trainer of nnunet-limited"
        except LimitedError as error:
            yield f"method {method.name!r}: {error}"


def _data_problems(study: Study, dataset: str) -> Iterator[str]:
    """Try out every split; the fold partition of the dataset is taken over, as the split command does."""
    raw = RawDataset.load(dataset)
    folder = preprocessed_folder(raw.name)
    test = list(test_cases(study, raw))
    if not study.test and study.protocol != "benchmark" and (study.protocol or raw.without_label):
        yield "under deployment validation cases change with the labelled size; give a test set, or protocol: benchmark"
    unit = {case: name for name, cases in grouped([*raw.cases, *test], study.group_by).items() for case in cases}
    overlap = sorted({unit[case] for case in test} & {unit[case] for case in raw.cases})
    if overlap:
        yield f"{overlap[0]} is a test case and a training case ({len(overlap)} in all); take it out of one of the two"
    adopt_partition(raw, folder)
    out = tuple(left_out(raw, study.cases))
    for size in all_sizes(study):
        labeled = None if str(size) == ALL else str(size)
        for seed in study.seeds:
            request = SplitRequest(
                "check", labeled, study.number_of_folds, seed, study.protocol, study.group_by, test_cases=out
            )
            try:
                if study.published is not None:
                    split = make_published_split(raw, "check", raw.folder / study.published, labeled)
                else:
                    split = make_split(raw, folder, request, class_reader(raw))[0]
            except LimitedError as error:
                yield str(error)
                break
            problems = list(_split_problems(study, size, split))
            yield from problems
            if problems:
                break


def _split_problems(study: Study, size: Labeled, split: Split) -> Iterator[str]:
    from nnunet_limited.runs.request import find_trainer

    for number in study.folds:
        if number >= len(split.folds):
            yield f"labeled {size}: there is no fold {number}, only {len(split.folds)} folds"
            continue
        fold = split.folds[number]
        if both := set(fold.train) & set(fold.val):
            yield f"labeled {size}, fold {number}: {min(both)} is trained and validated on; ask for more"
        for method in study.methods:
            if size in study.sizes(method) and not fold.unlabeled and find_trainer(method.trainer).uses_unlabeled:
                yield f"method {method.name!r} at labeled {size}: no case is left without label to learn from"


def left_out(raw: RawDataset, cases: int | None) -> list[str]:
    """Return the cases that are not used if only so many are, chosen at random but always alike."""
    order = list(np.random.default_rng(0).permutation(sorted(raw.cases)))
    return sorted(map(str, order[cases or len(order) :]))


def all_sizes(study: Study) -> list[Labeled]:
    """Return every labelled size of a study."""
    return list(dict.fromkeys(size for method in study.methods for size in study.sizes(method)))


def test_cases(study: Study, raw: RawDataset) -> dict[str, Path]:
    """Return the label of each test case; raise LimitedError if an image or a label is missing."""
    if study.test is None:
        return {}
    images, labels = (raw.folder / folder for folder in (study.test.images, study.test.labels))
    for folder in (images, labels):
        if not folder.is_dir():
            raise LimitedError(f"test set {folder} is no folder; correct 'test', or leave it out")
    ending = raw.dataset_json["file_ending"]
    found = {case: labels / f"{case}{ending}" for case in images_by_case(images, ending)}
    for label in found.values():
        if not label.is_file():
            raise LimitedError(f"test label {label} does not exist; every test image needs one")
    return found
