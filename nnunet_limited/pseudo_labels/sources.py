"""What may say where the organs of a scan are: a trained model, atlases, a promptable model, and sources of users."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import Field

from nnunet_limited.annotations.importers.boxes import BOX_COLUMNS
from nnunet_limited.annotations.importers.tables import read_table
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.cases import PreprocessedCases
from nnunet_limited.planners.preprocessing import require_preprocessed
from nnunet_limited.prompters.outlining import outline, with_background
from nnunet_limited.prompters.prompter import BUILT_IN, GROUP, ModelCard, Prompter, find_prompter, load_factory
from nnunet_limited.prompters.prompts import PromptSettings, keep_components
from nnunet_limited.pseudo_labels.atlas import Atlas, carry

SOURCES = "nnunet_limited.label_sources"
ToNetwork = Callable[[np.ndarray, "Scan"], np.ndarray]


@dataclass(frozen=True)
class Scan:
    """A preprocessed case: its image (channels, *spatial) on the network's grid and the spacing of that.

    ``shape`` is that of the scan before preprocessing, ``properties`` what nnU-Net knows of it.
    """

    case: str
    image: np.ndarray
    spacing: tuple[float, ...]
    shape: tuple[int, ...] = ()
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Labeled:
    """A labelled scan with its label as probabilities (c, *spatial), NaN where it is not annotated."""

    scan: Scan
    classes: np.ndarray


@dataclass(frozen=True)
class Opinion:
    """Probabilities (c, *spatial), NaN where the source says nothing; how much it trusts itself, in [0, 1] or None.

    The first channel is the background, but with overlapping regions, where there is none. ``unasked`` are the voxels
    (foreground classes, *spatial) of classes that it was not asked about, so that its background says nothing there;
    None if there are none, and with regions, which are NaN there themselves.
    """

    probability: np.ndarray
    reliability: float | None = None
    about: dict[str, Any] = field(default_factory=dict)
    unasked: np.ndarray | None = None


class LabelSource(Protocol):
    """One that says where the classes of a scan are. ``guess`` is what the sources before it say, on average."""

    about: ModelCard

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
    """What a source may use: the labelled scans of the fold, the device, and the rest that it is told.

    ``registrations`` is the folder that keeps those of the dataset.
    """

    labeled: Sequence[Labeled]
    regions: bool
    device: str
    settings: SourceSettings
    registrations: Path | None = None


def foreground_classes(dataset_json: dict[str, Any]) -> dict[str, Any]:
    """Return the values of the foreground classes or regions by name, in the order of the host's channels."""
    named = {name: value for name, value in dataset_json["labels"].items() if name not in ("background", "ignore")}
    return named if dataset_json.get("regions_class_order") else dict(sorted(named.items(), key=lambda one: one[1]))


def foreground(probability: np.ndarray, regions: bool) -> np.ndarray:
    """Return the hard masks of the foreground classes or regions of probabilities (c, *spatial)."""
    if regions:
        return probability > 0.5
    label = probability.argmax(0)
    return np.stack([label == c for c in range(1, len(probability))])


def votes(opinions: Mapping[str, Opinion]) -> dict[str, np.ndarray]:
    """Return the probabilities of opinions, NaN where another one sees a class that this one was not asked about."""
    made = {name: opinion.probability for name, opinion in opinions.items()}
    if all(opinion.unasked is None for opinion in opinions.values()):
        return made
    seen = {name: foreground(np.nan_to_num(p), regions=False) for name, p in made.items()}
    for name, opinion in opinions.items():
        others = [masks for other, masks in seen.items() if other != name]
        if opinion.unasked is not None and others:
            quiet = (np.any(others, axis=0) & opinion.unasked).any(0)
            made[name] = np.where(quiet, np.float32(np.nan), opinion.probability)
    return made


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


class BoxSource:
    """Boxes that people have drawn: no opinion of its own, but where the promptable models after it look.

    A scan without boxes is one that nothing is known of.
    """

    is_hint = True

    def __init__(self, file: Path, classes: dict[str, Any], to_network: ToNetwork) -> None:
        """Read a table with the columns case, class and x0 to z1, first and last voxel on the grid of the scan.

        ``classes`` are the foreground classes or regions in the order of their channels, with their values;
        ``to_network`` brings a mask of the scan onto the network's grid.
        """
        self.about, self.to_network, self.count = ModelCard(f"boxes of {file.name}"), to_network, len(classes)
        self.rows: dict[str, list[dict[str, Any]]] = {}
        for line, row in enumerate(read_table(file, BOX_COLUMNS), 1):
            given = str(row["class"])
            channels = [c for c, (name, values) in enumerate(classes.items())
                        if given == name or given in [str(v) for v in np.atleast_1d(values)]]  # fmt: skip
            if not channels:
                raise LimitedError(
                    f"{file}, row {line}: class {given!r} is none of {', '.join(classes)}; give a name or a value"
                )
            where = {"channels": channels, "where": f"{file}, row {line}"}
            self.rows.setdefault(str(row["case"]), []).append({**row, **where})

    def __call__(self, scan: Scan, guess: np.ndarray | None) -> Opinion:
        """Return 1 inside the boxes of each class, NaN everywhere for a scan without."""
        made = np.full((self.count, *scan.image.shape[1:]), np.nan, np.float32)
        rows = self.rows.get(scan.case, [])
        if not rows:
            return Opinion(made)
        masks = np.zeros((self.count, *scan.shape), np.int8)
        for row in rows:
            start, stop = (np.array([int(row[f"{axis}{end}"]) for axis in "zyx"]) for end in "01")
            if (start < 0).any() or (stop >= scan.shape).any() or (start > stop).any():
                raise LimitedError(
                    f"{row['where']}: the box from {start[::-1].tolist()} to {stop[::-1].tolist()} is not inside "
                    f"the scan of {list(scan.shape[::-1])} voxels, or its ends are swapped; correct it"
                )
            inside = tuple(slice(a, b + 1) for a, b in zip(start, stop, strict=True))
            for c in row["channels"]:
                masks[c][inside] = 1
        made[:] = [self.to_network(mask, scan) > 0 for mask in masks]
        return Opinion(made, about={"boxes": len(rows)})


class AtlasSource:
    """The labelled cases, registered to the scan; one is never its own atlas."""

    def __init__(self, given: Given) -> None:
        """Refuse labels that are not complete."""
        self.about = ModelCard("atlas", code_licence="Apache-2.0 (SimpleITK)")
        self.labeled, self.channel, self.known = given.labeled, given.settings.channel, given.registrations
        for one in given.labeled:
            if np.isnan(one.classes).any():
                raise partial(one.scan.case)

    def __call__(self, scan: Scan, guess: np.ndarray | None) -> Opinion:
        """Return what the other labelled cases say."""
        others = [one for one in self.labeled if one.scan.case != scan.case]
        if not others:
            shape = (len(self.labeled[0].classes) if self.labeled else 1, *scan.image.shape[1:])
            return Opinion(np.full(shape, np.nan, np.float32))
        shown = self.channel
        atlases = [Atlas(one.scan.image[shown], one.classes, one.scan.spacing) for one in others]
        made, seconds = carry(scan.image[shown], scan.spacing, atlases, self.known)
        return Opinion(made, about={"atlases": len(seconds), "registration_seconds": round(sum(seconds), 2)})


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
        shown = cleaned(guess, self.regions, self.settings.clean)
        return self.outline(scan, shown if self.regions else shown[1:], self.settings)

    def within(self, scan: Scan, boxes: np.ndarray) -> Opinion:
        """Return its outlines of what boxes of people enclose, masks (c, *spatial); all are meant, however small."""
        everything = {"kind": "box", "least_area": 1, "most_objects": boxes[0].size}
        return self.outline(scan, boxes, self.settings.model_copy(update=everything))

    def outline(self, scan: Scan, foreground: np.ndarray, settings: PromptSettings) -> Opinion:
        """Return its outlines of masks (c, *spatial) of the foreground classes."""
        rng = np.random.default_rng(list(hashlib.sha256(scan.case.encode()).digest()[:8]))
        made = outline(self.prompter, scan.image[settings.channel], foreground, scan.spacing, settings, rng)
        about = {"embeddings": made.embeddings, "prompts": made.prompts}
        unasked = None if self.regions else ~np.isfinite(made.probability)
        return Opinion(with_background(made.probability, self.regions), made.stability, about, unasked)


def prompter_of(spec: str, device: str, accepted: str | None) -> Prompter | None:
    """Return the promptable model that ``spec`` names; None if it names a source of another kind."""
    own = {entry.name for entry in entry_points(group=SOURCES)}
    kind, _, name = spec.partition(":")
    if spec in ("student", "atlas", *own) or kind == "boxes":
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
        if kind == "boxes" and not Path(rest).is_file():
            raise LimitedError(f"--sources: {spec!r} names no file that exists; write boxes:FILE.csv")
        known = spec in ("student", "atlas", *own) or kind == "boxes" or prompted
        if not known and not (colon and rest.isidentifier()):
            raise LimitedError(
                f"--sources: {spec!r} is none; give student, atlas, boxes:FILE.csv, sam:FOLDER, tiny-vit:FILE.pt, "
                "nninteractive:FOLDER or module:factory"
            )
    files = [spec for spec in specs if spec.startswith("boxes:")]
    if len(files) > 1:
        raise LimitedError(f"--sources {','.join(files)} are several files; give one with the boxes of all scans")
    if len(files) == len(specs):
        raise LimitedError(
            f"--sources {','.join(specs)}: boxes are shown to a promptable model; add one, e.g. sam:FOLDER"
        )


def load_labeled(folder: Path, cases: Sequence[str], manager: Any, scan_of: Callable[..., Scan]) -> list[Labeled]:
    """Return the labelled ``cases`` that are preprocessed in ``folder``; ``manager`` is the host's label manager.

    ``scan_of`` makes a scan of a case, its image and its properties.
    """
    dataset, made = PreprocessedCases(str(folder), list(cases)), []
    for case in cases:
        data, label, _, properties = dataset.load_case(case)
        scan = scan_of(case, np.asarray(data[:]), properties)
        made.append(Labeled(scan, label_classes(np.asarray(label[:])[0], manager)))
    return made


def refuse_partial(cases: Sequence[str], folder: Path, dataset_json: dict[str, Any]) -> None:
    """Refuse labelled ``cases``, preprocessed in ``folder``, of which a part is not annotated, for atlases."""
    require_preprocessed(folder, cases, "labelled", "run 'nnunet-limited plan'")
    dataset = PreprocessedCases(str(folder), list(cases))
    for case in cases:
        if (np.asarray(dataset.load_case(case)[1][:]) == dataset_json["labels"]["ignore"]).any():
            raise partial(case)


def partial(case: str) -> LimitedError:
    """Return the error to raise for an atlas that is not complete."""
    return LimitedError(
        f"atlas: case {case!r} is annotated in part only and cannot be carried over; leave atlas out of --sources"
    )


def label_classes(label: np.ndarray, manager: Any) -> np.ndarray:
    """Return a label (*spatial) of the host as probabilities (c, *spatial), NaN where it is ignored."""
    label = np.maximum(label, 0)  # outside of the image is background
    values = manager.foreground_regions if manager.has_regions else manager.all_labels
    made = np.stack([np.isin(label, value) for value in values]).astype(np.float32)
    if manager.has_ignore_label:
        made[:, label == manager.ignore_label] = np.nan
    return made
