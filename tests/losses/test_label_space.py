"""Both kinds of label space on cases, against hand-made numbers."""

from __future__ import annotations

import numpy as np
import torch
from helpers import CLASSES, REGIONS

P = np.array([[0.2, 0.1, 0.6], [0.7, 0.1, 0.3], [0.1, 0.8, 0.1]], np.float32)


def test_hard_labels_of_a_case() -> None:
    assert CLASSES.hard_label(P).tolist() == [[1, 2, 0]]
    assert CLASSES.masks(P).astype(int).tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert CLASSES.foreground_masks(P).astype(int).tolist() == [[1, 0, 0], [0, 1, 0]]
    each = [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert REGIONS.hard_label(P).astype(int).tolist() == REGIONS.foreground_masks(P).astype(int).tolist() == each


def test_confidence_of_a_case() -> None:
    np.testing.assert_allclose(CLASSES.case_confidence(P), [0.7, 0.8, 0.6])
    np.testing.assert_allclose(REGIONS.case_confidence(P), [0.7, 0.8, 0.6])
    np.testing.assert_allclose(REGIONS.case_confidence(P[:2]), [0.7, 0.9, 0.6])
    assert CLASSES.is_confident(P, 0.75, 0.5).tolist() == [[False, True, True]]
    assert REGIONS.is_confident(P, 0.75, 0.85).astype(int).tolist() == [[0, 1, 0], [0, 1, 0], [1, 1, 1]]


def test_values_are_normalized_and_get_a_background() -> None:
    values = np.array([[0.0, 1.0], [0.0, 2.0], [0.0, 1.0]])
    assert CLASSES.normalized(values).tolist() == [[1.0, 0.25], [0.0, 0.5], [0.0, 0.25]]
    assert REGIONS.normalized(values) is values
    foreground = np.array([[0.2, 0.5, np.nan], [np.nan, 0.5, np.nan]])
    made = CLASSES.with_background(foreground)
    np.testing.assert_allclose(made[:, :2].T, [[0.8, 0.2, 0], [1 / 3, 1 / 3, 1 / 3]], rtol=1e-6)
    assert np.isnan(made[:, 2]).all()
    assert REGIONS.with_background(foreground) is foreground


def test_a_case_is_encoded_with_nan_where_it_is_ignored() -> None:
    label = np.array([-1, 0, 1, 2, 3])
    np.testing.assert_equal(CLASSES.encode_case(label)[1], [0, 0, 1, 0, np.nan])
    np.testing.assert_equal(CLASSES.encode_case(label)[0], [1, 1, 0, 0, np.nan])
    np.testing.assert_equal(REGIONS.encode_case(label)[0], [0, 0, 1, 1, np.nan])
    assert CLASSES.unused_value == REGIONS.unused_value == 3


def test_logits_give_back_their_probabilities() -> None:
    for labels in (CLASSES, REGIONS):
        p = torch.from_numpy(P)[None]
        torch.testing.assert_close(labels.probabilities(labels.to_logits(p)), p)


def test_labels_of_logits_are_those_of_their_probabilities() -> None:
    logits = torch.randn(2, 3, 8, 9, generator=torch.Generator().manual_seed(0)).half()
    for labels in (CLASSES, REGIONS):
        expected = labels.foreground_numbers(labels.probabilities(logits))
        assert torch.equal(labels.numbers_of_logits(logits), expected)
        assert labels.numbers_of_logits(logits).dtype == expected.dtype


def test_background_and_foreground() -> None:
    p = torch.from_numpy(P)[None]
    assert CLASSES.background(p)[0].tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0]]
    assert not REGIONS.background(p).any()
    assert CLASSES.foreground(p).shape[1] == 2
    assert REGIONS.foreground(p).shape[1] == 3
    assert CLASSES.foreground_values == ((1,), (2,))
    assert REGIONS.foreground_values == ((1, 2), (2,), (1,))
