"""What may say where the organs of a scan are: a trained model, atlases, a promptable model, and sources of users."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import Field

from nnunet_limited.errors import LimitedError
from nnunet_limited.prompters.outlining import outline, with_background
from nnunet_limited.prompters.prompter import BUILT_IN, GROUP, About, Prompter, find_prompter, load_factory
from nnunet_limited.prompters.prompts import PromptSettings, keep_components
from nnunet_limited.pseudo_labels.atlas import Atlas, carry

SOURCES = "nnunet_limited.label_sources"


@dataclass(frozen=True)
class Scan:
    """A preprocessed case: its image (channels, *spatial) on the network's grid and the spacing of that."""

    case: str
    image: np.ndarray
    spacing: tuple[float, ...]


@dataclass(frozen=True)
class Labeled:
    """A labelled scan with its label as probabilities (c, *spatial), NaN where it is not annotated."""

    scan: Scan
    classes: np.ndarray


@dataclass(frozen=True)
class Opinion:
    """Probabilities (c, *spatial), NaN where the source says nothing; how much it trusts itself, in [0, 1] or None.

    The first channel is the background, but with overlapping regions, where there is none.
    """

    probability: np.ndarray
    reliability: float | None = None
    about: dict[str, Any] = field(default_factory=dict)


class LabelSource(Protocol):
    """One that says where the classes of a scan are. ``guess`` is what the sources before it say, on average."""

    about: About

    def __call__(self, scan: Scan, guess: np.ndarray | None) -> Opinion:
        """Return its opinion of a scan; must not know the scan's label."""
        ...


class SourceSettings(PromptSettings):
    """How the sources are asked: promptable models, and what becomes of the guess that they are shown."""

    clean: float = Field(
        default=0.1, ge=0, le=1, description="parts of a class smaller than this share of its largest are dropped"
    )


@dataclass(frozen=True)
class Given:
    """What a source may use: the labelled scans of the fold, the device, and the rest that it is told."""

    labeled: Sequence[Labeled]
    regions: bool
    device: str
    settings: SourceSettings


def foreground(probability: np.ndarray, regions: bool) -> np.ndarray:
    """Return the hard masks of the foreground classes or regions of probabilities (c, *spatial)."""
    if regions:
        return probability > 0.5
    label = probability.argmax(0)
    return np.stack([label == c for c in range(1, len(probability))])


def cleaned(probability: np.ndarray, regions: bool, share: float) -> np.ndarray:
    """Return probabilities (c, *spatial) in which small parts of a class, by its hard label, are background."""
    if not share:
        return probability
    made = probability.copy()
    for c, hard in enumerate(foreground(probability, regions), 0 if regions else 1):
        dropped = hard & ~keep_components(hard, share)
        if not regions:
            made[0][dropped] += made[c][dropped]
        made[c][dropped] = 0
    return made


class AtlasSource:
    """The labelled cases, registered to the scan; one is never its own atlas."""

    def __init__(self, given: Given) -> None:
        """Refuse labels that are not complete."""
        self.about = About("atlas", code_licence="Apache-2.0 (SimpleITK)")
        self.labeled = given.labeled
        for one in given.labeled:
            if np.isnan(one.classes).any():
                raise LimitedError(
                    f"atlas: case {one.scan.case!r} is annotated in part only and cannot be carried over; leave atlas "
                    "out of --sources"
                )

    def __call__(self, scan: Scan, guess: np.ndarray | None) -> Opinion:
        """Return what the other labelled cases say."""
        others = [Atlas(one.scan.image[0], one.classes, one.scan.spacing) for one in self.labeled
                  if one.scan.case != scan.case]  # fmt: skip
        if not others:
            shape = (len(self.labeled[0].classes) if self.labeled else 1, *scan.image.shape[1:])
            return Opinion(np.full(shape, np.nan, np.float32))
        return Opinion(carry(scan.image[0], scan.spacing, others), about={"atlases": len(others)})


class PromptedSource:
    """A promptable model, which is shown what the sources before it guess. It never speaks of what nobody guessed."""

    def __init__(self, prompter: Prompter, given: Given) -> None:
        """Take the model and how to ask it."""
        self.prompter, self.regions, self.settings = prompter, given.regions, given.settings
        self.about = prompter.about

    def __call__(self, scan: Scan, guess: np.ndarray | None) -> Opinion:
        """Return its outlines of the guess; the same for the same scan."""
        if guess is None:
            raise LimitedError(
                "a promptable model needs a source before it that says where to look, e.g. student,atlas"
            )
        channel = self.settings.channel
        if channel >= len(scan.image):
            raise LimitedError(
                f"case {scan.case!r} has {len(scan.image)} channels, counted from 0; there is no {channel}"
            )
        shown = cleaned(guess, self.regions, self.settings.clean)
        foreground = shown if self.regions else shown[1:]
        rng = np.random.default_rng(list(hashlib.sha256(scan.case.encode()).digest()[:8]))
        made = outline(self.prompter, scan.image[channel], foreground, scan.spacing, self.settings, rng)
        probability = with_background(made.probability, self.regions)
        about = {"embeddings": made.embeddings, "prompts": made.prompts}
        return Opinion(probability, made.stability, about)


def prompter_of(spec: str, device: str, accepted: str | None) -> Prompter | None:
    """Return the promptable model that ``spec`` names; None if it names a source of another kind."""
    own = {entry.name for entry in entry_points(group=SOURCES)}
    kind, _, name = spec.partition(":")
    if spec in ("student", "atlas", *own):
        return None
    built_in = kind in BUILT_IN or kind in {entry.name for entry in entry_points(group=GROUP)}
    if not built_in and getattr(load_factory(kind, name, spec), "is_label_source", False):
        return None
    return find_prompter(spec, device, accepted)


def find_source(spec: str, given: Given) -> LabelSource:
    """Return the source that ``spec`` names: atlas, an entry point or ``module:factory``.

    Entry points of the group ``nnunet_limited.label_sources`` and factories with the attribute ``is_label_source`` are
    functions of :class:`Given`.
    """
    if spec == "atlas":
        return AtlasSource(given)
    own = {entry.name: entry for entry in entry_points(group=SOURCES)}
    module, _, name = spec.partition(":")
    made: LabelSource = (own[spec].load() if spec in own else load_factory(module, name, spec))(given)
    return made


def check_sources(specs: Sequence[str]) -> None:
    """Refuse a list of sources that cannot work, before anything is loaded."""
    if len(set(specs)) != len(specs):
        raise LimitedError(f"--sources {','.join(specs)}: a source is there twice; give each once")
    own, prompters = ([entry.name for entry in entry_points(group=group)] for group in (SOURCES, GROUP))
    for number, spec in enumerate(specs):
        kind, colon, rest = spec.partition(":")
        prompted = kind in (*BUILT_IN, *prompters)
        if prompted and not number:
            raise LimitedError(f"--sources begins with {spec!r}, which has to be shown a guess; begin with student")
        if kind in BUILT_IN and not rest:
            raise LimitedError(f"--sources: {spec!r} names no weights; write {kind}:{BUILT_IN[kind][2]}")
        if spec not in ("student", "atlas", *own) and not prompted and not (colon and rest.isidentifier()):
            raise LimitedError(
                f"--sources: {spec!r} is none; give student, atlas, sam:FOLDER, tiny-vit:FILE.pt, "
                "nninteractive:FOLDER or module:factory"
            )


def load_labeled(
    folder: Path, cases: Sequence[str], manager: Any, spacing_of: Callable[[Any], Sequence[float]]
) -> list[Labeled]:
    """Return the labelled ``cases`` that are preprocessed in ``folder``; ``manager`` is the host's label manager."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    dataset, made = nnUNetDatasetBlosc2(str(folder), list(cases)), []
    for case in cases:
        data, label, _, properties = dataset.load_case(case)
        scan = Scan(case, np.asarray(data[:]), tuple(spacing_of(properties)))
        made.append(Labeled(scan, label_classes(np.asarray(label[:])[0], manager)))
    return made


def label_classes(label: np.ndarray, manager: Any) -> np.ndarray:
    """Return a label (*spatial) of the host as probabilities (c, *spatial), NaN where it is ignored."""
    label = np.maximum(label, 0)  # outside of the image is background
    values = manager.foreground_regions if manager.has_regions else manager.all_labels
    made = np.stack([np.isin(label, value) for value in values]).astype(np.float32)
    if manager.has_ignore_label:
        made[:, label == manager.ignore_label] = np.nan
    return made
