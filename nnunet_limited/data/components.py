"""Which classes are one connected object, decided by labelled cases, and which voxels of a prediction are islands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from nnunet_limited.data.case_values import values_of_cases
from nnunet_limited.host.cases import PreprocessedCases
from nnunet_limited.losses.label_space import LabelSpace
from nnunet_limited.util.components import islands, largest_fractions
from nnunet_limited.util.files import content_hash

Components = Literal["auto", "largest", "all"]
# The limits leave room for the crumbs of manual outlines: a few voxels of an organ, a slice in twenty.
MIN_LARGEST = 0.95  # of the voxels of a class in a case or slice, in its largest component
MIN_CASES = 0.95  # of the cases or slices with the class; all of them where there are fewer than 20
POOL_FROM = 16  # cases, of up to a second each, that are worth starting worker processes for


@dataclass(frozen=True)
class ComponentRule:
    """The foreground classes or regions (numbered from 1) that are one connected object.

    An island is a component of such a class besides its largest. What is done with it is up to the caller; in training
    it gets weight 0, because a prediction that is wrong about a voxel does not tell what the voxel is.
    """

    labels: LabelSpace
    single: frozenset[int]

    @classmethod
    def of(cls, choice: Components, labels: LabelSpace, counts: Iterable[np.ndarray]) -> ComponentRule:
        """Return the rule of a setting: ``largest`` for every class, ``all`` for none, ``auto`` by labelled cases.

        ``counts`` are those of :func:`label_counts` of these cases.
        """
        if choice == "auto":
            return cls(labels, single_components(counts))
        count = len(labels.foreground_values) if choice == "largest" else 0
        return cls(labels, frozenset(range(1, 1 + count)))

    @classmethod
    def of_mask(cls, labels: LabelSpace, mask: Sequence[bool]) -> ComponentRule:
        """Return the rule with this :attr:`mask`."""
        return cls(labels, frozenset(number for number, single in enumerate(mask, 1) if single))

    @property
    def mask(self) -> list[bool]:
        """Whether each foreground class or region is one connected object."""
        return [number in self.single for number in range(1, 1 + len(self.labels.foreground_values))]

    def in_case(self, label: np.ndarray) -> np.ndarray:
        """Return the islands of a whole case with label values (*spatial): (1, *spatial), or (c, *spatial) for regions.

        The last are those of each region: what lies in an island of one may be a part of another's largest component.
        """
        return np.stack([self._of_map(one) for one in self.labels.foreground_maps(label)])

    def in_crops(self, hard: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Return where crops have islands of any class (b, 1, *spatial), a bool mask.

        ``hard`` (b, c, *spatial) are hard labels of 0 and 1, ``inside`` (b, 1, *spatial) is True inside the image. A
        component that reaches the border of the crop or of ``inside`` is no island: a crop that cuts an object shows
        several parts of it, and each of them reaches its border. So a correct prediction has no island in any crop.
        It runs on the CPU.
        """
        found = torch.zeros_like(inside, dtype=torch.bool)
        if not self.single:
            return found
        edges = crop_edges(inside).cpu().numpy()
        for b, maps in enumerate(self.labels.foreground_numbers(hard).cpu().numpy()):
            masks = [self._of_map(one, edges[b, 0]) for one in maps]
            found[b, 0] = torch.from_numpy(np.any(masks, axis=0)).to(found.device)
        return found

    def _of_map(self, numbers: np.ndarray, edge: np.ndarray | None = None) -> np.ndarray:
        table = np.array([0, *(number * single for number, single in enumerate(self.mask, 1))])
        return islands(table.astype(np.uint16)[numbers], edge)


def crop_edges(inside: torch.Tensor) -> torch.Tensor:
    """Return the voxels beside the border of the crop or of ``inside`` (b, 1, *spatial) bool, the diagonal ones too."""
    dims = inside.ndim - 2
    outside = functional.pad((~inside).float(), [1] * 2 * dims, value=1.0)
    pool = functional.max_pool2d if dims == 2 else functional.max_pool3d
    return pool(outside, 3, stride=1) > 0


def single_components(counts: Iterable[np.ndarray]) -> frozenset[int]:
    """Return the foreground classes or regions, numbered from 1, that are one component in nearly all cases.

    ``counts`` are those of :func:`label_counts`. A class that no case has is not one component.
    """
    _, parts, single = sum(counts, np.zeros((3, 1), np.int64))
    return frozenset(int(n) for n in np.flatnonzero(parts) if single[n] / parts[n] >= MIN_CASES)


def label_counts(label: np.ndarray, labels: LabelSpace, flat: bool) -> np.ndarray:
    """Return what is counted in label values (*spatial) of a whole case (3, 1 + classes or regions).

    These are the voxels of each foreground class or region, in how many parts of the case it is, and in how many of
    them it is one component. A part is the case or, with ``flat``, a slice across the first axis, as nnU-Net's 2D
    configurations take them. The first voxels are the ignored ones, which belong to no class: a class in scattered
    annotations is in many pieces and not judged to be one.
    """
    counts = np.zeros((3, 1 + len(labels.foreground_values)), np.int64)
    for numbers in labels.foreground_maps(label):
        counts[0] += np.bincount(numbers.ravel(), minlength=counts.shape[1])
        for part in numbers if flat else [numbers]:
            for number, fraction in largest_fractions(part).items():
                counts[1:, number] += 1, fraction >= MIN_LARGEST
    counts[0, 0] = 0 if labels.ignore is None else (label == labels.ignore).sum()
    return counts


def labeled_counts(labels: LabelSpace, folder: Path, cases: Sequence[str], flat: bool) -> list[np.ndarray]:
    """Return the :func:`label_counts` of labelled ``cases`` preprocessed in ``folder``; they alone are read."""
    kind = content_hash([labels.overlapping, labels.values, labels.ignore, flat, MIN_LARGEST])
    count = partial(_counts_of_case, labels, flat)
    return values_of_cases(count, folder, cases, f"label_counts_{kind}", "Looking at labelled cases", POOL_FROM)


def _counts_of_case(labels: LabelSpace, flat: bool, folder: Path, case: str) -> np.ndarray:
    return label_counts(np.asarray(PreprocessedCases(str(folder), [case]).load_case(case)[1][:])[0], labels, flat)
