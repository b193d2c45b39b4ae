"""Boxes that people have drawn, which promptable models see in place of a guess."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.annotations.importers.tables import BOX_COLUMNS, read_table
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.cases import to_network
from nnunet_limited.prompters.prompter import ModelCard
from nnunet_limited.pseudo_labels.sources.base import Scan, SourceContext, SourcePrediction
from nnunet_limited.runs.request import TrainRequest


class BoxSource:
    """Boxes that people have drawn: no prediction, but a hint where promptable models look."""

    def __init__(self, context: SourceContext, argument: str) -> None:
        """Read the boxes in the file ``argument``; see :func:`read_boxes`."""
        assert context.model is not None
        classes = context.model.planned.description.foreground
        self.about, self.count = ModelCard(f"boxes of {Path(argument).name}"), len(classes)
        self.rows = read_boxes(Path(argument), classes)
        self.managers = context.model.planned.managers(context.model.configuration)

    def __call__(self, scan: Scan, guess: np.ndarray | None) -> SourcePrediction:
        """Return 1 inside the boxes of each foreground class and 0 outside; NaN everywhere for a scan without boxes."""
        rows = [row for row in self.rows if str(row["case"]) == scan.case]
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
        shape = scan.image.shape[1:]
        resampled = [to_network(mask[None], scan.properties, shape, *self.managers)[0] > 0 for mask in masks]
        return SourcePrediction(np.stack(resampled).astype(np.float32), about={"boxes": len(rows)})

    @staticmethod
    def check(argument: str, model: TrainRequest, folds: Sequence[int | str]) -> None:
        """Raise LimitedError for a table that is malformed or names classes that the dataset does not have."""
        read_boxes(Path(argument), model.planned.description.foreground)


def read_boxes(file: Path, classes: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    """Return the rows of a table with the columns case, class and x0 to z1, first and last voxel on the scan's grid.

    ``classes`` are the values of the foreground classes or regions by name, in the order of their channels. Each row
    has the ``channels`` of its class, a name or a value, and says ``where`` it stands. Raises LimitedError for others.
    """
    rows = read_table(file, BOX_COLUMNS)
    for line, row in enumerate(rows, 1):
        given, row["where"] = str(row["class"]), f"{file}, row {line}"
        row["channels"] = [c for c, (name, values) in enumerate(classes.items()) if given in (name, *map(str, values))]
        if not row["channels"]:
            raise LimitedError(
                f"{row['where']}: class {given!r} is none of {', '.join(classes)}; give a name or a value"
            )
    return rows
