"""Names of sources, e.g. ``student``, ``sam:FOLDER`` or ``module:factory``: how they are parsed, and what they name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_limited.errors import LimitedError
from nnunet_limited.prompters.prompter import GROUP, PROMPTERS
from nnunet_limited.util.modules import load_entry, load_object

if TYPE_CHECKING:
    from nnunet_limited.pseudo_labels.sources.base import LabelSource, SourceContext
    from nnunet_limited.runs.request import TrainRequest

SOURCES = "nnunet_limited.label_sources"  # the group of entry points


@dataclass(frozen=True)
class SourceKind:
    """A kind of sources. ``usage`` is how one is written: NAME, or NAME:ARGUMENT.

    ``built_in`` is the class in ``sources`` of one of ours, called with the context and the file that it reads, if any.
    It may have ``check(argument, model, folds)``, which raises LimitedError for what cannot work. A prompter is a
    promptable model; a hint shows these where to look and has no vote.
    """

    usage: str
    built_in: str = ""
    is_prompter: bool = False
    is_hint: bool = False

    @property
    def argument(self) -> str:
        """The placeholder of the argument, empty for a kind without one."""
        return self.usage.partition(":")[2]


KINDS = {
    "student": SourceKind("student", "student.StudentSource"),
    "atlas": SourceKind("atlas", "atlas.AtlasSource"),
    "boxes": SourceKind("boxes:FILE.csv", "boxes.BoxSource", is_hint=True),
    **{name: SourceKind(f"{name}:{kind.argument}", is_prompter=True) for name, kind in PROMPTERS.items()},
}
PLUGIN = SourceKind("module:factory")
USAGES = ", ".join(kind.usage for kind in (*KINDS.values(), PLUGIN))


def source_kinds() -> dict[str, SourceKind]:
    """Return the kinds by name: ours, and those that other packages register."""
    prompters = {entry.name: SourceKind(f"{entry.name}:…", is_prompter=True) for entry in entry_points(group=GROUP)}
    return prompters | {entry.name: SourceKind(entry.name) for entry in entry_points(group=SOURCES)} | KINDS


@dataclass(frozen=True)
class SourceSpec:
    """A source by its name: ``text`` as the user wrote it, its kind, and what follows the colon."""

    text: str
    kind: SourceKind
    argument: str

    @classmethod
    def parse(cls, text: str) -> SourceSpec:
        """Return the source that ``text`` names; raise LimitedError if it names none."""
        name, colon, argument = text.partition(":")
        kind = source_kinds().get(name)
        if kind is None or (colon and not kind.argument):
            if not (colon and argument.isidentifier()):
                raise LimitedError(f"--sources: {text!r} is not a source; give {USAGES}")
            return cls(text, PLUGIN, argument)
        if name in PROMPTERS and not argument:
            raise LimitedError(f"--sources: {text!r} names no weights; write {kind.usage}")
        spec = cls(text, kind, argument)
        if spec.file and not spec.file.is_file():
            raise LimitedError(f"--sources: {text!r} names no file that exists; write {kind.usage}")
        return spec

    @cached_property
    def factory(self) -> Any:
        """The class or function that makes the source."""
        if self.kind.built_in:
            module, _, name = self.kind.built_in.partition(".")
            return getattr(import_module(f"nnunet_limited.pseudo_labels.sources.{module}"), name)
        if self.kind is PLUGIN:
            return load_object(self.text.partition(":")[0], self.argument, self.text)
        return load_entry(next(entry for entry in entry_points(group=SOURCES) if entry.name == self.text))

    @property
    def is_prompter(self) -> bool:
        """Whether it is a promptable model; a factory of the user says so by ``is_label_source``."""
        return self.kind.is_prompter or (self.kind is PLUGIN and not getattr(self.factory, "is_label_source", False))

    @property
    def file(self) -> Path | None:
        """The file that the source reads, whose content the pseudo-labels depend on; None without one."""
        reads = not self.kind.is_prompter and self.kind.argument.startswith("FILE")
        return Path(self.argument) if reads else None

    def check(self, model: TrainRequest, folds: Sequence[int | str]) -> None:
        """Raise LimitedError for a built-in source that cannot work with the data of a ``model``."""
        if self.kind.built_in and hasattr(self.factory, "check"):
            self.factory.check(self.argument, model, folds)

    def load(self, context: SourceContext) -> LabelSource:
        """Return the source, which is no promptable model."""
        made: LabelSource = self.factory(context, self.argument) if self.file else self.factory(context)
        return made


def parse_sources(text: str) -> tuple[SourceSpec, ...]:
    """Return the sources in a list separated by commas; raise LimitedError for a list that cannot work.

    No source is listed twice, a promptable model does not come first, and boxes come in one file with a promptable
    model after them.
    """
    words = [word.strip() for word in text.split(",")]
    if len(set(words)) != len(words):
        raise LimitedError(f"--sources {','.join(words)}: a source is listed twice; give each once")
    specs = tuple(SourceSpec.parse(word) for word in words)
    if specs[0].kind.is_prompter:
        raise prompter_first(specs[0])
    hints = [spec.text for spec in specs if spec.kind.is_hint]
    if len(hints) > 1:
        raise LimitedError(f"--sources {','.join(hints)} are several files; give one with the boxes of all scans")
    if len(hints) == len(specs):
        raise LimitedError(
            f"--sources {','.join(words)}: boxes are prompts of a promptable model; add one, e.g. sam:FOLDER"
        )
    return specs


def prompter_first(spec: SourceSpec) -> LimitedError:
    """Return the error for a list that begins with a promptable model."""
    return LimitedError(
        f"--sources begins with {spec.text!r}, which needs prompts of another source; begin with student"
    )
