"""What all study files have in common: how they are read, the methods they list, and what is checked before any run."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError

CONFIGURATIONS = ("2d", "3d_fullres", "3d_lowres")
SHARED = ("num_epochs", "num_iterations_per_epoch", "seed", "pseudo_labels")  # settings that the study makes itself
Labeled = int | str


class Part(BaseModel):
    """A part of a study file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Method(Part):
    """A trainer with its settings; a trainer that learns pseudo-labels is self-trained, its teacher first."""

    name: str = Field(pattern=r"[A-Za-z0-9]", description="name in tables and pictures")
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
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="seeds of splits, queries and runs")
    number_of_folds: int = Field(5, ge=2, description="number of folds of the partition")
    size: Literal["tiny"] | None = Field(None, description="'tiny' for a network that trains on a CPU")
    iterations: int = Field(250_000, ge=1, description="steps per run")
    iterations_per_epoch: int = Field(250, ge=1, description="steps per epoch")


S = TypeVar("S", bound=StudyFile)


def read_study(file: Path, kind: type[S]) -> S:
    """Read a study file of a ``kind``; raise one LimitedError with all problems."""
    import yaml

    if not file.is_file():
        raise LimitedError(f"study file {file} does not exist; write one, e.g. like {kind.example}")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LimitedError(f"{file} is not readable YAML ({error}); correct it") from error
    if not isinstance(content, dict):
        raise LimitedError(f"{file} holds {content!r:.40}, not keys and values; write one like {kind.example}")
    try:
        return kind(**content)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc']))}={e['input']!r:.60}: {e['msg'].lower()}" for e in error.errors()]
        raise LimitedError(listed(file, problems)) from error


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
        texts = [str(value) for value in values]
        for text in sorted({one for one in texts if texts.count(one) > 1}):
            yield f"{name} {text} is listed twice"


def training_problems(study: Any, configurations: Iterable[str]) -> Iterator[str]:
    """Yield the problems of a study's iterations, seeds and configurations."""
    if study.iterations % study.iterations_per_epoch:
        yield f"iterations={study.iterations} is no multiple of iterations_per_epoch={study.iterations_per_epoch}"
    for seed in study.seeds:
        if not 0 <= seed < 2**32:
            yield f"seed {seed} is not within 0 and 2^32"
    for configuration in configurations:
        if configuration not in CONFIGURATIONS:
            yield f"configuration {configuration!r} is none of {', '.join(CONFIGURATIONS)}"


def method_problems(method: Method) -> Iterator[str]:
    """Yield the problems of a method."""
    yield from (f"method {method.name!r}: {problem}" for problem in _method_problems(method))


def _method_problems(method: Method) -> Iterator[str]:
    # Imported here: the steps and the workflow read study files too, without these seconds of imports.
    from nnunet_limited.engine.settings import resolve
    from nnunet_limited.pseudo_labels.spec import parse_sources
    from nnunet_limited.runs.request import find_trainer, is_ours

    def error_of(check: Callable[[], object]) -> list[str]:
        try:
            check()
        except LimitedError as error:
            return [str(error)]
        return []

    if unknown := error_of(lambda: find_trainer(method.trainer)):
        yield from unknown
        return
    trainer = find_trainer(method.trainer)
    if not is_ours(trainer):
        yield f"{method.trainer} is no trainer of nnunet-limited, nor made from one"
        return
    yield from (f"{key} is set by the study; remove it" for key in SHARED if key in method.settings)
    yield from error_of(lambda: resolve(trainer.Config, method.settings, set(trainer.Config.model_fields), "settings"))
    if method.sources is not None:
        if trainer.learns_pseudo_labels == "none":
            yield f"{method.trainer} does not learn from sources; remove them"
        yield from error_of(lambda: parse_sources(os.path.expandvars(str(method.sources))))
    elif method.ask or method.accept_licence:
        yield "ask and accept_licence need sources; add sources, or remove them"
    elif trainer.learns_pseudo_labels == "sources":
        yield f"{method.trainer} learns what sources agree on; give e.g. sources: student,atlas"
    if method.teacher is not None:
        if trainer.learns_pseudo_labels == "none":
            yield f"{method.trainer} takes no teacher; remove it"
        if unknown := error_of(lambda: find_trainer(str(method.teacher), "teacher")):
            yield from unknown
        elif not is_ours(find_trainer(method.teacher)):
            yield f"teacher {method.teacher} is no trainer of nnunet-limited"


def left_out(raw: RawDataset, cases: int | None) -> list[str]:
    """Return the cases that are not used if only ``cases`` are: a random choice, the same in every study."""
    order = list(np.random.default_rng(0).permutation(sorted(raw.cases)))
    return sorted(map(str, order[cases or len(order) :]))
