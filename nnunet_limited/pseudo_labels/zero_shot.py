"""The quality of a promptable model on a dataset with different prompts, measured on labelled cases.

It repeats the comparison of Mazurowski et al., MedIA 2023, arXiv 2304.10517, on the user's own scans.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from nnunet_limited.datasets.raw import Case, RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import preprocessed_folder
from nnunet_limited.host.images import grid_of, read_label_on, read_scan
from nnunet_limited.prompters.outlining import coarsest_axis, outline
from nnunet_limited.prompters.prompter import Prompter
from nnunet_limited.prompters.prompts import NEEDS, PromptSettings
from nnunet_limited.pseudo_labels.request import ZeroShotRequest, parse_ask
from nnunet_limited.report.overlays import draw_slice
from nnunet_limited.report.tables import csv_text
from nnunet_limited.splits import load_split
from nnunet_limited.util.files import read_object, replace_text, write_json

PROMPTS: dict[str, dict[str, Any]] = {
    "box": {"kind": "box", "boxes": 1},
    "five jittered boxes": {"kind": "box", "boxes": 5},
    "point": {"kind": "point"},
    "box, then points": {"kind": "two-pass", "boxes": 1},
}


RESULT = {"case", "asked", "about", "dice", "seconds_per_image", "seconds_per_prompt"}  # keys of that of a case


class CachingPrompter:
    """A prompter that embeds each image of a case once, and counts the seconds of both of its steps."""

    def __init__(self, prompter: Prompter) -> None:
        """Wrap a prompter."""
        self.prompter, self.embeddings = prompter, dict[bytes, Any]()
        self.ndim, self.prompts, self.about = prompter.ndim, prompter.prompts, prompter.about
        self.embed_seconds, self.predict_seconds, self.objects = 0.0, 0.0, 0

    def embed(self, image: np.ndarray) -> Any:
        """Return the embedding, from the cache if it is there."""
        key = image.tobytes()
        if key not in self.embeddings:
            begin = time.perf_counter()
            self.embeddings[key] = self.prompter.embed(image)
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            self.embed_seconds += time.perf_counter() - begin
        return self.embeddings[key]

    def predict(self, embedding: Any, **prompts: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the probabilities and the scores of the prompter."""
        begin = time.perf_counter()
        probabilities, scores = self.prompter.predict(embedding, **prompts)
        self.predict_seconds += time.perf_counter() - begin
        self.objects += len(scores)
        return probabilities, scores


class ZeroShot:
    """A promptable model on every few slices with foreground of some labelled cases."""

    def __init__(self, request: ZeroShotRequest) -> None:
        """Load the dataset, and choose the cases."""
        self.dataset, self.request = RawDataset.load(request.dataset), request
        self.settings, cases = parse_ask(PromptSettings, request.ask), self.dataset.labeled
        if request.split is not None:
            visible = set(load_split(preprocessed_folder(self.dataset.name), request.split).labeled)
            cases = [case for case in cases if case in visible]
        self.cases = cases[: request.cases]
        labels = self.dataset.description.labels
        self.classes = {name: value for name, value in labels.items() if name not in ("background", "ignore")}

    def record(self) -> dict[str, Any]:
        """Return what the results depend on, besides the case."""
        request = self.request
        return {
            "dataset": self.dataset.name,
            "prompter": request.prompter,
            "every": request.every,
            "settings": self.settings.record(),
        }

    def check(self) -> list[str]:
        """Return the cases without a result; refuse cases without label, and a folder with other results."""
        if self.settings.axes != 1 or self.settings.kind is not None:
            raise LimitedError(
                "--ask: zero-shot tries all kinds of prompts, in slices across one axis; remove kind and axes"
            )
        for case in self.cases:
            if case not in self.dataset.cases or self.dataset.cases[case].label is None:
                raise LimitedError(f"case {case!r} of {self.dataset.name} has no label to take prompts from")
        if not self.cases:
            raise LimitedError(f"{self.dataset.folder} has no labelled case, from which prompts are made; add labels")
        self.settings.check_channel(self.dataset.description.num_channels)
        for case, result in self._results().items():
            if result.get("asked") != self.record():
                raise LimitedError(
                    f"{self._file(case)} is of another dataset, prompter, or other settings; give another --out, or "
                    f"delete {self.request.out}"
                )
            if missing := RESULT - set(result):
                raise LimitedError(f"result {self._file(case)} has no {min(missing)!r}; delete the file")
        return [case for case in self.cases if not self._file(case).is_file()]

    def _file(self, case: str) -> Path:
        return self.request.out / "cases" / f"{case}.json"

    def _results(self) -> dict[str, dict[str, Any]]:
        """Return the results of the cases that have one."""
        return {c: read_object(self._file(c), "result", "delete it") for c in self.cases if self._file(c).is_file()}

    def run(self, load: Callable[[], Prompter], track: Callable[[list[str]], Iterable[str]]) -> list[dict[str, Any]]:
        """Return the result of each case, after computing those that are missing.

        Raises LimitedError for a prompter whose weights differ from those of the results in the folder.
        """
        missing = self.check()
        if missing:
            prompter = load()
            for case, result in self._results().items():
                if result["about"]["hash"] != prompter.about.hash:
                    raise LimitedError(
                        f"{self._file(case)} is of other weights than {self.request.prompter}; give another --out, or "
                        f"delete {self.request.out}"
                    )
            for case in track(missing):
                write_json(self._file(case), self._measure(self.dataset.cases[case], prompter))
        return list(self._results().values())

    def _measure(self, case: Case, prompter: Prompter) -> dict[str, Any]:
        """Return the Dice of every kind of prompts on one case, and draw the outlines."""
        image, masks, spacing, axis = self._read(case)
        if prompter.ndim == 2:
            across = (0, *(a + 1 for a in range(3) if a != axis))
            tried = np.isin(np.arange(masks.shape[axis + 1]), np.flatnonzero(masks.any(across))[:: self.request.every])
            masks = np.where(tried.reshape([-1 if a == axis + 1 else 1 for a in range(4)]), masks, False)
        cached = CachingPrompter(prompter)
        dice: dict[str, Any] = {}
        outlines = {}
        for name, changes in PROMPTS.items():
            if not NEEDS[changes["kind"]] <= prompter.prompts:
                continue
            settings, rng = self.settings.model_copy(update=changes), np.random.default_rng(0)
            probability = outline(cached, image, masks.astype(np.float32), spacing, settings, rng).probability
            outlines[name] = probability > 0.5
            dice[name] = {c: _dice(outlines[name][k], masks[k], probability[k]) for k, c in enumerate(self.classes)}
        picture, panels = self.request.out / "pictures" / f"{case.identifier}.png", {"label": masks, **outlines}
        draw_slice(picture, image, spacing, axis, masks, panels, (3 * len(panels), 3.3), 90)
        return {
            "case": case.identifier,
            "asked": self.record(),
            "about": asdict(prompter.about),
            "dice": dice,
            "images": len(cached.embeddings),
            "seconds_per_image": round(cached.embed_seconds / max(1, len(cached.embeddings)), 4),
            "seconds_per_prompt": round(cached.predict_seconds / max(1, cached.objects), 4),
        }

    def _read(self, case: Case) -> tuple[np.ndarray, np.ndarray, list[float], int]:
        """Return image (*spatial), masks of the classes (c, *spatial), spacing, and the axis across slices."""
        assert case.label is not None
        reader, description = self.dataset.reader()(), self.dataset.description
        image, about = read_scan(reader, case.images, description.num_channels)
        grid = grid_of(image.shape[1:], about)
        label, _ = read_label_on(reader, case.label, grid, description.label_values, description.grid_of_image)
        ignore = description.ignore
        if ignore is not None and (label == ignore).any():
            raise LimitedError(
                f"{case.label} is partly annotated, so its objects may be incomplete; use fully annotated cases with "
                "--split, or fewer --cases"
            )
        masks = np.stack([np.isin(label, value) for value in self.classes.values()])
        spacing = [float(step) for step in about["spacing"]]
        return image[self.settings.channel], masks, spacing, coarsest_axis(masks.shape[1:], spacing)

    def write_table(self, results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Write ``table.csv`` and return its rows: mean, smallest and largest Dice of each prompt and class."""
        rows = []
        for prompt, classes in results[0]["dice"].items():
            for name in classes:
                values = [v for one in results if (v := one["dice"][prompt][name]) is not None]
                if values:
                    row = {"prompt": prompt, "class": name, "dice": round(float(np.mean(values)), 4)}
                    rows.append({**row, "least": min(values), "largest": max(values), "cases": len(values)})
        if not rows:
            raise LimitedError(
                f"no object in {len(results)} cases has {self.settings.min_area} voxels in a slice; give --ask "
                "min_area=1"
            )
        replace_text(self.request.out / "table.csv", csv_text(pd.DataFrame(rows)))
        return rows


def _dice(outline: np.ndarray, mask: np.ndarray, probability: np.ndarray) -> float | None:
    """Return the Dice over the slices with prompts, where the probability is not NaN; None if there are none."""
    valid = np.isfinite(probability)
    size = int((outline & valid).sum() + (mask & valid).sum())
    return round(2 * int((outline & mask & valid).sum()) / size, 4) if size else None
