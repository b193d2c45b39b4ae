"""Sparsely labelled cases with propagated labels and their weights."""

from __future__ import annotations

from pathlib import Path

import blosc2
import numpy as np
import pytest
from helpers import FROM_START, Workspace
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from nnunet_limited.data import propagated
from nnunet_limited.data.propagated import ChannelStack, PropagatedDataset, propagate_cases
from nnunet_limited.errors import LimitedError
from nnunet_limited.planners.case_record import record_file

IGNORE = 3


TRAINER = "LimitedSlicePropagationTrainer"


def test_stacked_arrays_are_sliced_alike() -> None:
    first, second = np.arange(24).reshape(1, 2, 3, 4), np.arange(48).reshape(2, 2, 3, 4) / 10
    stacked = ChannelStack(first, second)
    whole = np.concatenate([first, second.astype(int)])
    assert stacked.shape == (3, 2, 3, 4)
    assert np.array_equal(stacked[:, 1:2, :, 2:], whole[:, 1:2, :, 2:])
    assert np.array_equal(stacked[1:, 0], whole[1:, 0])


def prepared(workspace: Workspace, **config):
    made = workspace.trainer(TRAINER, workspace.configure("data" + "".join(config), **FROM_START, **config))
    made.initialize()
    return made, made.unlabeled_dataset()


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "steps"), [("planes", (1, 1, 1)), ("planes_2d", (4, 1, None))])
def test_weights_fall_with_the_distance_in_finest_voxels(workspaces, variant: str, steps: tuple) -> None:
    made, dataset = prepared(workspaces(variant), slice_decay=0.9)
    assert dataset.axes == [axis for axis, step in enumerate(steps) if step]
    case = made.run.fold.train[0]
    data, seg, _, _ = dataset.load_case(case)
    plain, label, _, _ = dataset.annotated.load_case(case)
    every = (slice(None),)
    assert np.array_equal(data[every][:1], plain[:])
    for axis, step in enumerate(steps):
        weight = data[every][1 + axis]
        if step is None:
            assert not weight.any()
            assert (seg[every][1 + axis] == -1).all()
            continue
        away = np.abs(np.indices(weight.shape)[axis] - weight.shape[axis] // 2)
        np.testing.assert_allclose(weight, 0.9 ** (step * away), rtol=1e-5)
        middle = (0,) + (slice(None),) * axis + (weight.shape[axis] // 2,)
        assert np.array_equal(seg[every][1 + axis][middle[1:]], label[:][middle])
        assert set(np.unique(seg[every][1 + axis])) <= {0, 1, 2}
    assert np.array_equal(seg[every][0] == 0, label[:][0] == IGNORE)
    unlabelled, nothing, _, _ = dataset.load_case(made.run.fold.unlabeled[0])
    assert not unlabelled[every][1:].any()
    assert not (nothing[every][1:] + 1).any()


@pytest.mark.slow
@pytest.mark.parametrize(("sparse", "others"), [(1, 5), (2, 3), (2, 2), (3, 1), (2, 0)])
def test_half_of_the_crops_are_of_annotated_cases(workspaces, sparse: int, others: int) -> None:
    made, _ = prepared(workspaces("planes"))
    cases, unlabelled = made.run.fold.train[:sparse], [f"other_{number}" for number in range(others)]
    folders = made.run.unlabeled_folder, made.run.labeled_folder
    few = PropagatedDataset(
        str(folders[0]), unlabelled, str(folders[1]), cases, IGNORE,
        plans=made.plans_manager.plans, configuration="3d_fullres", decay=0.9,
    )  # fmt: skip
    assert set(few.identifiers) == {*cases, *unlabelled}
    share = sum(case in cases for case in few.identifiers) / len(few.identifiers)
    assert 0.5 <= share <= max(0.67, sparse / (sparse + others))


def test_what_is_there_is_made_again_only_for_other_cases(workspaces, monkeypatch) -> None:
    made, dataset = prepared(workspaces("planes"))
    arguments = (made.run.labeled_folder, list(made.run.fold.train), IGNORE, made.plans_manager.plans, "3d_fullres")
    done = []
    monkeypatch.setattr(propagated, "_propagate_case", lambda case, *_: done.append(case))
    assert propagate_cases(*arguments) == dataset.propagated
    assert done == []
    case = made.run.fold.train[1]
    record = record_file(made.run.labeled_folder, case)
    before = record.read_text(encoding="utf-8")
    record.write_text(before.replace('"label": "', '"label": "other'), encoding="utf-8")
    propagate_cases(*arguments)
    record.write_text(before, encoding="utf-8")
    assert done == [case]


def test_holes_of_a_slice_are_not_carried(workspaces, tmp_path: Path) -> None:
    """The ignore label is no class: what it would be carried to stays unknown."""
    made, _ = prepared(workspaces("planes"))
    label = np.full((1, 6, 10, 10), IGNORE, np.int8)
    label[0, 2] = 1
    label[0, 2, 5, 5] = IGNORE
    image = np.zeros(label.shape, np.float32)
    (tmp_path / "cases").mkdir()
    nnUNetDatasetBlosc2.save_case(image, label, {"spacing": (1.0, 1.0, 1.0)}, str(tmp_path / "cases" / "a"))
    plans = made.plans_manager.plans
    folder = propagate_cases(tmp_path / "cases", ["a"], IGNORE, plans, "3d_fullres")
    values = blosc2.open(str(folder / "a.b2nd"))[:]
    assert (values[1:] == -1).all()
    assert (values[0, :, 5, 5] == -1).all()
    assert (np.delete(values[0].reshape(6, -1), 55, axis=1) == 1).all()
    assert propagated.read_distances(folder, "a") == [[2.0, 1.0, 0.0, 1.0, 2.0, 3.0], [], []]


def test_labels_without_annotated_slice_are_refused(workspaces) -> None:
    made = workspaces("ignore").trainer(TRAINER, workspaces("ignore").configure("none", **FROM_START))
    with pytest.raises(LimitedError, match="annotate whole slices, or use LimitedSparseMeanTeacherTrainer"):
        made.on_train_start()
