"""Pseudo-labels on disk: which are loaded for a fold, and which are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import DATASET

from nnunet_limited.data.pseudo_label_store import PseudoLabels, load_for_fold, open_set, set_folder
from nnunet_limited.errors import LimitedError
from nnunet_limited.splits import Fold, Split, load_split


def test_a_consensus_without_foreground_is_refused(workspaces, tmp_path: Path) -> None:
    workspace = workspaces("2d")
    split = load_split(workspace.preprocessed, "few")
    labels = PseudoLabels(set_folder(workspace.preprocessed, split, "none") / "fold_0", ".nii.gz", {}, {})
    labels.refuse_empty()
    replace(labels, cases={"a": {"confidence": 0.9}}).refuse_empty()  # of a model alone, which is not measured so
    replace(labels, cases={"a": {"foreground_coverage": None}, "b": {"foreground_coverage": 0.1}}).refuse_empty()
    empty = {"cases": {"a": {"foreground_coverage": None}}, "split_hash": split.hash, "folds": [0]}
    labels.folder.mkdir(parents=True)
    (labels.folder / "pseudo_labels.json").write_text(json.dumps(empty), encoding="utf-8")
    with pytest.raises(LimitedError, match="has no foreground in any of 1 cases"):
        load_for_fold(workspace.preprocessed, split, "none", 0)


def test_a_case_that_is_trained_and_validated_on_leaks_nothing(tmp_path: Path) -> None:
    split = Split("one", DATASET, (Fold(("a",), ("a",), ("u",)), Fold(("b",), ("a",), ("u",))), {})
    for folder, members in (("fold_0", [0]), ("ensemble", [0, 1])):
        labels = open_set(
            set_folder(tmp_path, split, "model") / folder, ".nii.gz", {"split_hash": split.hash, "folds": members}
        )
        labels.folder.mkdir(parents=True)
        for file in labels.files("u"):
            file.touch()
        content = {**labels.origin, "file_ending": ".nii.gz", "cases": {"u": {}}}
        (labels.folder / "pseudo_labels.json").write_text(json.dumps(content), encoding="utf-8")
    assert load_for_fold(tmp_path, split, "model", 0).folder.name == "fold_0"
    with pytest.raises(LimitedError, match="trained on the label of 'a', which fold 1 validates on"):
        load_for_fold(tmp_path, split, "model", 1)


def test_most_stable_cases(tmp_path: Path) -> None:
    cases = {name: {"stability": value} for name, value in zip("abcd", (0.3, 0.9, 0.1, 0.8), strict=True)}
    labels = PseudoLabels(tmp_path, ".nii.gz", {}, cases)
    assert labels.most_stable(0.5) == ["b", "d"]
    assert labels.most_stable(0.01) == ["b"]
    assert PseudoLabels(tmp_path, ".nii.gz", {}, {**cases, "e": {"stability": None}}).most_stable(0.5) == list("abcde")
    assert open_set(tmp_path, ".nii.gz", {"source": "x"}).cases == {}


def test_voxels_of_each_class_lie_beside_the_label_on_the_network_grid(workspaces) -> None:
    """They are those of confident voxels, and made again where an earlier version has made the label alone."""
    workspace = workspaces("3d")
    made = workspace.trainer("LimitedSelfTrainingTrainer", workspace.configure("locations"))
    dataset = made.unlabeled_dataset()
    case = dataset.identifiers[0]
    label = np.asarray(dataset.load_case(case)[2][:])
    found = dataset.foreground(case)
    assert sorted(found) == [0, 1]
    for number, voxels in found.items():
        assert 0 < len(voxels) <= 2000
        assert (voxels[:, 0] == 0).all()
        assert (label[tuple(voxels[:, 1:].T)] == number + 1).all()  # not the value of voxels below the confidence
    file = dataset.labels / f"{case}_locations.npz"
    content = file.read_bytes()
    file.unlink()
    made.unlabeled_dataset()
    assert file.read_bytes() == content
    file.write_bytes(b"")
    made.unlabeled_dataset()
    assert file.read_bytes() == content
