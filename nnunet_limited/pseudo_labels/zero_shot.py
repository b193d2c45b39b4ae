"""How well does a promptable model do on a dataset, with which prompts? Asked of labelled cases.

The comparison of surveys (Mazurowski et al., MedIA 2023, arXiv 2304.10517) on the user's own scans.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_limited.datasets.raw import Case, RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.prompters.outlining import coarsest_axis, outline
from nnunet_limited.prompters.prompter import Prompter
from nnunet_limited.prompters.prompts import NEEDS, PromptSettings
from nnunet_limited.report.overlays import show_image, show_labels
from nnunet_limited.util.files import read_object, replacing, write_json

PROMPTS: dict[str, dict[str, Any]] = {
    "box": {"kind": "box", "boxes": 1},
    "five jittered boxes": {"kind": "box", "boxes": 5},
    "point": {"kind": "point"},
    "box, then points": {"kind": "two-pass", "boxes": 1},
}


class Remembering:
    """A prompter that embeds each image of a case once, and counts the seconds of both of its steps."""

    def __init__(self, prompter: Prompter) -> None:
        """Wrap a prompter."""
        self.prompter, self.known = prompter, dict[bytes, Any]()
        self.ndim, self.prompts, self.about = prompter.ndim, prompter.prompts, prompter.about
        self.embedding = self.prompting = 0.0
        self.answers = 0

    def embed(self, image: np.ndarray) -> Any:
        """Return the embedding, from memory if there is one."""
        key = image.tobytes()
        if key not in self.known:
            begin = time.perf_counter()
            self.known[key] = self.prompter.embed(image)
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            self.embedding += time.perf_counter() - begin
        return self.known[key]

    def predict(self, embedding: Any, **asked: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the answers of the prompter."""
        begin = time.perf_counter()
        answers = self.prompter.predict(embedding, **asked)
        self.prompting += time.perf_counter() - begin
        self.answers += len(answers[1])
        return answers


@dataclass(frozen=True)
class ZeroShot:
    """What is tried: a prompter on every ``every``-th slice of some labelled cases of a dataset."""

    dataset: RawDataset
    prompter: str
    out: Path
    cases: tuple[str, ...]
    every: int
    settings: PromptSettings

    def record(self) -> dict[str, Any]:
        """Return what the results depend on, besides the case."""
        return {"prompter": self.prompter, "every": self.every, "settings": self.settings.model_dump(mode="json")}

    def check(self) -> list[str]:
        """Return the cases to do; refuse cases without label, and a folder with results of something else."""
        if self.settings.axes != 1 or self.settings.kind is not None:
            raise LimitedError(
                "--ask: zero-shot tries all kinds of prompts, in slices across one axis; leave out kind and axes"
            )
        for case in self.cases:
            if case not in self.dataset.cases or self.dataset.cases[case].label is None:
                raise LimitedError(f"case {case!r} of {self.dataset.name} has no label to take prompts from")
        if not self.cases:
            raise LimitedError(f"{self.dataset.folder} has no labelled case; prompts are taken from labels")
        channels = self.dataset.description.num_channels
        if self.settings.channel >= channels:
            raise LimitedError(
                f"--ask channel={self.settings.channel}: {self.dataset.name} has {channels} channels, "
                "counted from 0; give another one"
            )
        for case in self.cases:
            file = self.out / "cases" / f"{case}.json"
            if file.is_file() and read_object(file, "result", "delete it").get("asked") != self.record():
                raise LimitedError(f"{file} is of another prompter or other settings; give another --out or delete it")
        return [case for case in self.cases if not (self.out / "cases" / f"{case}.json").is_file()]

    def _load(self, load: Callable[[], Prompter]) -> Prompter:
        """Return the prompter; refuse one with other weights than those of the results that are there."""
        prompter = load()
        for case in self.cases:
            file = self.out / "cases" / f"{case}.json"
            if file.is_file() and read_object(file, "result", "delete it")["about"]["hash"] != prompter.about.hash:
                raise LimitedError(f"{file} is of other weights than {self.prompter}; give another --out or delete it")
        return prompter

    def run(self, load: Callable[[], Prompter], track: Callable[[list[str]], Iterable[str]]) -> list[dict[str, Any]]:
        """Return what is known of each case after those that are missing are done."""
        missing = self.check()
        prompter = self._load(load) if missing else None
        for case in track(missing):
            assert prompter is not None
            write_json(self.out / "cases" / f"{case}.json", self._ask(self.dataset.cases[case], prompter))
        return [read_object(self.out / "cases" / f"{case}.json", "result", "delete it") for case in self.cases]

    def _ask(self, case: Case, prompter: Prompter) -> dict[str, Any]:
        reader = self.dataset.reader()()
        image, about = reader.read_images([str(file) for file in case.images])
        label = reader.read_seg(str(case.label))[0][0]
        ignore = self.dataset.description.ignore
        if ignore is not None and (label == ignore).any():
            raise LimitedError(
                f"{case.label} is annotated in part, and objects cut in two are no prompts; take cases of a --split "
                "that are annotated throughout, or fewer --cases"
            )
        names = {n: v for n, v in self.dataset.description.labels.items() if n not in ("background", "ignore")}
        masks = np.stack([np.isin(label, value) for value in names.values()])
        spacing = [float(step) for step in about["spacing"]]
        axis = coarsest_axis(masks.shape[1:], spacing)
        seen = np.flatnonzero(masks.any((0, *(a + 1 for a in range(3) if a != axis))))[:: self.every]
        if prompter.ndim == 2:
            masks = np.where(_along(np.isin(np.arange(masks.shape[axis + 1]), seen), axis + 1), masks, False)
        memory = Remembering(prompter)
        made: dict[str, Any] = {}
        answers = {}
        for name, changes in PROMPTS.items():
            if not NEEDS[changes["kind"]] <= prompter.prompts:
                continue
            settings = self.settings.model_copy(update=changes)
            rng = np.random.default_rng(0)
            said = outline(memory, image[settings.channel], masks.astype(np.float32), spacing, settings, rng)
            answers[name] = said.probability > 0.5
            made[name] = {c: _dice(answers[name][k], masks[k], said.probability[k]) for k, c in enumerate(names)}
        self._picture(case.identifier, image[self.settings.channel], masks, answers, spacing, axis)
        return {
            "case": case.identifier,
            "asked": self.record(),
            "about": prompter.about.record(),
            "dice": made,
            "images": len(memory.known),
            "seconds_per_image": round(memory.embedding / max(1, len(memory.known)), 4),
            "seconds_per_prompt": round(memory.prompting / max(1, memory.answers), 4),
        }

    def _picture(
        self, case: str, image: np.ndarray, masks: np.ndarray, answers: dict[str, np.ndarray], spacing: list[float],
        axis: int,
    ) -> None:  # fmt: skip
        """Draw the slice with the most foreground with the label and every answer."""
        from matplotlib.figure import Figure

        across = tuple(a for a in range(3) if a != axis)
        index = int(masks.any(0).sum(across).argmax())
        shown = {"label": masks, **answers}
        figure = Figure(figsize=(3 * len(shown), 3.3), layout="constrained")
        classes = {str(number): [number] for number in range(1, len(masks) + 1)}
        rows, columns = (spacing[a] for a in across)
        for axes, (title, found) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
            drawn = np.zeros(np.take(image, index, axis).shape, int)
            for number, mask in enumerate(found, 1):
                drawn[np.take(mask, index, axis)] = number
            show_image(axes, np.take(image, index, axis), rows / columns)
            show_labels(axes, drawn, classes)
            axes.set_title(title, fontsize=9)
        with replacing(self.out / "pictures" / f"{case}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=90)


def _along(values: np.ndarray, axis: int) -> np.ndarray:
    return values.reshape([-1 if a == axis else 1 for a in range(4)])


def _dice(answer: np.ndarray, mask: np.ndarray, said: np.ndarray) -> float | None:
    """Return the Dice over the slices that were asked about; None if there was none."""
    asked = np.isfinite(said)
    size = int((answer & asked).sum() + (mask & asked).sum())
    return round(2 * int((answer & mask & asked).sum()) / size, 4) if size else None


def summarise(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each prompt and class: mean, least and largest Dice over the cases."""
    rows = []
    for prompt, classes in results[0]["dice"].items():
        for name in classes:
            values = [v for one in results if (v := one["dice"][prompt][name]) is not None]
            if values:
                row = {"prompt": prompt, "class": name, "dice": round(float(np.mean(values)), 4)}
                rows.append({**row, "least": min(values), "largest": max(values), "cases": len(values)})
    return rows
