"""Labels of annotated slices, carried to the others, and the trainer that learns them."""

from __future__ import annotations

import os
from pathlib import Path

import blosc2
import numpy as np
import pytest
import torch
from helpers import FROM_START, Workspace, assert_same, losses, segmentation_reference
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from torch.nn import functional

from nnunet_limited.annotations.propagate import annotated_slices, displacement, distances, propagate, spans
from nnunet_limited.data import propagated
from nnunet_limited.data.propagated import ChannelStack, PropagatedDataset, propagate_cases
from nnunet_limited.engine.checkpoint import KEY
from nnunet_limited.errors import LimitedError

IGNORE = 3
TRAINER = "LimitedSlicePropagationTrainer"


# ---- the algorithm ---------------------------------------------------------------------------------------------------


def moving_disc(depth: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """An object that wanders and grows from slice to slice, and its image."""
    z, y, x = np.indices((depth, 40, 40)).astype(float)
    label = (np.hypot(y - 14 - z, x - 20) < 5 + 0.4 * z).astype(np.int16)
    label[np.hypot(y - 14 - z, x - 20) < 2 + 0.2 * z] = 2
    return (100 * label + np.random.RandomState(0).normal(0, 5, label.shape)).astype(np.float32), label


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_labels_follow_the_image(axis: int) -> None:
    image, label = (np.moveaxis(array, 0, axis) for array in moving_disc())
    sparse = np.full(label.shape, IGNORE, np.int16)
    here = (slice(None),) * axis + (3,)
    sparse[here] = label[here]
    made = propagate(image, sparse, [3], axis)
    assert np.array_equal(made[here], label[here])
    far = (slice(None),) * axis + (8,)
    for value in (1, 2):
        moved, copied = (dice(carried == value, label[far] == value) for carried in (made[far], label[here]))
        assert moved > 0.75
        assert copied < 0.5, "carried without moving it would be wrong"


def test_a_displacement_leads_to_where_a_voxel_came_from() -> None:
    y, x = np.indices((32, 32)).astype(float)
    fixed, moving = (100 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 40) for cy, cx in ((16, 16), (19, 14)))
    down, right = displacement(fixed, moving)[:, 14:19, 14:19].mean((1, 2))
    assert down == pytest.approx(3, abs=0.7)
    assert right == pytest.approx(-2, abs=0.7)


def test_every_slice_is_told_by_the_nearest_annotated_one() -> None:
    assert spans([2, 7], 10) == [(2, 0, 5), (7, 5, 10)]
    assert distances([2, 7], 10).tolist() == [2, 1, 0, 1, 2, 2, 1, 0, 1, 2]
    assert distances([], 4).tolist() == []
    label = np.zeros((10, 3, 3), np.int16)
    label[2], label[7] = 1, 2
    made = propagate(np.zeros(label.shape, np.float32), label, [2, 7], 0)
    assert made[:, 1, 1].tolist() == [1] * 5 + [2] * 5


def test_a_slice_counts_as_annotated_if_nearly_all_of_it_is() -> None:
    label = np.full((5, 10, 10), IGNORE, np.int16)
    label[1], label[2], label[3], label[4] = 0, -1, 1, 2
    label[1, 0], label[3, 0, :9], label[4, 0], label[4, 1, 0] = -1, IGNORE, IGNORE, IGNORE
    assert annotated_slices(label, IGNORE, 0) == [1, 3], "outside of the image nothing needs to be annotated"
    assert annotated_slices(label, IGNORE, 1) == annotated_slices(label, IGNORE, 2) == []


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    axis=st.integers(0, 2),
    seed=st.integers(0, 99),
    share=st.floats(0.01, 1.0),
)
def test_only_annotated_labels_are_carried(shape: tuple[int, ...], axis: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    label = rng.choice([-1, 0, 10, 20], shape).astype(np.int16)
    chosen = sorted(rng.choice(shape[axis], max(1, int(share * shape[axis])), replace=False).tolist())
    image = rng.normal(size=shape).astype(np.float32)
    made = propagate(image, label, chosen, axis)
    before, after = np.moveaxis(label, axis, 0), np.moveaxis(made, axis, 0)
    assert made.shape == label.shape
    assert np.array_equal(after[chosen], before[chosen])
    for index, start, stop in spans(chosen, shape[axis]):
        assert set(np.unique(after[start:stop])) <= set(np.unique(before[index]))
    changed = np.moveaxis(label.copy(), axis, 0)
    others = [index for index in range(shape[axis]) if index not in chosen]
    changed[others] = rng.integers(0, 3, changed[others].shape)
    assert np.array_equal(propagate(image, np.moveaxis(changed, 0, axis), chosen, axis), made)


# ---- the data --------------------------------------------------------------------------------------------------------


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


def test_what_is_there_is_made_again_only_for_newer_cases(workspaces, monkeypatch) -> None:
    made, dataset = prepared(workspaces("planes"))
    arguments = (made.run.labeled_folder, list(made.run.fold.train), IGNORE, made.plans_manager.plans, "3d_fullres")
    done = []
    monkeypatch.setattr(propagated, "_propagate_case", lambda case, *_: done.append(case))
    assert propagate_cases(*arguments) == dataset.propagated
    assert done == []
    case = made.run.fold.train[1]
    later = (dataset.propagated / f"{case}.b2nd").stat().st_mtime + 5
    os.utime(made.run.labeled_folder / f"{case}.pkl", (later, later))
    propagate_cases(*arguments)
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


# ---- the trainer -----------------------------------------------------------------------------------------------------


def started(workspace: Workspace, name: str = "started", **config):
    made = workspace.trainer(TRAINER, workspace.configure(name, **{**FROM_START, **config}))
    made.on_train_start()
    made.on_train_epoch_start()
    return made, made.crops(next(made.dataloader_train))


def test_weights_are_moved_like_the_image(workspaces, monkeypatch) -> None:
    """Were the image its own weight, the weight would be the weak view."""
    made, _ = started(workspaces("planes"))
    dataset = made.unlabeled_loader.unlabeled._data
    load = dataset.load_case

    def own_weight(case: str):
        data, *others = load(case)
        return (ChannelStack(data.parts[0], *[data.parts[0]] * 3), *others)

    monkeypatch.setattr(dataset, "load_case", own_weight)
    for _ in range(4):
        crops = made.crops(next(made.dataloader_train))
        assert crops.further.shape[1] == 3
        assert torch.equal(crops.further, crops.weak.expand_as(crops.further))
        assert not torch.equal(crops.strong, crops.weak)


@pytest.mark.parametrize("variant", ["planes", "planes_2d", "planes_regions"])
@pytest.mark.parametrize("networks", [2, 3])
def test_each_network_learns_what_all_but_one_plane_tell(workspaces, variant: str, networks: int) -> None:
    made, crops = started(workspaces(variant), f"loss{networks}", networks=networks, cross_weight=0.3)
    regions = variant == "planes_regions"
    axes = {"planes": [0, 1, 2], "planes_2d": [0, 1], "planes_regions": [0, 2]}[variant]
    torch.manual_seed(0)
    mask = crops.valid & (torch.rand(crops.valid.shape) > 0.2)
    shape = (*crops.valid.shape[:1], 3, *crops.valid.shape[2:])
    crops = crops._replace(valid=mask, stored=torch.randint(-1, 3, shape), further=torch.rand(shape))
    nets = [made.network, *made.partners.values()]
    assert len(nets) == networks
    for network in nets:
        network.eval()
    logits = [network(crops.strong)[0] for network in nets]
    p = [torch.sigmoid(x) if regions else torch.softmax(x, 1) for x in logits]
    expected = torch.zeros(())
    for k, output in enumerate(logits):
        seen = [axis for n, axis in enumerate(reversed(axes)) if n != k]
        weight, best = crops.further[:, seen].max(1, keepdim=True)
        label = torch.stack([crops.stored[:, a] for a in seen], 1).gather(1, best)
        weight = torch.where((label >= 0) & mask, weight, 0)
        if regions:
            target = torch.cat([label > 0, label == 2], 1).float()
        else:
            target = functional.one_hot(label[:, 0].clamp(min=0), 3).movedim(-1, 1).float()
        expected = expected + segmentation_reference(output, target, weight, int(mask.sum()), regions)
        for j in range(networks):
            if j == k:
                continue
            if regions:
                hard = (p[j] > 0.5).float()
                entropy = -(p[j] * p[j].log() + (1 - p[j]) * (1 - p[j]).log()).mean(1, keepdim=True) / np.log(2)
                ce = functional.binary_cross_entropy_with_logits(output, hard, reduction="none").mean(1, keepdim=True)
            else:
                entropy = -(p[j] * p[j].log()).sum(1, keepdim=True) / np.log(3)
                ce = functional.cross_entropy(output, p[j].argmax(1), reduction="none")[:, None]
            expected = expected + 0.3 * ce[mask & (entropy < 1.0)].sum() / mask.sum()
    found = made.unsupervised_loss(crops)
    torch.testing.assert_close(found.loss, expected, rtol=1e-4, atol=1e-5)
    changed = crops._replace(stored=torch.where(mask, crops.stored, 2), further=torch.where(mask, crops.further, 9.0))
    assert torch.equal(made.unsupervised_loss(changed).loss, found.loss)


def test_early_uncertain_labels_of_others_do_not_count(workspaces, monkeypatch) -> None:
    """A prediction of 0.6, 0.2 and 0.2 has 0.865 of the largest entropy."""
    made, crops = started(workspaces("planes_2d"), "uncertain")
    crops = crops._replace(further=torch.zeros_like(crops.further))
    logits = torch.log(torch.tensor([0.6, 0.2, 0.2])).reshape(1, 3, 1, 1).expand(len(crops.strong), 3, 32, 32)
    monkeypatch.setattr(made, "full_resolution", lambda output: logits)
    losses = []
    for progress in (0.0, 1.0):
        monkeypatch.setattr(type(made), "progress", property(lambda self, value=progress: value))
        losses.append(float(made.unsupervised_loss(crops).loss))
    # Nothing is propagated, the Dice of nothing is 0, and each of two networks learns the other's label.
    assert losses[1] - losses[0] == pytest.approx(2 * 0.1 * -np.log(0.6), rel=1e-4)


@pytest.mark.parametrize("variant", ["planes", "planes_2d"])
def test_resumed_equals_never_stopped(workspaces, variant: str) -> None:
    def train(results: str, stop: int | None):
        workspace = workspaces(variant).activate(results)
        config = {**FROM_START, "networks": 3, "num_epochs": 3, "save_every": 1}
        plans = workspace.configure("resume", **config)
        made = workspace.trainer(TRAINER, plans)
        if stop is not None:
            whole, made.num_epochs = made.num_epochs, stop
            made.on_train_start()
            for _ in range(stop):
                made.on_epoch_start()
                made.on_train_epoch_start()
                made.on_train_epoch_end([made.train_step(next(made.dataloader_train)) for _ in range(3)])
                with torch.no_grad():
                    made.on_validation_epoch_start()
                    made.on_validation_epoch_end([made.validation_step(next(made.dataloader_val))])
                made.num_epochs = whole
                made.on_epoch_end()
            made = workspace.trainer(TRAINER, plans, resume=True)
        made.run_training()
        return made, torch.load(Path(made.output_folder) / "checkpoint_final.pth", weights_only=False)

    (first, one), (second, two) = train("whole_planes", None), train("stopped_planes", 1)
    assert losses(first) == losses(second)
    assert one[KEY]["networks"].keys() == {"second", "third"}
    assert_same(one["network_weights"], two["network_weights"])
    assert_same(one[KEY]["networks"], two[KEY]["networks"])
