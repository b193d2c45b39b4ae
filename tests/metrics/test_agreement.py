"""How far labels agree on each class."""

from __future__ import annotations

import numpy as np
import torch
from helpers import CLASSES, REGIONS

from nnunet_limited.metrics.agreement import class_counts, mean_agreement


def test_agreement_is_the_mean_dice_of_each_class() -> None:
    one, other = torch.tensor([[0, 1, 1, 2, 2, 0]]), torch.tensor([[1, 1, 0, 2, 0, 0]])
    counts = class_counts(one, other, 3)
    assert counts.tolist() == [[2, 2, 0], [2, 1, 0], [1, 1, 0]]
    found = mean_agreement([counts, class_counts(one, one, 3)])
    np.testing.assert_allclose(found, [(0.5 + 1) / 2, (2 / 3 + 1) / 2, np.nan])


def test_pairs_without_a_class_agree_that_it_is_not_there() -> None:
    empty, one = torch.zeros(1, 4, dtype=torch.int16), torch.tensor([[0, 0, 1, 1]], dtype=torch.int16)
    found = mean_agreement([class_counts(empty, empty, 2), class_counts(one, empty, 2)])
    np.testing.assert_array_equal(found, [0.5, np.nan])


def test_regions_may_overlap() -> None:
    label = np.array([0, 1, 2, 2])
    for labels, voxels in ((CLASSES, [1, 2]), (REGIONS, [3, 2, 1])):
        maps = torch.from_numpy(labels.foreground_maps(label))
        assert class_counts(maps, maps, len(voxels)).tolist() == [voxels] * 3
