"""The file of a comparison study: what is compared on what, checked as a whole before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from nnunet_limited.datasets.listing import channels_by_case
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import preprocessed_folder
from nnunet_limited.metrics.registry import METRICS, Metric
from nnunet_limited.splits import SplitRequest
from nnunet_limited.splits.groups import grouped
from nnunet_limited.splits.make import class_reader, make_split
from nnunet_limited.splits.published import make_published_split
from nnunet_limited.studies.engine import study_file
from nnunet_limited.studies.engine.study_file import Labeled, Method, Name, NumberOrName, Part, StudyFile

ALL = "all"


class TestSet(Part):
    """Labelled images that no run is trained on; paths are absolute or relative to the raw dataset."""

    images: Path = Field(Path("imagesTs"), description="folder of images")
    labels: Path = Field(Path("labelsTs"), description="folder of their labels")


class Study(StudyFile):
    """The file of a comparison study."""

    example: ClassVar[str] = "studies/smoke.yaml"

    datasets: tuple[NumberOrName, ...] = Field(min_length=1, description="numbers or names; 'phantom' is built in")
    labeled: tuple[Labeled, ...] = Field(min_length=1, description="labelled cases (groups): 4, 10%, all")
    methods: tuple[Method, ...] = Field(min_length=1, description="methods to compare")
    baseline: str = Field("", description="name of the method that others are compared with; default: the first")
    protocol: Literal["benchmark", "deployment"] | None = Field(None, description="as for split; default: by the data")
    published: Path | None = Field(None, description="published split, absolute or relative to the raw dataset")
    folds: tuple[int, ...] = Field((0,), min_length=1, description="folds to train")
    configurations: tuple[Name, ...] = Field(("3d_fullres",), min_length=1, description="nnU-Net's configurations")
    patch: str | None = Field(
        None, pattern=r"^\d+x\d+(x\d+)?$", description="patch size, e.g. 112x112x80; default: nnU-Net's choice"
    )
    test: TestSet | None = Field(None, description="test set; default: the validation cases of the folds")
    metrics: tuple[str, ...] = Field(
        default_factory=lambda: tuple(METRICS), min_length=1, description="metrics of the report; the first is the main"
    )
    tolerance: float = Field(1.0, ge=0, description="tolerance of the surface Dice in mm (voxels with voxels: true)")
    voxels: bool = Field(False, description="measure distances and volumes in voxels instead of mm")
    minutes_per_run: float | None = Field(None, gt=0, description="minutes of one supervised run; for the estimate")

    @property
    def reference(self) -> str:
        """Return the name of the method that others are compared with."""
        return self.baseline or self.methods[0].name

    @property
    def main(self) -> Metric:
        """Return the metric that methods are compared by."""
        return METRICS[self.metrics[0]]

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
    def setting(self) -> tuple[str, str, str]:
        """Return what the runs that are compared with each other have in common."""
        return self.dataset, self.configuration, self.labeled

    @property
    def identifier(self) -> str:
        """Return its name, which is also its folder."""
        return f"{self.dataset}/{self.configuration}/{self.split}/{self.method}/fold_{self.fold}"


def load_study(file: Path) -> Study:
    """Read a study file and check it without its data; raise one LimitedError with all problems."""
    study = study_file.read_study(file, Study)
    study_file.refuse(file, _problems(study))
    return study


def check_data(study: Study, file: Path, known: Sequence[str] = ()) -> None:
    """Check a study against its datasets, which must be in ``nnUNet_raw``; raise one LimitedError with all problems."""
    problems = list(known)
    for dataset in study.datasets:
        with study_file.gathered(problems):
            problems += [f"dataset {dataset}: {problem}" for problem in _data_problems(study, str(dataset))]
    study_file.refuse(file, problems)


def _problems(study: Study) -> Iterator[str]:
    lists = {name: getattr(study, name) for name in ("seeds", "folds", "labeled", "datasets", "configurations")}
    slugs = [method.slug for method in study.methods]
    yield from study_file.repeated({**lists, "method": slugs, "metrics": study.metrics})
    yield from study_file.training_problems(study, study.configurations)
    names = [method.name for method in study.methods]
    if study.reference not in names:
        yield f"baseline {study.baseline!r} is not a method; there are {', '.join(names)}"
    if study.published is not None and study.cases is not None:
        yield "cases: a published split lists its cases; remove cases"
    for key in ("protocol", "labeled_from", "cover", "folds"):
        value = getattr(study, key)
        if study.published is not None and value not in (None, "none", (0,)):
            yield f"published: the file defines the only fold and who is labelled; remove {key}"
    known, folds = ", ".join(METRICS), study.number_of_folds
    yield from (f"metrics: {metric!r} is none of {known}" for metric in study.metrics if metric not in METRICS)
    outside = (fold for fold in study.folds if not 0 <= fold < folds)
    yield from (f"fold {fold} is none of the {folds} folds, which count from 0" for fold in outside)
    for configuration in study.configurations:
        if study.patch and study.patch.count("x") + 1 != (2 if configuration == "2d" else 3):
            yield f"patch {study.patch} does not fit configuration {configuration}"
    for method in study.methods:
        for size in study.sizes(method):
            if not re.fullmatch(r"[1-9]\d*|[1-9]\d?%|all", str(size)):
                yield f"labeled {size!r} is neither a number, nor a percentage, nor 'all'"
        yield from study_file.method_problems(method)


def _data_problems(study: Study, dataset: str) -> Iterator[str]:
    """Try every split."""
    raw = RawDataset.load(dataset)
    test = list(test_cases(study, raw))
    if not study.test and study.protocol != "benchmark" and (study.protocol or raw.without_label):
        yield "under deployment validation cases change with the labelled size; give a test set, or protocol: benchmark"
    unit = {case: name for name, cases in grouped([*raw.cases, *test], study.group_by).items() for case in cases}
    overlap = sorted({unit[case] for case in test} & {unit[case] for case in raw.cases})
    if overlap:
        yield f"{overlap[0]} is a test case and a training case ({len(overlap)} in all); take it out of one of the two"
    out = tuple(study_file.left_out(raw, study.cases, study.group_by))
    for size in dict.fromkeys(size for method in study.methods for size in study.sizes(method)):
        found = (_split_problems(study, raw, size, seed, out) for seed in study.seeds)
        yield from next(filter(None, found), [])


def _split_problems(study: Study, raw: RawDataset, size: Labeled, seed: int, out: tuple[str, ...]) -> list[str]:
    """Try a split without writing it; the cases ``out`` are not used."""
    from nnunet_limited.runs.request import find_trainer

    problems: list[str] = []
    labeled = None if str(size) == ALL else str(size)
    with study_file.gathered(problems):
        if study.published is not None:
            split = make_published_split(raw, "check", raw.folder / study.published, labeled, study.group_by)
        else:
            shared = {"protocol": study.protocol, "labeled": labeled, "seed": seed, "test_cases": out}
            request = SplitRequest(name="check", **shared, **study.draw)
            split = make_split(raw, preprocessed_folder(raw.name), request, class_reader(raw))[0]
        raw.check_labels(sorted({*split.labeled, *split.validation}))
        folds = dict(enumerate(split.folds))
        for number in study.folds:
            if number not in folds:
                problems.append(f"labeled {size}: there is no fold {number}, only {len(folds)} folds")
                continue
            fold = folds[number]
            if both := set(fold.train) & set(fold.val):
                problems.append(f"labeled {size}, fold {number}: {min(both)} is trained and validated on; ask for more")
            for method in study.methods:
                if size in study.sizes(method) and not fold.unlabeled and find_trainer(method.trainer).uses_unlabeled:
                    problem = f"at labeled {size}: no case is left without a label to learn from"
                    problems.append(f"method {method.name!r} {problem}")
    return problems


def test_cases(study: Study, raw: RawDataset) -> dict[str, Path]:
    """Return the label of each test case; raise LimitedError if an image or a label is missing."""
    if study.test is None:
        return {}
    images, labels = (raw.folder / folder for folder in (study.test.images, study.test.labels))
    for folder in (images, labels):
        if not folder.is_dir():
            raise LimitedError(f"test set {folder} is not a folder; correct 'test', or remove it")
    ending = raw.description.file_ending
    found = {case: labels / f"{case}{ending}" for case in channels_by_case(images, ending)}
    for label in found.values():
        if not label.is_file():
            raise LimitedError(f"test label {label} does not exist; every test image needs one")
    return found
