"""Pseudo-labels: made from a trained model, kept with their confidence, brought to the network's grid, learned."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import blosc2
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from helpers import CLASSES, DATASET, FROM_START, VARIANTS, Workspace, command, read, segmentation_reference
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_limited.data.components import ComponentRule
from nnunet_limited.data.loaders import UnlabeledDataset
from nnunet_limited.data.pseudo_label_store import PseudoLabels, load_for_fold
from nnunet_limited.datasets.raw import Case, RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.cases import to_network
from nnunet_limited.metrics.agreement import class_counts, mean_agreement
from nnunet_limited.planners.case_record import CaseRecord, record_file
from nnunet_limited.planners.preprocessing import preprocess_case
from nnunet_limited.pseudo_labels.ensemble import EnsembleLabeller
from nnunet_limited.pseudo_labels.job import PseudoLabelJob
from nnunet_limited.pseudo_labels.spec import parse_sources
from nnunet_limited.runs.predict import Predictor
from nnunet_limited.runs.request import TrainRequest
from nnunet_limited.splits import load_split


def blank_border(case: Case, folder: Path) -> Case:
    """Blank a border of the images, which nnU-Net crops away."""
    images = []
    for file in case.images:
        image = sitk.ReadImage(str(file))
        array = sitk.GetArrayFromImage(image)
        array[:, :3], array[..., -2:] = 0, 0
        blanked = sitk.GetImageFromArray(array)
        blanked.CopyInformation(image)
        images.append(folder / file.name)
        sitk.WriteImage(blanked, str(images[-1]))
    return replace(case, images=tuple(images))


def test_a_corrected_label_makes_other_pseudo_labels(workspaces, tmp_path: Path) -> None:
    original = workspaces("2d")
    workspace = original.copy(tmp_path)
    shutil.copytree(original.preprocessed, workspace.preprocessed, dirs_exist_ok=True)
    case = load_split(workspace.preprocessed, "few").folds[0].train[0]
    model = TrainRequest(
        dataset=DATASET, configuration="2d", fold="0", trainer="LimitedSupervisedTrainer", plans=original.plans
    )
    job = PseudoLabelJob(EnsembleLabeller(model, parse_sources("atlas")), "few")
    (before,) = job.check([0])
    assert job.check([0])[0].hash == before.hash
    (file,) = workspace.preprocessed.glob(f"nnUNetLimited_*/{case}_seg.b2nd")
    label = blosc2.open(str(file))[:]
    file.unlink()
    blosc2.asarray(np.maximum(label, 0) * 0 + 1, urlpath=str(file))
    record_file(file.parent, case).unlink()  # or the file counts as damaged
    assert job.check([0])[0].hash != before.hash


@pytest.mark.parametrize("variant", ["2d", "3d", "anisotropic", "deployment"])
def test_a_label_reaches_the_network_as_the_host_would_bring_it(workspaces, tmp_path: Path, variant: str) -> None:
    workspace = workspaces(variant)
    plans = json.loads((workspace.preprocessed / f"{workspace.plans}.json").read_text(encoding="utf-8"))
    configuration = VARIANTS[variant].configuration
    plans["configurations"][configuration]["spacing"][-1] *= 1.3  # so that there is something to resample
    raw = RawDataset.load(DATASET)
    case = blank_border(raw.cases[load_split(workspace.preprocessed, "few").labeled[0]], tmp_path)
    for name, use_label in (("with", True), ("without", False)):
        record = CaseRecord({}, {})
        preprocess_case(case, tmp_path / name, use_label, plans, configuration, raw.dataset_json, record)
    expected = UnlabeledDataset(str(tmp_path / "with"), [case.identifier]).load_case(case.identifier)[1][:]
    data, _, _, properties = UnlabeledDataset(str(tmp_path / "without"), [case.identifier]).load_case(case.identifier)
    manager = PlansManager(plans)
    got = to_network(
        read(case.label)[None], properties, data.shape[1:], manager, manager.get_configuration(configuration)
    )
    assert len(np.unique(expected)) > 2
    assert properties["shape_after_cropping_and_before_resampling"] != properties["shape_before_cropping"]
    assert data.shape[1:] != properties["shape_after_cropping_and_before_resampling"]
    assert np.array_equal(got[expected >= 0], expected[expected >= 0])


@pytest.fixture
def trained(workspaces) -> tuple[Workspace, str]:
    workspace = workspaces("2d").activate("pseudo")
    plans = workspace.configure("pseudo", **FROM_START, num_iterations_per_epoch=10)
    if not (Path(os.environ["nnUNet_results"]) / DATASET).exists():
        for fold in (0, 1):
            workspace.trainer("LimitedSupervisedTrainer", plans, fold).run_training()
    return workspace, plans


@pytest.mark.slow
def test_pseudo_labels_are_the_models_predictions(trained, tmp_path: Path) -> None:
    workspace, plans = trained
    assert command("pseudo-label", DATASET, "2d", "-p", plans, "-f", "0", "--name", "one", "--components", "all") == 0
    split = load_split(workspace.preprocessed, "few")
    labels = load_for_fold(workspace.preprocessed, split, "one", 0)
    assert set(labels.cases) == set(split.fold(0).unlabeled)
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    folder = Path(os.environ["nnUNet_results"]) / DATASET / f"LimitedSupervisedTrainer__{plans}__2d"
    predictor.initialize_from_trained_model_folder(str(folder), (0,))
    for case in split.fold(0).unlabeled[:2]:
        images = [str(image) for image in RawDataset.load(DATASET).cases[case].images]
        predictor.predict_from_files_sequential([images], [str(tmp_path / case)], save_probabilities=True)
        predicted = read(tmp_path / f"{case}.nii.gz")
        label, confidence = (read(file) for file in labels.files(case))
        assert predicted.any()
        assert np.array_equal(label, predicted)
        probability = np.load(tmp_path / f"{case}.npz")["probabilities"]
        np.testing.assert_allclose(confidence, 100 * probability.max(0), atol=0.51)
        mean = 100 * probability.max(0)[predicted > 0].mean()
        assert labels.cases[case]["confidence"] == pytest.approx(mean, abs=0.01)


def test_pseudo_labelling_goes_on_where_it_stopped(
    trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    workspace, plans = trained
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))  # no label is needed, not even the folder
    make = ("pseudo-label", DATASET, "2d", "-p", plans, "-f", "1", "--name", "again")
    assert command(*make) == 0
    split = load_split(workspace.preprocessed, "few")
    labels = load_for_fold(workspace.preprocessed, split, "again", 1)
    contents = {file: file.read_bytes() for file in labels.folder.iterdir()}
    times = {file: file.stat().st_mtime_ns for file in contents}
    lost, kept = sorted(split.fold(1).unlabeled)[:2]
    labels.files(lost)[1].unlink()
    with pytest.raises(LimitedError, match=f"no pseudo-label of '{lost}'"):
        load_for_fold(workspace.preprocessed, split, "again", 1)
    capfd.readouterr()
    assert command(*make, "--json") == 0
    assert len(json.loads(capfd.readouterr().out)[0]["cases"]) == len(split.fold(1).unlabeled)
    assert {file: file.read_bytes() for file in labels.folder.iterdir()} == contents
    assert labels.files(kept)[0].stat().st_mtime_ns == times[labels.files(kept)[0]]
    assert labels.files(lost)[0].stat().st_mtime_ns > times[labels.files(lost)[0]]


def assert_stabler(second: PseudoLabels, first: PseudoLabels) -> None:
    """Check the round of a model that has labelled before: the labels are the same, so all classes agree."""
    for case, about in second.cases.items():
        assert first.cases[case]["stability"] < about["stability"] <= 1
        assert about["implausible"] or about["stability"] == 1


def test_second_round_and_training_on_it(trained, tmp_path: Path) -> None:
    workspace, plans = trained
    for name, more in (("first", ()), ("second", ("--previous", "first"))):
        assert command("pseudo-label", DATASET, "2d", "-p", plans, "-f", "0", "--name", name, *more) == 0
    split = load_split(workspace.preprocessed, "few")
    second = load_for_fold(workspace.preprocessed, split, "second", 0)
    assert_stabler(second, load_for_fold(workspace.preprocessed, split, "first", 0))

    file = second.folder / "pseudo_labels.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    for number, case in enumerate(sorted(content["cases"])):
        content["cases"][case]["stability"] = number / 10
    file.write_text(json.dumps(content), encoding="utf-8")
    settings = {"pseudo_labels": "second", "stable_fraction": 0.5, "pseudo_label_confidence": 0.6}
    student = workspace.trainer("LimitedSelfTrainingTrainer", workspace.configure("student", **FROM_START, **settings))
    student.on_train_start()
    again = partial(workspace.trainer, "LimitedSelfTrainingTrainer", student.plans_manager.plans_name)
    again().on_train_start()  # the same pseudo-labels
    used = student.unlabeled_loader.unlabeled._data.identifiers
    count = len(split.fold(0).unlabeled)
    assert sorted(used) == sorted(content["cases"])[count - round(count / 2) :]
    reader = student.plans_manager.image_reader_writer_class()
    label, confidence = second.read(used[0], reader)
    stored = student.unlabeled_loader.unlabeled._data.load_case(used[0])[2][:]
    assert set(np.unique(stored)) <= {0, 1, 2, student.labels.unused_value}
    assert np.array_equal(stored, np.where(confidence >= 60, label, student.labels.unused_value))

    image = sitk.ReadImage(str(second.files(used[0])[0]))  # a correction by hand is seen
    corrected = sitk.GetImageFromArray(np.ones_like(label, np.uint8))
    corrected.CopyInformation(image)
    sitk.WriteImage(corrected, str(second.files(used[0])[0]))
    seen = student.unlabeled_dataset().load_case(used[0])[2][:]
    assert set(np.unique(seen)) == {1, student.labels.unused_value}
    with pytest.raises(LimitedError, match=r"fold_0 was trained on other pseudo labels .* train again with --redo"):
        again().on_train_start()


@pytest.mark.slow
def test_ensemble_tells_how_far_its_members_agree(workspaces) -> None:
    workspace = workspaces("deployment").activate("ensemble")
    plans = workspace.configure("ensemble", **FROM_START, num_iterations_per_epoch=10)
    for fold in (0, 1, 2):
        workspace.trainer("LimitedSupervisedTrainer", plans, fold).run_training()
    assert command("pseudo-label", DATASET, "2d", "-p", plans, "--ensemble", "--name", "all") == 0
    split = load_split(workspace.preprocessed, "few")
    labels = load_for_fold(workspace.preprocessed, split, "all", "all")
    assert labels.folder.name == "ensemble"
    with pytest.raises(LimitedError, match="fold 0 validates on"):
        load_for_fold(workspace.preprocessed, split, "all", 0)
    assert labels.origin["folds"] == [0, 1, 2]
    assert all(0 <= about["stability"] < 1 for about in labels.cases.values())
    again = ("pseudo-label", DATASET, "2d", "-p", plans, "--ensemble", "--name", "next", "--previous", "all")
    assert command(*again) == 0
    second = load_for_fold(workspace.preprocessed, split, "next", "all")
    assert_stabler(second, labels)


def predictor_of(workspace: Workspace, plans: str) -> tuple[Predictor, np.ndarray, dict]:
    """Return the model of fold 0, and image and properties of a case."""
    results = Path(os.environ["nnUNet_results"]) / DATASET / f"LimitedSupervisedTrainer__{plans}__2d"
    (folder,) = workspace.preprocessed.glob("nnUNetLimited_*_2d_unlabeled")
    case = load_split(workspace.preprocessed, "few").fold(0).unlabeled[0]
    image, _, _, properties = UnlabeledDataset(str(folder), [case]).load_case(case)
    return Predictor(results, [0], "cpu"), image[:], properties


def test_a_single_model_agrees_with_its_mirrored_passes(trained) -> None:
    """At the price of nnU-Net's own prediction, and without a change of it."""
    predictor, image, properties = predictor_of(*trained)
    axes = predictor.host.allowed_mirroring_axes
    assert len(axes) == 2
    passes = []
    hook = predictor.host.network.register_forward_hook(lambda *_: passes.append(1))
    found = predictor.predict(image, properties)
    assert len(passes) == 4 * image.shape[1]  # slices of one tile each, in four orientations
    hook.remove()
    numbers = predictor.labels.foreground_numbers
    mean = numbers(torch.from_numpy(predictor.mean(image)[0])[None])
    members = [class_counts(numbers(p[None]), mean, 2) for p in predictor.probabilities(image)]
    np.testing.assert_allclose(found.agreement, mean_agreement(members), atol=0.01)  # nnU-Net sums in half precision
    assert np.nanmin(found.agreement) < 0.999
    (plain,) = predictor._logits(image)
    predictor.host.compared, predictor.host.counts = predictor.labels, {}
    (compared,) = predictor._logits(image)
    assert torch.equal(plain, compared)
    counts = {flip: found.clone() for flip, found in predictor.host.counts.items()}
    list(predictor._logits(image))  # as nnU-Net does when the memory of the GPU ran out
    assert all(torch.equal(counts[flip], found) for flip, found in predictor.host.counts.items())


def test_a_single_model_that_must_not_mirror_agrees_with_itself_under_noise(trained) -> None:
    predictor, image, properties = predictor_of(*trained)
    predictor.host.allowed_mirroring_axes = None
    first, second = (predictor.predict(image, properties).agreement for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert 0 < np.nanmin(first) < 0.999


def test_islands_have_no_confidence_and_the_stability_is_of_a_single_model(trained) -> None:
    workspace, plans = trained
    split, sets = load_split(workspace.preprocessed, "few"), {}
    for choice in ("auto", "all"):
        words = ("--name", choice, "--components", choice)
        assert command("pseudo-label", DATASET, "2d", "-p", plans, "-f", "0", *words) == 0
        sets[choice] = load_for_fold(workspace.preprocessed, split, choice, 0)
    rule = ComponentRule(CLASSES, frozenset({1, 2}))
    reader = RawDataset.load(DATASET).reader()()
    dropped = 0
    for case, about in sets["auto"].cases.items():
        (label, confidence), (same, before) = (sets[choice].read(case, reader) for choice in ("auto", "all"))
        islands = rule.in_case(label).any(0)
        assert np.array_equal(label, same)
        assert not confidence[islands].any()
        assert np.array_equal(confidence[~islands], before[~islands])
        dropped += int(before[islands].sum())
        assert 0 <= about["stability"] < 1
        assert about["stability"] == sets["all"].cases[case]["stability"]
    assert dropped


def test_a_set_of_an_earlier_version_is_complete(trained) -> None:
    workspace, plans = trained
    make = ("pseudo-label", DATASET, "2d", "-p", plans, "-f", "0", "--name", "earlier")
    assert command(*make) == 0
    labels = load_for_fold(workspace.preprocessed, load_split(workspace.preprocessed, "few"), "earlier", 0)
    file = labels.folder / "pseudo_labels.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    assert content.pop("components") == "auto"
    for about in content["cases"].values():
        about["stability"] = None
        del about["implausible"]
    file.write_text(json.dumps(content), encoding="utf-8")
    before = file.read_bytes()
    assert command(*make) == 0
    assert file.read_bytes() == before


@pytest.mark.parametrize("variant", ["2d", "regions"])
def test_unsure_voxels_have_no_influence(workspaces, variant: str) -> None:
    workspace = workspaces(variant)
    made = workspace.trainer(
        "LimitedSelfTrainingTrainer", workspace.configure("unsure", **FROM_START, unsupervised_heads="finest")
    )
    made.on_train_start()
    made.on_train_epoch_start()
    made.network.eval()
    crops = made.crops(next(made.dataloader_train))
    assert {made.labels.unused_value, 0, 1} <= set(crops.stored.unique().tolist())
    sure = (crops.stored >= 0) & (crops.stored < made.labels.unused_value) & crops.valid
    spoil = {"seed": 0}

    def add_noise(module, inputs, output):
        noise = torch.randn(output[0].shape, generator=torch.Generator().manual_seed(spoil["seed"]))
        return [output[0] + torch.where(sure, 0.0, 50.0 * noise), *output[1:]]

    hook = made.network.register_forward_hook(add_noise)
    values = []
    for spoil["seed"] in (1, 2):
        values.append(made.unsupervised_loss(crops).loss.item())
    hook.remove()
    assert values[0] == values[1]
    if variant == "2d":
        with torch.no_grad():
            logits = made.network(crops.strong)[0]
        target = torch.nn.functional.one_hot(torch.where(sure, crops.stored, 0)[:, 0].long(), 3).movedim(-1, 1).float()
        expected = segmentation_reference(logits, target, sure, int(crops.valid.sum()))
        assert values[0] == pytest.approx(expected.item(), rel=1e-4)
