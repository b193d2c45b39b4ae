"""Read which classes a label file holds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError


def class_reader(dataset: RawDataset) -> Callable[[str], set[int]]:
    """Return a function that returns the values in a case's label file, opening each file at most once."""
    reader = cache(dataset.reader)

    @cache
    def classes_of(case: str) -> set[int]:
        label, reader_class = dataset.cases[case].label, reader()
        try:
            values, _ = reader_class().read_seg(str(label))
        except Exception as error:
            raise LimitedError(f"label {label} cannot be read ({error}); repair or remove it") from error
        return set(np.unique(values).astype(int).tolist())

    return classes_of
