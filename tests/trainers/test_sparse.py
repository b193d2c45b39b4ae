"""Datasets with sparse labels, from the view to the loss."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import blosc2
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from helpers import (
    DATASET,
    FROM_START,
    LIKE_STOCK,
    Stock,
    Variant,
    Workspace,
    losses,
    make_named_split,
    plan,
    read,
    stock_run,
    weights,
    write_dataset,
)
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from nnunet_limited import trainers
from nnunet_limited.datasets.raw import Case, RawDataset
from nnunet_limited.datasets.sparsify import SparsifyRequest, sparsify
from nnunet_limited.errors import LimitedError
from nnunet_limited.planners.preprocessing import background_outside, copy_ground_truth
from nnunet_limited.trainers.catalogue import is_for_sparse_labels, trainer_names
from nnunet_limited.util.provenance import DigestCache

IGNORE = 3
SPARSE = Variant(labels={"background": 0, "disc": 1, "core": 2, "ignore": IGNORE}, ignored=0.0)


def started(workspace: Workspace, trainer: str, name: str, **settings):
    made = workspace.trainer(trainer, workspace.configure(name, **{**FROM_START, "sparse_labels": True, **settings}))
    made.on_train_start()
    made.on_train_epoch_start()
    return made


def test_crops_are_the_hosts_but_for_their_borders(workspaces) -> None:
    ours = started(workspaces("ignore"), "LimitedSparseTrainer", "borders")
    stock = Stock.like(ours)
    stock.on_train_start()
    differing = 0
    for trained in (ours, stock):
        torch.manual_seed(3)
        np.random.seed(3)
        trained.seen = [next(trained.dataloader_train) for _ in range(6)]
    for mine, theirs in zip(ours.seen, stock.seen, strict=True):
        assert torch.equal(mine["data"], theirs["data"])
        for a, b in zip(mine["target"], theirs["target"], strict=True):
            assert ((a == b) | ((a == IGNORE) & (b == 0))).all()
            differing += int((a != b).sum())
    assert differing > 0


# ---- training --------------------------------------------------------------------------------------------------------


def chooses_its_cases(trainer: str) -> bool:
    common = trainers.LimitedTrainer.unlabeled_dataset
    return getattr(getattr(trainers, trainer), "unlabeled_dataset", common) is not common


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["ignore", "ignore_regions"])
@pytest.mark.parametrize("trainer", [name for name in trainer_names() if not chooses_its_cases(name)])
def test_every_trainer_learns_from_what_is_not_annotated(workspaces, trainer: str, variant: str) -> None:
    made = started(workspaces(variant), trainer, "sparse", num_epochs=1)
    made.train_step(next(made.dataloader_train))
    if made.uses_unlabeled:
        used = set(made.unlabeled_loader.unlabeled._data.identifiers)
        assert used == {*made.run.fold.unlabeled, *made.run.fold.train}
        made.unlabeled_loader.unlabeled.indices = list(made.run.fold.train)
        masks = [made.crops(next(made.dataloader_train)).valid for _ in range(3)]
        assert 0.1 < torch.cat(masks).float().mean() < 0.35, "three in ten voxels are not annotated"


@pytest.mark.slow
@pytest.mark.parametrize(
    "trainer", [*[name for name in trainer_names() if is_for_sparse_labels(name)], "LimitedMeanTeacherTrainer"]
)
def test_labels_that_annotate_everything_equal_stock(workspaces, trainer: str) -> None:
    workspace = workspaces("all_annotated")
    settings = {**LIKE_STOCK, "sparse_labels": True}
    ours = workspace.trainer(trainer, workspace.configure("whole", **FROM_START, **settings))
    ours.run_training()
    curves, trained = stock_run("all_annotated", ours)
    assert losses(ours)["train_losses"] == curves["train_losses"]
    for mine, theirs in zip(weights(ours.network), trained, strict=True):
        assert torch.equal(mine, theirs)


def test_terms_change_the_step_and_validation_has_none(workspaces) -> None:
    workspace = workspaces("ignore")
    curves = {}
    for term in ("none", "entropy_weight", "crf_weight", "contour_weight", "mumford_shah_weight"):
        settings = {} if term == "none" else {term: 0.5}
        made = workspace.trainer("LimitedSparseTrainer", workspace.configure(f"term-{term}", **settings, num_epochs=1))
        made.run_training()
        assert made.loss.image is None
        curves[term] = losses(made)["train_losses"]
    assert len(set(map(tuple, curves.values()))) == len(curves)


@pytest.fixture(scope="module")
def made_view(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return a view with scribbles of a dense dataset, split and planned with every label."""
    root = tmp_path_factory.mktemp("view")
    for name in ("raw", "preprocessed"):
        (root / name).mkdir()
    workspace = Workspace(root, SPARSE).activate()
    write_dataset(root / "raw", Variant())
    workspace.raw.rename(root / "raw" / "Dataset991_Dense")
    sparsify(SparsifyRequest(dataset="991", kind="scribbles", out=DATASET, seed=1), 1)
    make_named_split("few", folds=3)
    workspace.plans = plan(SPARSE)
    return workspace


@pytest.fixture
def view(made_view: Workspace) -> Workspace:
    """Return the view, for tests that change nothing but its results."""
    return made_view.activate()


def outcome(view: Workspace) -> tuple:
    """Return losses, preprocessed data, fingerprint and plans of a run."""
    made = view.trainer("LimitedSparseMeanTeacherTrainer", view.configure("dense", **FROM_START, num_epochs=1))
    made.run_training()
    files = sorted(view.preprocessed.glob("nnUNetLimited_*/*.b2nd"))
    data = {file.name: blosc2.open(str(file))[:].tobytes() for file in files}
    fingerprint = view.preprocessed / "fingerprints" / view.plans / "dataset_fingerprint.json"
    return losses(made), data, fingerprint.read_bytes(), (view.preprocessed / f"{view.plans}.json").read_bytes()


@pytest.mark.slow
def test_dense_labels_outside_the_annotation_change_nothing(view: Workspace, tmp_path: Path) -> None:
    """Neither plans nor data nor losses depend on what a dense label says where nothing was drawn."""
    before = outcome(view)
    spoiled = view.copy(tmp_path / "spoiled")
    folder = spoiled.root / "raw" / DATASET
    for file in (folder / "labelsVal").iterdir():
        dense = sitk.ReadImage(str(file))
        drawn = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "labelsSparse" / file.name)))
        values = sitk.GetArrayFromImage(dense)
        noise = np.random.RandomState(0).randint(0, 3, values.shape).astype(values.dtype)
        changed = sitk.GetImageFromArray(np.where(drawn == IGNORE, noise, values))
        changed.CopyInformation(dense)
        sitk.WriteImage(changed, str(file))
    spoiled.plans = plan(SPARSE)
    after = outcome(spoiled)
    assert before[1]
    assert before == after


def test_a_view_validates_on_dense_labels_and_leaves_the_dataset_alone(view: Workspace) -> None:
    folder, dense = view.root / "raw" / DATASET, view.root / "raw" / "Dataset991_Dense"
    assert sorted(file.name for file in dense.iterdir()) == ["dataset.json", "imagesTr", "labelsBoxes", "labelsTr"]
    content = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert content["labels"]["ignore"] == IGNORE
    assert content["dataset"]["case_00"]["images"] == ["../Dataset991_Dense/imagesTr/case_00_0000.nii.gz"]
    record = json.loads((folder / "annotations.json").read_text(encoding="utf-8"))
    assert record["kind"] == "scribbles"
    for case in RawDataset.load(DATASET).cases.values():
        sparse, truth, own = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
            for file in (
                case.label,
                view.preprocessed / "gt_segmentations" / f"{case.identifier}.nii.gz",
                dense / "labelsTr" / f"{case.identifier}.nii.gz",
            )
        )
        assert np.array_equal(truth, own)
        assert np.array_equal(sparse[sparse != IGNORE], own[sparse != IGNORE])
        assert record["cases"][case.identifier]["voxels"] == (sparse != IGNORE).sum() > 0
    made = view.trainer("LimitedSparseTrainer", view.configure("validate", num_epochs=1))
    made.run_training()
    made.perform_actual_validation()
    summary = json.loads((Path(made.output_folder) / "validation" / "summary.json").read_text(encoding="utf-8"))
    metric = summary["metric_per_case"][0]["metrics"]["1"]
    truth = sitk.ReadImage(str(dense / "labelsTr" / f"{made.run.fold.val[0]}.nii.gz"))
    assert metric["n_ref"] == (sitk.GetArrayFromImage(truth) == 1).sum()


# ---- what nnU-Net gets wrong ----------------------------------------------------------------------------------------


def test_intensities_are_those_of_the_annotated_foreground(view: Workspace) -> None:
    fingerprint = json.loads(
        next(view.preprocessed.glob("fingerprints/*/dataset_fingerprint.json")).read_text(encoding="utf-8")
    )
    values = []
    for case in RawDataset.load(DATASET).cases.values():
        image, label = (sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in (case.images[0], case.label))
        values.append(image[(label > 0) & (label != IGNORE)])
    measured = fingerprint["foreground_intensity_properties_per_channel"]["0"]
    assert measured["mean"] == pytest.approx(np.concatenate(values).mean(), rel=0.01)
    assert measured["min"] == np.concatenate(values).min()


def test_boxes_alone_can_be_planned(folders: Path) -> None:
    """Where no foreground is annotated the insides of the boxes stand for it."""
    write_dataset(folders / "raw", Variant())
    record = sparsify(SparsifyRequest(dataset="990", kind="boxes", out="Dataset992_Boxes"), 1)
    assert record["cases"]["case_00"]["boxes"]
    (folders / "raw" / DATASET).rename(folders / "raw" / "elsewhere")
    (folders / "raw" / "Dataset992_Boxes").rename(folders / "raw" / DATASET)
    content = json.loads(
        (folders / "raw" / DATASET / "dataset.json").read_text(encoding="utf-8").replace(DATASET, "elsewhere")
    )
    (folders / "raw" / DATASET / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    make_named_split("few", folds=3, labeled="3")
    workspace = Workspace(folders, SPARSE)
    workspace.plans = plan(SPARSE)
    made = workspace.trainer("LimitedSparseTrainer", workspace.configure("boxes", num_epochs=1))
    made.run_training()


def test_what_is_empty_is_background_where_images_are_normalised_within_their_mask(tmp_path: Path) -> None:
    """Otherwise a sparse image would be normalised over its empty margin, unlike the same image in prediction."""
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    image, label = np.zeros((6, 6, 6), np.float32), np.full((6, 6, 6), IGNORE, np.uint8)
    image[2:4, 1:5, 1:5], label[2, 2, 2] = 7, 1
    for name, array in (("image", image), ("label", label)):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / f"{name}.nii.gz"))
    case = Case("a", (tmp_path / "image.nii.gz",), tmp_path / "label.nii.gz")
    made = background_outside(case, SimpleITKIO, IGNORE, tmp_path / "made.nii.gz")
    values = sitk.GetArrayFromImage(sitk.ReadImage(str(made)))
    assert np.array_equal(values, np.where(image == 0, 0, label))
    case = Case("a", case.images, made)
    assert background_outside(case, SimpleITKIO, IGNORE, tmp_path / "again.nii.gz") == made


@pytest.mark.slow
def test_a_masked_sparse_image_is_normalised_as_in_prediction(folders: Path) -> None:
    variant = Variant(configuration="3d_fullres", shape=(16, 32, 32), labels=SPARSE.labels, ignored=0.5)
    folder = write_dataset(folders / "raw", variant)
    for file in (folder / "imagesTr").iterdir():  # an empty frame, as around a stripped brain
        image = sitk.ReadImage(str(file))
        array = sitk.GetArrayFromImage(image)
        inside = np.zeros(array.shape, bool)
        inside[4:12, 6:26, 6:26] = True
        inside[4:8, 6:10] = False
        framed = sitk.GetImageFromArray(np.where(inside, array, 0))
        framed.CopyInformation(image)
        sitk.WriteImage(framed, str(file))
    make_named_split("few", folds=3, labeled="3")
    workspace = Workspace(folders, variant, plan(variant))
    plans = json.loads((workspace.preprocessed / f"{workspace.plans}.json").read_text(encoding="utf-8"))
    assert plans["configurations"]["3d_fullres"]["use_mask_for_norm"] == [True]
    for file in workspace.preprocessed.glob("nnUNetLimited_*_3d_fullres/case_??.b2nd"):
        data, label = blosc2.open(str(file))[:], blosc2.open(str(file.with_name(f"{file.stem}_seg.b2nd")))[:]
        outside = label == -1
        name = file.name.removesuffix(".b2nd")
        drawn = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "labelsTr" / f"{name}.nii.gz")))[4:8, 6:10, 6:26]
        assert outside.sum() == 4 * 4 * 20 - np.isin(drawn, (1, 2)).sum()
        assert not data[outside].any()
        assert data[~outside].std() == pytest.approx(1, abs=1e-3)


# ---- methods on sparse labels ----------------------------------------------------------------------------------------


def test_strokes_do_not_cut_an_object_in_two(workspaces, monkeypatch) -> None:
    """Islands are those of the prediction inside the image, annotated voxels too."""
    made = started(workspaces("ignore"), "LimitedBidirectionalCopyPasteTrainer", "pasted")
    crops = made.crops(next(made.dataloader_train))
    mask = crops.inside.clone()
    mask[..., 10:12] = False
    seen = []
    monkeypatch.setattr(
        type(made.rule), "in_crops", lambda rule, hard, inside: seen.append(hard) or torch.zeros_like(inside)
    )
    made.unsupervised_loss(crops._replace(valid=mask))
    assert seen[0].sum(1, keepdim=True)[crops.inside].all(), "every voxel inside has a class"


@pytest.mark.parametrize("trainer", ["LimitedSparseMeanTeacherTrainer", "LimitedDualBranchTrainer"])
def test_nothing_without_label_is_refused(workspaces, trainer: str) -> None:
    """Neither an ignore label nor an unlabelled case: there is nothing to learn from."""
    workspace = workspaces("2d")
    made = workspace.trainer(trainer, workspace.configure("nothing", **FROM_START))
    made.run = replace(made.run, fold=replace(made.run.fold, unlabeled=()))
    with pytest.raises(LimitedError, match="no unlabelled case"):
        made.on_train_start()


def test_labels_to_validate_on_may_be_given_later(tmp_path: Path) -> None:
    sparse, dense = tmp_path / "sparse.nii.gz", tmp_path / "dense.nii.gz"
    for value, file in enumerate((sparse, dense)):
        sitk.WriteImage(sitk.GetImageFromArray(np.full((2, 3, 4), value, np.uint8)), str(file))
    os.utime(dense, (1, 1))
    target = tmp_path / "gt_segmentations" / "a.nii.gz"
    digests = DigestCache(tmp_path / "digests.json")
    for truth, expected in ((None, 0), (dense, 1), (dense, 1), (None, 0)):
        copy_ground_truth([Case("a", (), sparse, truth)], tmp_path, ".nii.gz", SimpleITKIO, digests)
        assert (read(target) == expected).all()
