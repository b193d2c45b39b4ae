"""Cases annotated in part: what lies beyond their borders, and their mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_limited.data.sparse import OUTSIDE, AnnotatedCases, IgnoreBeyondBorder, SparseDataset, UnannotatedDataset
from nnunet_limited.errors import LimitedError

IGNORE = 3


def store(folder: Path, case: str, label: np.ndarray) -> None:
    """Write a preprocessed case as nnU-Net does."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    folder.mkdir(exist_ok=True)
    image = np.ones(label.shape, np.float32)
    nnUNetDatasetBlosc2.save_case(image, label.astype(np.int8), {"class_locations": {1: []}}, str(folder / case))


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A sparse case and a dense one, both with a voxel outside of the image's nonzero mask."""
    sparse, dense = np.full((1, 1, 4, 4), IGNORE), np.zeros((1, 1, 4, 4))
    sparse[..., 0, 0], sparse[..., 0, 1], sparse[..., 2, 2] = -1, 0, 1
    dense[..., 0, 0], dense[..., 2, 2] = -1, 1
    store(tmp_path / "cases", "sparse", sparse)
    store(tmp_path / "cases", "dense", dense)
    return tmp_path / "cases"


def test_beyond_the_border_of_a_sparse_case_nothing_is_known(mixed: Path) -> None:
    borders = IgnoreBeyondBorder(IGNORE)
    dataset = SparseDataset(str(mixed), ["dense", "sparse"], IGNORE)
    for case, beyond in (("sparse", IGNORE), ("dense", -1), ("sparse", IGNORE)):
        _, label, mark, _ = dataset.load_case(case)
        both = np.concatenate([label[:, :, :3], mark[None, :, :3]])
        padded = np.pad(both, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-1)
        seen = borders(image=torch.ones(1), segmentation=torch.from_numpy(padded.astype(np.int16)))["segmentation"]
        assert seen.shape[0] == 1
        assert (seen[..., 0, :] == beyond).all()
        assert (seen[..., -1] == beyond).all()
        inside = seen[0, 0, 1:-1, 1:-1]
        assert inside[0, 0] == (0 if case == "sparse" else -1), "the empty part of the image is background"
        assert inside[2, 2] == 1
    assert (dataset.load_case("sparse")[1][...] == OUTSIDE).sum() == 1


def test_the_mask_is_what_is_not_annotated(mixed: Path, tmp_path: Path) -> None:
    store(tmp_path / "other", "unlabelled", np.zeros((1, 1, 4, 4)))
    dataset = UnannotatedDataset(str(tmp_path / "other"), ["unlabelled"], str(mixed), ["dense", "sparse"], IGNORE)
    assert list(dataset.identifiers) == ["sparse", "unlabelled"], "a dense case has nothing to offer"
    mask, label = (
        dataset.load_case("sparse")[1][...],
        AnnotatedCases(str(mixed), ["sparse"], IGNORE).load_case("sparse")[1][:],
    )
    assert ((mask == 0) == (label == IGNORE)).all()
    assert ((mask == -1) == (label == -1)).all()
    assert ((mask == 1) == ((label == 0) | (label == 1))).all()
    assert not dataset.load_case("unlabelled")[1][...].any()
    with pytest.raises(LimitedError, match="LimitedSparseTrainer"):
        UnannotatedDataset(str(tmp_path / "other"), [], str(mixed), ["dense"], IGNORE)
