"""Several sources label together: their mean, left open where they disagree and are not confident."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_limited.data.pseudo_label_store import PseudoLabels
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.cases import from_network, network_spacing
from nnunet_limited.host.plans import label_space
from nnunet_limited.host.predict import to_scan
from nnunet_limited.prompters.outlining import coarsest_axis
from nnunet_limited.prompters.prompter import ModelCard, Prompter, find_prompter
from nnunet_limited.pseudo_labels.calibration import calibrate
from nnunet_limited.pseudo_labels.fusion import Calibration, fuse, votes
from nnunet_limited.pseudo_labels.job import LabelCase, ModelLabeller, PseudoLabel
from nnunet_limited.pseudo_labels.sources.base import (
    LabeledScan,
    LabelSource,
    Scan,
    SourceContext,
    SourcePrediction,
    SourceSettings,
    labeled_dataset,
)
from nnunet_limited.pseudo_labels.sources.prompted import PromptedSource
from nnunet_limited.pseudo_labels.spec import SourceSpec, prompter_first
from nnunet_limited.report.overlays import draw_slice
from nnunet_limited.util.files import content_hash, file_hash, read_object, write_json

CALIBRATION = "calibration.json"
MAX_CASES = 8  # labelled cases to calibrate on, which are held in memory


@dataclass(frozen=True)
class EnsembleLabeller(ModelLabeller):
    """Several sources in place of the model alone. Each fold uses its own labelled cases and model."""

    sources: tuple[SourceSpec, ...]
    settings: SourceSettings = field(default_factory=SourceSettings)
    accept_licence: str | None = None
    device: str = "cpu"
    uses_sources = True

    def check(self, folds: Sequence[int | str]) -> None:
        """Raise LimitedError for sources that cannot work; promptable models are loaded to check them."""
        for spec in self.sources:
            spec.check(self.model, folds)
        self.settings.check_channel(self.model.planned.description.num_channels)
        # On the CPU: the models that are trained before may need the whole GPU.
        on_cpu = self if self.device == "cpu" else replace(self, device="cpu")
        for spec, prompter in on_cpu.prompters.items():
            self.settings.kind_for(prompter.prompts)
            if spec == self.sources[0]:
                raise prompter_first(spec)

    @cached_property
    def prompters(self) -> dict[SourceSpec, Prompter]:
        """The promptable models among the sources."""
        return {s: find_prompter(s.text, self.device, self.accept_licence) for s in self.sources if s.is_prompter}

    def checkpoints(self, folds: Sequence[int | str]) -> dict[str, str]:
        """Return the hash of the checkpoint of each fold if the student is one of the sources."""
        return super().checkpoints(folds) if "student" in [spec.text for spec in self.sources] else {}

    def origin(self, folds: Sequence[int | str]) -> dict[str, Any]:
        """Return the sources, their settings, and a hash of the labels that they may know."""
        labeled = labeled_dataset(self.model, folds)
        labels = {case: file_hash(Path(labeled.source_folder, f"{case}_seg.b2nd")) for case in labeled.identifiers}
        return {
            "source": "consensus",
            "sources": [spec.text for spec in self.sources],
            "settings": self.settings.record(),
            "prompters": {spec.text: asdict(prompter.about) for spec, prompter in self.prompters.items()},
            "boxes": {spec.text: file_hash(spec.file) for spec in self.sources if spec.file},
            "labels": content_hash(labels),
        }

    def summary_lines(self, labels: PseudoLabels) -> list[str]:
        """Return the calibration on labelled cases, and the licences of the promptable models."""
        found = Calibration.of_record(read_object(labels.folder / CALIBRATION, "calibration", "delete its folder"))
        where, need = labels.folder.name, f"a slice counts from an agreement of {found.min_agreement:g}"
        lines = [f"{where}: fewer than two labelled cases are new to their sources, so none is judged; {need}"]
        if found.dice:
            known = {name: [v for v in values if v is not None] for name, values in found.dice.items()}
            dice = ", ".join(f"{name} {np.mean(values):.3f}" for name, values in known.items() if values)
            lines = [f"{where}: on {found.cases} labelled cases the mean Dice is {dice}; {need}"]
        names = list(self.model.planned.description.foreground)
        first = label_space(self.model.planned.label_manager).first_foreground
        for source, channels in found.left_out.items():
            classes = ", ".join(names[channel - first] for channel in channels)
            lines.append(f"{where}: {source} is left out for {classes}, where it lowers the Dice")
        return lines + [str(ModelCard(**about)) for about in labels.origin["prompters"].values()]

    def load(self, labels: PseudoLabels, device: str) -> LabelCase:
        """Return the function that labels a case with all sources; they are calibrated first."""
        ensemble = SourceEnsemble(self, labels, device)
        calibration = ensemble.calibrate(labels.folder / CALIBRATION, labels.hash)

        def label_case(case: str, image: np.ndarray, properties: dict[str, Any]) -> PseudoLabel:
            begin = time.perf_counter()
            scan = ensemble.scan(case, image, properties)
            predictions, seconds = ensemble.predict(scan)
            made = ensemble.fuse(scan, predictions, calibration, labels.folder / "pictures" / f"{case}.png")
            made.about["seconds"] = {**seconds, "total": round(time.perf_counter() - begin, 2)}
            return made

        return label_case


class SourceEnsemble:
    """The sources of one set of pseudo-labels, with the labelled scans that they may use."""

    def __init__(self, labeller: EnsembleLabeller, labels: PseudoLabels, device: str) -> None:
        """Load the labelled scans of the set's folds, and the sources."""
        model, planned, folds = labeller.model, labeller.model.planned, tuple(labels.origin["folds"])
        self.plans_manager, self.configuration = planned.managers(model.configuration)
        self.label_manager = planned.label_manager
        self.labels = label_space(self.label_manager)
        dataset = labeled_dataset(model, folds)
        self.labeled = []
        for case in dataset.identifiers:
            data, label, _, properties = dataset.load_case(case)
            scan = self.scan(case, np.asarray(data[:]), properties)
            self.labeled.append(LabeledScan(scan, self.labels.encode_case(np.asarray(label[:])[0])))
        registrations = Path(dataset.source_folder).parent / "registrations"
        context = SourceContext(self.labeled, self.labels, device, labeller.settings, registrations, model, folds)
        self.hints = {spec.text for spec in labeller.sources if spec.kind.is_hint}
        self.sources: dict[str, LabelSource] = {
            spec.text: PromptedSource(labeller.prompters[spec], context)
            if spec in labeller.prompters
            else spec.load(context)
            for spec in labeller.sources
        }

    def scan(self, case: str, image: np.ndarray, properties: dict[str, Any]) -> Scan:
        """Return a preprocessed case as the sources see it."""
        shape = [int(properties["shape_before_cropping"][axis]) for axis in self.plans_manager.transpose_backward]
        spacing = (float(s) for s in network_spacing(properties, self.plans_manager, self.configuration))
        return Scan(case, image, tuple(spacing), tuple(shape), properties)

    def predict(self, scan: Scan) -> tuple[dict[str, SourcePrediction], dict[str, float]]:
        """Return the prediction of each source for a scan, and the seconds that each took."""
        predictions: dict[str, SourcePrediction] = {}
        seconds = {}
        for name, source in self.sources.items():
            begin = time.perf_counter()
            valid = self._valid_votes(predictions)
            guess = fuse(valid, self.labels, 0).probability if valid else None
            hints = [p for k in self.hints & predictions.keys() if np.isfinite(p := predictions[k].probability).any()]
            if hints and isinstance(source, PromptedSource):
                predictions[name] = source.within(scan, hints[0])
            elif guess is None and isinstance(source, PromptedSource):
                predictions[name] = SourcePrediction.nothing(self.labels.channels, scan)
            else:
                predictions[name] = made = source(scan, guess)
                shape, expected = np.shape(made.probability), (self.labels.channels, *scan.image.shape[1:])
                if name not in self.hints and shape != expected:
                    raise LimitedError(
                        f"--sources {name}: its prediction of {scan.case!r} has the shape {shape}, not {expected}; "
                        "correct or remove the source"
                    )
            seconds[name] = round(time.perf_counter() - begin, 2)
        return predictions, seconds

    def _votes(self, predictions: dict[str, SourcePrediction]) -> dict[str, np.ndarray]:
        """Return the probabilities of the sources that vote, which hints do not."""
        return votes({k: p for k, p in predictions.items() if k not in self.hints}, self.labels)

    def _valid_votes(self, predictions: dict[str, SourcePrediction]) -> dict[str, np.ndarray]:
        return {name: p for name, p in self._votes(predictions).items() if np.isfinite(p).any()}

    def fuse(
        self, scan: Scan, predictions: dict[str, SourcePrediction], calibration: Calibration, picture: Path
    ) -> PseudoLabel:
        """Return the label of all sources on the grid of the scan, and draw its slice with the most foreground."""
        probabilities, axis = self._votes(predictions), coarsest_axis(scan.image.shape[1:], scan.spacing)
        fused = fuse(probabilities, self.labels, axis, calibration)
        logits = self.labels.to_logits(torch.from_numpy(fused.probability))
        managers = self.plans_manager, self.configuration, self.label_manager
        label, probability = to_scan(logits, scan.properties, *managers)
        valid = from_network(fused.valid, scan.properties, self.plans_manager, True)
        confidence = np.where(valid, self.labels.case_confidence(probability), 0.0)
        masks = self.labels.foreground_masks(fused.probability)
        panels = {"image": None, "pseudo-label; hatched: left open": masks}
        draw_slice(picture, scan.image[0], scan.spacing, axis, masks, panels, (8, 4), 80, ~fused.valid)
        first, across = self.labels.first_foreground, (0, *(a + 1 for a in range(3) if a != axis))
        seen = np.any([(p[first:] > 0.5).any(across) for p in probabilities.values()], axis=0)
        agreement = float(fused.agreement[seen].mean()) if seen.any() else None
        classes = [any((p[c] > 0.5).any() for p in probabilities.values()) for c in range(first, self.labels.channels)]
        about = {
            "coverage": round(float(valid.mean()), 4),
            "foreground_coverage": round(float(valid[label > 0].mean()), 4) if (label > 0).any() else None,
            "agreement": None if agreement is None else round(agreement, 4),
            "sources": {
                name: {"reliability": None if p.reliability is None else round(float(p.reliability), 4), **p.about}
                for name, p in predictions.items()
            },
        }
        return PseudoLabel(label, confidence, np.where(classes, agreement or 0.0, np.nan), about)

    def calibrate(self, file: Path, origin: str) -> Calibration:
        """Return the calibration on labelled cases, from ``file`` if it is of the same ``origin``."""
        record = read_object(file, "calibration", "delete its folder") if file.is_file() else {}
        if record.get("origin") == origin:
            return Calibration.of_record(record)
        scans = self.labeled[:MAX_CASES] if len(self.labeled) > 1 else []
        cases = [(one, self._valid_votes(self.predict(one.scan)[0])) for one in scans]
        counts = Counter(name for _, predictions in cases for name in predictions)
        judged = [name for name in self.sources if counts[name] > 1]
        cases = [(one, {name: p[name] for name in judged}) for one, p in cases if judged and p.keys() >= set(judged)]
        axes = [coarsest_axis(one.scan.image.shape[1:], one.scan.spacing) for one, _ in cases]
        dependent = [name for name, source in self.sources.items() if isinstance(source, PromptedSource)]
        truths = [(one.classes, predictions) for one, predictions in cases]
        made = calibrate(truths, self.labels, axes, set(judged) == self.sources.keys() - self.hints, dependent)
        write_json(file, {"origin": origin, **made.record()})
        return made
