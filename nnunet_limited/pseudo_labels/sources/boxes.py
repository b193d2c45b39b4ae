"""Boxes that people have drawn, which promptable models see in place of a guess."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.annotations.importers.tables import BOX_COLUMNS, read_table
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.cases import to_network
from nnunet_limited.prompters.prompter import ModelCard
from nnunet_limited.pseudo_labels.sources.base import Scan, SourceContext, SourcePrediction
from nnunet_limited.runs.request import TrainRequest

ToNetwork = Callable[[np.ndarray, Scan], np.ndarray]


class BoxSource:
    """Boxes that people have drawn: no prediction, but a hint where promptable models look."""

    def __init__(self, file: Path, classes: dict[str, Any], to_network: ToNetwork) -> None:
        """Read a table with the columns case, class and x0 to z1, first and last voxel on the grid of the scan.

        ``classes`` are the values of the foreground classes or regions by name, in the order of their channels;
        ``to_network`` resamples a mask of a scan to the network's grid.
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

    def __call__(self, scan: Scan, guess: np.ndarray | None) -> SourcePrediction:
        """Return 1 inside the boxes of each foreground class and 0 outside; NaN everywhere for a scan without boxes."""
        rows = self.rows.get(scan.case, [])
        if not rows:
            return SourcePrediction.nothing(self.count, scan)
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
        made = np.stack([self.to_network(mask, scan) > 0 for mask in masks]).astype(np.float32)
        return SourcePrediction(made, about={"boxes": len(rows)})


def check(argument: str, model: TrainRequest, folds: Sequence[int | str]) -> None:
    """Raise LimitedError for a table that is malformed or names classes that the dataset does not have."""
    _load(argument, model)


def load(argument: str, context: SourceContext) -> BoxSource:
    """Return the boxes in the file ``argument``."""
    assert context.model is not None
    return _load(argument, context.model)


def _load(file: str, model: TrainRequest) -> BoxSource:
    manager, chosen = model.planned.managers(model.configuration)

    def resample(mask: np.ndarray, scan: Scan) -> np.ndarray:
        return to_network(mask[None], scan.properties, scan.image.shape[1:], manager, chosen)[0]

    return BoxSource(Path(file), model.planned.description.foreground, resample)
