"""What all study files have in common: how they are read, the methods they list, and what is checked before any run."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.splits.groups import grouped
from nnunet_limited.util.files import replace_text, utf8_text
from nnunet_limited.util.names import check_name

CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres")
SHARED = ("num_epochs", "num_iterations_per_epoch", "seed", "pseudo_labels")  # settings that the study makes itself


def _folder_name(value: int | str) -> int | str:
    return value if isinstance(value, int) else check_name(value, "name")


Name = Annotated[str, AfterValidator(_folder_name)]  # becomes the name of a folder
ShownName = Annotated[str, AfterValidator(partial(check_name, what="name", in_files=False))]
NumberOrName = Annotated[int | str, AfterValidator(_folder_name)]
Labeled = NumberOrName
MAX_VALUES = 100_000  # of a study file


class Part(BaseModel):
    """A part of a study file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Method(Part):
    """A trainer with its settings; a trainer that learns pseudo-labels is self-trained, its teacher first."""

    name: ShownName = Field(pattern=r"[A-Za-z0-9]", description="name in tables and pictures")
    trainer: str = Field("LimitedSupervisedTrainer", description="class name of the trainer, as for -tr")
    settings: dict[str, Any] = Field({}, description="settings of the trainer, as for --set")
    labeled: tuple[Labeled, ...] | None = Field(None, description="labelled sizes; default: those of the study")
    teacher: str | None = Field(None, description="self-training: trainer that labels the unlabelled cases first")
    rounds: int = Field(1, ge=1, description="self-training: number of rounds")
    sources: str | None = Field(
        None, description="self-training: sources of the pseudo-labels; variables like $HOME are replaced"
    )
    ask: tuple[str, ...] = Field((), description="self-training: settings of the prompts, as for --ask")
    accept_licence: str | None = Field(None, description="self-training: accepted licence of the weights")

    @property
    def slug(self) -> str:
        """Return the name as a part of file names."""
        return re.sub(r"[^A-Za-z0-9.+]+", "-", self.name).strip("-")


class StudyFile(Part):
    """The fields of all kinds of study files."""

    example: ClassVar[str]

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$", description="name of the study")
    cases: int | None = Field(None, ge=4, description="number of cases, always the same random ones; default: all")
    seeds: tuple[int, ...] = Field(
        (0, 1, 2), min_length=1, description="seeds of splits, queries and runs; intervals and p-values need five"
    )
    number_of_folds: int = Field(5, ge=2, description="number of folds of the partition")
    group_by: str | None = Field(None, description="regular expression of patients, as for split")
    labeled_from: str | None = Field(
        None, description="regular expression of the names of cases to draw the labelled ones from, as for split"
    )
    cover: Literal["classes", "none"] | None = Field(None, description="as for split; default: by the protocol")
    size: Literal["tiny"] | None = Field(None, description="'tiny' for a network that trains on a CPU")
    iterations: int = Field(250_000, ge=1, description="steps per run")
    iterations_per_epoch: int = Field(250, ge=1, description="steps per epoch")

    @property
    def draw(self) -> dict[str, Any]:
        """Return how labelled cases are drawn, as fields of a ``SplitRequest``, but for their number and the seed."""
        kept = {name: getattr(self, name) for name in ("group_by", "labeled_from", "cover")}
        return {"folds": self.number_of_folds, **kept}


S = TypeVar("S", bound=StudyFile)


def read_study(file: Path, kind: type[S]) -> S:
    """Read a study file of a ``kind``; raise one LimitedError with all problems."""
    import yaml

    if not file.is_file():
        raise LimitedError(f"study file {file} does not exist; write one, e.g. like {kind.example}")
    try:
        text = utf8_text(file, "study file")
        if _values(yaml.compose(text, yaml.SafeLoader), {}) > MAX_VALUES:
            raise LimitedError(f"{file} repeats its anchors to more than {MAX_VALUES:,} values; write the values out")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise LimitedError(f"{file} is not readable YAML ({error}); correct it") from error
    if not isinstance(content, dict):
        raise LimitedError(f"{file} holds {content!r:.40}, not keys and values; write one like {kind.example}")
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}={e['input']!r:.60}: {e['msg'].lower()}" for e in error.errors()]
        raise LimitedError(listed(file, problems)) from error


def _values(node: Any, known: dict[int, float]) -> float:
    """Return how many values a node of YAML stands for, with those of its aliases; infinite if it holds itself.

    A few lines of aliases of aliases stand for more values than a computer can print.
    """
    if id(node) not in known:
        known[id(node)] = float("inf")
        parts = node.value if node is not None and not isinstance(node.value, str) else []
        flat = [part for pair in parts for part in (pair if isinstance(pair, tuple) else (pair,))]
        known[id(node)] = 1 + sum(_values(part, known) for part in flat)
    return known[id(node)]


def listed(file: Path, problems: list[str]) -> str:
    """Return one line that lists all problems of a file."""
    count = f"{len(problems)} problems: " if len(problems) > 1 else ""
    return f"{file}: {count}" + "; ".join(f"({n}) {p}" if count else p for n, p in enumerate(problems, 1))


def refuse(file: Path, problems: Iterable[str]) -> None:
    """Raise a LimitedError that lists the problems of a file, if there are any."""
    if found := list(problems):
        raise LimitedError(listed(file, found))


def repeated(lists: Mapping[str, Iterable[Any]]) -> Iterator[str]:
    """Yield a problem for each value that is listed twice."""
    for name, values in lists.items():
        counts = Counter(map(str, values))
        yield from (f"{name} {text} is listed twice" for text in sorted(counts) if counts[text] > 1)


def training_problems(study: Any, configurations: Iterable[str]) -> Iterator[str]:
    """Yield the problems of a study's iterations, seeds and configurations."""
    if study.iterations % study.iterations_per_epoch:
        yield f"iterations={study.iterations} is not a multiple of iterations_per_epoch={study.iterations_per_epoch}"
    yield from (f"seed {seed} is not within 0 and 2^32" for seed in study.seeds if not 0 <= seed < 2**32)
    known = ", ".join(CONFIGURATIONS)
    yield from (f"configuration {one!r} is none of {known}" for one in configurations if one not in CONFIGURATIONS)


@contextmanager
def gathered(problems: list[str]) -> Iterator[None]:
    """Add the LimitedError that ends the block to ``problems``."""
    try:
        yield
    except LimitedError as error:
        problems.append(str(error))


def method_problems(method: Method) -> list[str]:
    """Return the problems of a method."""
    # Imported here: the steps and the workflow read study files too, without these seconds of imports.
    from nnunet_limited.engine.settings import resolve
    from nnunet_limited.pseudo_labels.spec import parse_sources
    from nnunet_limited.runs.request import find_trainer, is_ours

    problems: list[str] = []
    with gathered(problems):
        trainer = find_trainer(method.trainer)
        if not is_ours(trainer):
            raise LimitedError(f"{method.trainer} is neither a trainer of nnunet-limited nor a subclass of one")
        learns = trainer.learns_pseudo_labels
        problems += [f"{key} is set by the study; remove it" for key in SHARED if key in method.settings]
        with gathered(problems):
            resolve(trainer.Config, method.settings, set(trainer.Config.model_fields), "settings")
        if method.sources is not None:
            if learns == "none":
                problems.append(f"{method.trainer} does not learn from sources; remove them")
            with gathered(problems):
                parse_sources(os.path.expandvars(method.sources))
        else:
            if method.ask or method.accept_licence:
                problems.append("ask and accept_licence need sources; add sources, or remove them")
            if learns == "sources":
                problems.append(f"{method.trainer} learns what sources agree on; give e.g. sources: student,atlas")
        if method.teacher is not None:
            if learns == "none":
                problems.append(f"{method.trainer} takes no teacher; remove it")
            if not is_ours(find_trainer(method.teacher, "teacher")):
                problems.append(f"teacher {method.teacher} is no trainer of nnunet-limited")
    return [f"method {method.name!r}: {problem}" for problem in problems]


def write_left_out(file: Path, raw: RawDataset, study: StudyFile) -> None:
    """Write the list of cases that are not used."""
    replace_text(file, "\n".join(["# not used", *left_out(raw, study.cases, study.group_by)]))


def left_out(raw: RawDataset, cases: int | None, group_by: str | None = None) -> list[str]:
    """Return the cases that are not used if at most ``cases`` are: a random choice, the same in every study.

    All cases of a patient (``group_by``) are used, or none.
    """
    names = sorted(raw.cases)
    patient = {case: group for group in grouped(names, group_by).values() for case in group}
    used: set[str] = set()
    for case in map(str, np.random.default_rng(0).permutation(names)):
        if len(used | {*patient[case]}) <= (len(names) if cases is None else cases):
            used |= {*patient[case]}
    return sorted({*names} - used)
