"""Pseudo-labels from several sources: their mean, left open where they differ and are not sure."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_limited.data.pseudo_label_store import PseudoLabels
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.grid import from_network, network_spacing, to_network
from nnunet_limited.host.plans import plans_manager
from nnunet_limited.host.predict import to_scan
from nnunet_limited.planners.preprocessing import require_preprocessed
from nnunet_limited.prompters.outlining import coarsest_axis
from nnunet_limited.prompters.prompter import ModelCard, Prompter
from nnunet_limited.pseudo_labels.fusion import Fused, Trust, calibrate, fuse
from nnunet_limited.pseudo_labels.model import ModelSource, Said, dice
from nnunet_limited.pseudo_labels.sources import (
    BoxSource,
    Given,
    LabelSource,
    Opinion,
    PromptedSource,
    Scan,
    SourceSettings,
    ToNetwork,
    check_sources,
    cleaned,
    find_source,
    foreground,
    foreground_classes,
    load_labeled,
    prompter_of,
    refuse_partial,
    votes,
)
from nnunet_limited.report.overlays import show_image, show_labels
from nnunet_limited.runs.predict import Predictor, to_logits, trained
from nnunet_limited.runs.request import TrainRequest
from nnunet_limited.splits import Split
from nnunet_limited.util.files import content_hash, file_hash, read_object, replacing, write_json

CALIBRATION = "calibration.json"
JUDGED = 8  # labelled cases that sources are calibrated on at the most, which are held in memory


class Student:
    """The models of some folds. A labelled case is predicted by a fold that has not learnt it, nor what others hide."""

    def __init__(
        self,
        model: TrainRequest,
        folds: Sequence[int | str],
        split: Split,
        regions: bool,
        settings: SourceSettings,
        device: str,
    ) -> None:
        """Load the models of ``folds``; those of others when they are needed."""
        results = model.results
        self.about, self.model = ModelCard(f"student {results.name}"), model
        self.results, self.split, self.regions, self.settings, self.device = results, split, regions, settings, device
        self.known = {case for fold in folds for case in split.fold(fold).train}
        self.predictors: dict[int | None, Predictor] = {None: Predictor(results, list(folds), device)}

    def fold_apart(self, case: str) -> int | None:
        """Return a fold whose model has learnt labels of this set only, and not that of ``case``; None without one."""
        for number, fold in enumerate(self.split.folds):
            learnt = set(fold.train)
            if case not in learnt and learnt <= self.known:
                try:
                    trained(self.model, self.split, [number])
                except LimitedError:  # not there, or of another split or other plans
                    continue
                return number
        return None

    def __call__(self, scan: Scan, guess: np.ndarray | None) -> Opinion:
        """Return what the models predict, without small parts; its reliability is the agreement of several models."""
        fold = None
        if scan.case in self.known:
            fold = self.fold_apart(scan.case)
            if fold is None:
                channels = self.predictors[None].host.label_manager.num_segmentation_heads
                return Opinion(np.full((channels, *scan.image.shape[1:]), np.nan, np.float32))
        if fold is not None and fold not in self.predictors:
            self.predictors[fold] = Predictor(self.results, [fold], self.device)
        probability, members = self.predictors[fold].mean(scan.image)
        hard = [p > 0.5 if self.regions else p.argmax(0) for p in (probability, *members)]
        agreed = float(np.mean([dice(hard[0], other) for other in hard[1:]])) if members else None
        return Opinion(cleaned(probability, self.regions, self.settings.clean), agreed)


@dataclass(frozen=True)
class Consensus(ModelSource):
    """Several sources in place of the model alone. Each fold uses its own labelled cases and model."""

    sources: tuple[str, ...] = ("student", "atlas")
    settings: SourceSettings = field(default_factory=SourceSettings)
    accepted: str | None = None
    device: str = "cpu"
    asks_sources = True

    def check_sources(self, folds: Sequence[int | str]) -> None:
        """Refuse sources that cannot work; promptable models are loaded to see whether they can be."""
        check_sources(self.sources)
        if "atlas" in self.sources and self.model.planned.description.ignore is not None:
            planned = self.model.planned
            split = planned.split
            labeled = sorted({case for fold in folds for case in split.fold(fold).train})
            refuse_partial(labeled, planned.cases(self.model.configuration).labeled, planned.dataset_json)
        channels = self.model.planned.description.num_channels
        if self.settings.channel >= channels:
            raise LimitedError(
                f"--ask channel={self.settings.channel}: the images have {channels} channels, counted from 0; give "
                "another one"
            )
        for spec in self.sources:
            if spec.startswith("boxes:"):
                box_source(spec, self.model.planned.dataset_json, lambda mask, scan: mask)
        # On the CPU, for the models that are trained before may need the whole GPU.
        on_cpu = self if self.device == "cpu" else replace(self, device="cpu")
        for number, (spec, prompter) in enumerate(on_cpu.prompters.items()):
            if prompter is not None:
                self.settings.of(prompter.prompts)
                if not number:
                    raise LimitedError(
                        f"--sources begins with {spec!r}, which has to be shown a guess; begin with student"
                    )

    @cached_property
    def prompters(self) -> dict[str, Prompter | None]:
        """The promptable models among the sources, by what names them; None for other sources."""
        return {spec: prompter_of(spec, self.device, self.accepted) for spec in self.sources}

    def checkpoints(self, split: Split, members: Sequence[int | str]) -> dict[str, str]:
        """Return the hash of each member's checkpoint if the student is one of the sources."""
        return super().checkpoints(split, members) if "student" in self.sources else {}

    def further_origin(self, cases: Sequence[str]) -> dict[str, Any]:
        """Return the sources, how they are asked, and the hash of the labels that they may know."""
        about = {spec: prompter.about.record() for spec, prompter in self.prompters.items() if prompter is not None}
        settings = self.settings.model_dump(mode="json")
        boxes = {spec: file_hash(Path(spec.partition(":")[2])) for spec in self.sources if spec.startswith("boxes:")}
        folder = self.model.planned.cases(self.model.configuration).labeled
        require_preprocessed(folder, cases, "labelled", "run 'nnunet-limited plan'")
        labels = content_hash({case: file_hash(folder / f"{case}_seg.b2nd") for case in cases})
        told = {"sources": list(self.sources), "settings": settings, "prompters": about, "boxes": boxes}
        return {"source": "consensus", **told, "labels": labels}

    def told(self, labels: PseudoLabels) -> list[str]:
        """Return what the labelled cases have taught, and whose models were asked."""
        found = read_object(labels.folder / CALIBRATION, "calibration", "delete its folder")
        names = list(self.model.planned.description.foreground)
        where, need = labels.folder.name, f"a slice counts from an agreement of {found['agreement']:g}"
        if found["dice"]:
            dice = ", ".join(
                f"{name} {np.mean([v for v in values if v is not None]):.3f}"
                for name, values in found["dice"].items()
                if any(v is not None for v in values)
            )
            lines = [f"{where}: on {found['cases']} labelled cases the mean Dice is {dice}; {need}"]
        else:
            lines = [f"{where}: fewer than two labelled cases could be judged by what has not learnt them; {need}"]
        first = 0 if self.model.planned.description.has_regions else 1  # without the background
        for source, channels in found["left_out"].items():
            classes = ", ".join(names[channel - first] for channel in channels)
            lines.append(f"{where}: {source} is left out for {classes}, where it hurt")
        return lines + [str(ModelCard(**about)) for about in labels.origin["prompters"].values()]

    def labeller(
        self, labels: PseudoLabels, split: Split, plans: dict[str, Any], device: str
    ) -> Callable[[str, np.ndarray, dict[str, Any]], Said]:
        """Return the function that asks the sources; they are calibrated first."""
        manager = plans_manager(plans)
        panel = _Panel(self, manager, labels, split, plans, device)
        trust = panel.trust(labels.folder / CALIBRATION, labels.hash)

        def label_case(case: str, image: np.ndarray, properties: dict[str, Any]) -> Said:
            begin = time.perf_counter()
            scan = panel.scan(case, image, properties)
            opinions, seconds = panel.ask(scan)
            axis = coarsest_axis(scan.image.shape[1:], scan.spacing)
            heard = panel.votes(opinions)
            fused = fuse(heard, trust, panel.regions, axis)
            logits = to_logits(torch.from_numpy(fused.probability), panel.regions)
            label, probability = to_scan(logits, properties, manager, panel.configuration, panel.manager)
            sure = np.maximum(probability, 1 - probability).min(0) if panel.regions else probability.max(0)
            kept = from_network(fused.kept, properties, manager, True)
            picture(labels.folder / "pictures" / f"{case}.png", scan, fused, panel.regions, axis)
            first, across = 0 if panel.regions else 1, (0, *(a + 1 for a in range(3) if a != axis))
            seen = np.any([(p[first:] > 0.5).any(across) for p in heard.values()], axis=0)
            agreed = float(fused.agreement[seen].mean()) if seen.any() else 1.0
            about = {
                "coverage": round(float(kept.mean()), 4),
                "foreground_coverage": round(float(kept[label > 0].mean()), 4) if (label > 0).any() else None,
                "agreement": round(agreed, 4),
                "seconds": {**seconds, "total": round(time.perf_counter() - begin, 2)},
                "sources": {name: {"reliability": _number(o.reliability), **o.about} for name, o in opinions.items()},
            }
            return Said(label, np.where(kept, sure, 0.0), agreed, about)

        return label_case


class _Panel:
    """The sources of one set of pseudo-labels."""

    def __init__(
        self, wanted: Consensus, manager: Any, labels: PseudoLabels, split: Split, plans: dict[str, Any], device: str
    ) -> None:
        self.configuration = manager.get_configuration(wanted.model.configuration)
        self.plans_manager = manager
        self.manager = manager.get_label_manager(wanted.model.planned.dataset_json)
        self.regions = bool(self.manager.has_regions)
        folds = labels.origin["folds"]
        cases = sorted({case for fold in folds for case in split.fold(fold).train})
        folder = wanted.model.planned.cases(wanted.model.configuration).labeled
        require_preprocessed(folder, cases, "labelled", "run 'nnunet-limited plan'")
        self.labeled = load_labeled(folder, cases, self.manager, self.scan)
        given = Given(self.labeled, self.regions, device, wanted.settings, folder.parent / "registrations")
        self.sources: dict[str, LabelSource] = {}
        for spec, prompter in wanted.prompters.items():
            if prompter is not None:
                self.sources[spec] = PromptedSource(prompter, given)
            elif spec.startswith("boxes:"):
                self.sources[spec] = box_source(spec, wanted.model.planned.dataset_json, self.bring)
            elif spec == "student":
                self.sources[spec] = Student(wanted.model, folds, split, self.regions, wanted.settings, device)
            else:
                self.sources[spec] = find_source(spec, given)

    def spacing(self, properties: dict[str, Any]) -> tuple[float, ...]:
        """Return the spacing of a preprocessed case."""
        return tuple(float(s) for s in network_spacing(properties, self.plans_manager, self.configuration))

    def ask(self, scan: Scan) -> tuple[dict[str, Opinion], dict[str, float]]:
        """Return what each source says of a scan, and the seconds that it took."""
        said: dict[str, Opinion] = {}
        seconds = {}
        for name, source in self.sources.items():
            begin = time.perf_counter()
            heard = {k: p for k, p in self.votes(said).items() if np.isfinite(p).any()}
            guess = fuse(heard, Trust(), self.regions, 0).probability if heard else None
            hints = [o.probability for k, o in said.items() if k not in heard and np.isfinite(o.probability).any()]
            if hints and isinstance(source, PromptedSource):
                said[name] = source.within(scan, hints[0])
            elif guess is None and isinstance(source, PromptedSource):  # nobody can tell it where to look
                said[name] = self.silence(scan)
            else:
                said[name] = self.checked(name, source(scan, guess), scan)
            seconds[name] = round(time.perf_counter() - begin, 2)
        return said, seconds

    def checked(self, name: str, opinion: Opinion, scan: Scan) -> Opinion:
        """Return the opinion of a source; refuse one that is not on the grid of its scan."""
        shape = np.shape(opinion.probability)
        count = self.manager.num_segmentation_heads
        if not getattr(self.sources[name], "is_hint", False) and shape != (count, *scan.image.shape[1:]):
            raise LimitedError(
                f"--sources {name}: its opinion of {scan.case!r} is of shape {shape}, not of "
                f"{(count, *scan.image.shape[1:])}; correct it, or leave it out"
            )
        return opinion

    def votes(self, said: dict[str, Opinion]) -> dict[str, np.ndarray]:
        """Return the probabilities of the sources that have an opinion, and not just hints where to look."""
        return votes({k: o for k, o in said.items() if not getattr(self.sources[k], "is_hint", False)})

    def silence(self, scan: Scan) -> Opinion:
        """Return the opinion of one that knows nothing."""
        return Opinion(np.full((self.manager.num_segmentation_heads, *scan.image.shape[1:]), np.nan, np.float32))

    def bring(self, mask: np.ndarray, scan: Scan) -> np.ndarray:
        """Return a mask of a scan on the network's grid."""
        shape = scan.image.shape[1:]
        return to_network(mask[None], scan.properties, shape, self.plans_manager, self.configuration)[0]

    def scan(self, case: str, image: np.ndarray, properties: dict[str, Any]) -> Scan:
        """Return a preprocessed case as the sources see it."""
        shape = [int(properties["shape_before_cropping"][axis]) for axis in self.plans_manager.transpose_backward]
        return Scan(case, image, self.spacing(properties), tuple(shape), properties)

    def trust(self, file: Path, origin: str) -> Trust:
        """Return what the labelled cases teach of the sources, from ``file`` if it is of the same ``origin``."""
        found = read_object(file, "calibration", "delete its folder") if file.is_file() else {}
        if found.get("origin") == origin:
            left_out = {name: tuple(channels) for name, channels in found["left_out"].items()}
            return Trust(found["agreement"], left_out, found["dice"], found["cases"])
        heard = []
        for one in self.labeled[:JUDGED] if len(self.labeled) > 1 else ():
            opinions, _ = self.ask(one.scan)
            heard.append((one, {name: p for name, p in self.votes(opinions).items() if np.isfinite(p).any()}))
        spoken = [name for _, speak in heard for name in speak]
        judged = [name for name in self.sources if spoken.count(name) > 1]
        told = [(one, {name: speak[name] for name in judged}) for one, speak in heard if speak.keys() >= set(judged)]
        axes = [coarsest_axis(one.scan.image.shape[1:], one.scan.spacing) for one, _ in told]
        voters = [name for name, source in self.sources.items() if not getattr(source, "is_hint", False)]
        cases = [(one.classes, speak) for one, speak in told] if judged else []
        prompted = [name for name, source in self.sources.items() if isinstance(source, PromptedSource)]
        made = calibrate(cases, self.regions, axes, judged == voters, prompted)
        write_json(file, {"origin": origin, **made.record()})
        return made


def box_source(spec: str, dataset_json: dict[str, Any], to_network: ToNetwork) -> BoxSource:
    """Return the boxes of a file that people have drawn."""
    return BoxSource(Path(spec.partition(":")[2]), foreground_classes(dataset_json), to_network)


def _number(value: Any) -> float | None:
    return None if value is None else round(float(value), 4)


def picture(file: Path, scan: Scan, fused: Fused, regions: bool, axis: int) -> None:
    """Draw the slice with the most foreground: image, fused label, and hatched what is left open."""
    from matplotlib.figure import Figure

    classes = foreground(fused.probability, regions)
    index = int(classes.any(0).sum(tuple(a for a in range(3) if a != axis)).argmax())
    plane = np.take(scan.image[0], index, axis)
    label = np.zeros(plane.shape, int)
    for number, mask in enumerate(classes, 1):
        label[np.take(mask, index, axis)] = number
    rows, columns = (s for a, s in enumerate(scan.spacing) if a != axis)
    figure = Figure(figsize=(8, 4), layout="constrained")
    for axes, title in zip(figure.subplots(1, 2), ("image", "pseudo-label; hatched: left open"), strict=True):
        show_image(axes, plane, rows / columns)
        axes.set_title(title, fontsize=9)
    show_labels(axes, label, {str(number): [number] for number in range(1, len(classes) + 1)})
    open_ = ~np.take(fused.kept, index, axis)
    if open_.any() and not open_.all():
        axes.contourf(open_.astype(float), levels=[0.5, 1.5], colors="none", hatches=["////"])
    with replacing(file) as temporary:
        figure.savefig(temporary, format="png", dpi=80)
