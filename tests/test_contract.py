"""What every trainer is held to. A new trainer joins by being listed in ``nnunet_limited.trainers``."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace

import blosc2
import helpers
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from helpers import (
    DATASET,
    FROM_START,
    LIKE_STOCK,
    VARIANTS,
    Stock,
    Workspace,
    assert_same,
    losses,
    plan,
    spoil,
    stock_run,
    weights,
)

from nnunet_limited import trainers
from nnunet_limited.engine.checkpoint import KEY
from nnunet_limited.errors import LimitedError
from nnunet_limited.trainers.catalogue import learns_without_label, trainer_names
from nnunet_limited.util.random_state import seed_everything

TRAINERS = trainer_names()
SEMI_SUPERVISED = [name for name in TRAINERS if learns_without_label(name)]
TRAINERS_OF_THE_BASE = ["LimitedSupervisedTrainer", "LimitedMeanTeacherTrainer"]
TEACHERS = [name for name in TRAINERS if getattr(trainers, name).predictor_name == "teacher"]


def settings_for(**settings) -> dict:
    """Settings that a run of any trainer may be given: the unsupervised loss from the first step on."""
    return {**FROM_START, **settings}


def run(workspace: Workspace, trainer: str, name: str, fold: int | str = 0, **settings):
    made = workspace.trainer(trainer, workspace.configure(name, **settings_for(**settings)), fold)
    made.run_training()
    return made


# ---- 1. the label of an unlabelled case is never read ---------------------------------------------------------------


def preprocessed_images(workspace: Workspace, cases: set[str]) -> dict[str, bytes]:
    """Voxels of all preprocessed images, and of the masks of unlabelled ones."""
    found = {}
    for file in sorted(workspace.preprocessed.glob("nnUNetLimited_*/*.b2nd")):
        name = file.name.removesuffix(".b2nd").removesuffix("_seg")
        if name in cases or file.parent.name.endswith("_unlabeled"):
            found[f"{file.parent.name}/{file.name}"] = blosc2.open(str(file))[:].tobytes()
    return found


@pytest.mark.parametrize(
    ("variant", "how"),
    [("deployment", "garbage"), ("deployment", "deleted"), ("2d", "noise"), ("2d", "deleted")],
)
def test_hidden_labels_change_nothing(workspaces, tmp_path: Path, variant: str, how: str) -> None:
    # Every trainer against labels that are gone and against labels that look right; the base's own against all four.
    names = TRAINERS if (variant, how) in {("deployment", "deleted"), ("2d", "noise")} else TRAINERS_OF_THE_BASE
    original = workspaces(variant)
    sample = original.trainer("LimitedMeanTeacherTrainer", original.plans)
    hidden, visible = list(sample.run.fold.unlabeled), {*sample.run.fold.train, *sample.run.fold.val}
    curves = {name: losses(run(original, name, f"hidden{how}", num_epochs=1)) for name in names}

    spoiled = original.copy(tmp_path)
    spoil(spoiled, hidden, how)
    spoiled.plans = plan(VARIANTS[variant])

    assert spoiled.plans == original.plans
    plans = f"{original.plans}.json"
    assert (spoiled.preprocessed / plans).read_bytes() == (original.preprocessed / plans).read_bytes()
    fingerprint = f"fingerprints/{original.plans}/dataset_fingerprint.json"
    assert (spoiled.preprocessed / fingerprint).read_bytes() == (original.preprocessed / fingerprint).read_bytes()
    images = preprocessed_images(original, visible)
    assert images
    assert preprocessed_images(spoiled, visible) == images
    for name in names:
        assert losses(run(spoiled, name, f"hidden{how}", num_epochs=1)) == curves[name]


# ---- 2. with weight 0 a trainer is the host's ------------------------------------------------------------------------


KINDS = ["2d", "3d", "two_channels", "regions", "ignore", "anisotropic"]


# Every trainer in the first kinds; in the others the base's, whose labelled part all of them share.
@pytest.mark.parametrize(
    ("trainer", "variant"),
    [(t, v) for t in TRAINERS for v in (KINDS if t in TRAINERS_OF_THE_BASE else KINDS[:2])],
)
def test_weight_zero_equals_stock(workspaces, trainer: str, variant: str) -> None:
    ours = run(workspaces(variant), trainer, "zero", **LIKE_STOCK)
    theirs, stock_weights = stock_run(variant, ours)
    mine = losses(ours)
    assert mine["train_losses"] == theirs["train_losses"]
    for a, b in zip(weights(ours.network), stock_weights, strict=True):
        assert torch.equal(a, b)
    if trainer not in TEACHERS:  # those validate the teacher
        assert mine == theirs


@pytest.mark.parametrize("trainer", SEMI_SUPERVISED)
def test_labelled_stream_does_not_depend_on_the_unlabelled_one(workspaces, trainer: str) -> None:
    workspace = workspaces("2d")
    ours = workspace.trainer(trainer, workspace.configure("stream", **settings_for()))
    ours.on_train_start()
    stock = Stock.like(ours)
    stock.on_train_start()
    for trained in (ours, stock):
        torch.manual_seed(3)
        np.random.seed(3)
        trained.seen = [next(trained.dataloader_train) for _ in range(3)]
    for mine, theirs in zip(ours.seen, stock.seen, strict=True):
        assert "unlabeled" in mine
        assert torch.equal(mine["data"], theirs["data"])
        assert list(mine["keys"]) == list(theirs["keys"])


# ---- 3. gradients, teacher, mask -------------------------------------------------------------------------------------


def started(workspace: Workspace, trainer: str, name: str, **settings):
    made = workspace.trainer(trainer, workspace.configure(name, **settings_for(**settings)))
    made.on_train_start()
    made.on_train_epoch_start()
    return made


@pytest.mark.parametrize("variant", ["2d", "3d", "regions"])
@pytest.mark.parametrize("trainer", SEMI_SUPERVISED)
def test_unsupervised_gradient_reaches_the_student_only(workspaces, trainer: str, variant: str) -> None:
    made = started(workspaces(variant), trainer, "gradient")
    made.train_step(next(made.dataloader_train))
    made.optimizer.zero_grad(set_to_none=True)
    made.unsupervised_loss(made.crops(next(made.dataloader_train))).loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in made.network.parameters())
    if trainer in TEACHERS:
        assert not any(p.requires_grad or p.grad is not None for p in made.partners["teacher"].parameters())
        assert not made.partners["teacher"].training


@pytest.mark.parametrize("trainer", SEMI_SUPERVISED)
def test_unsupervised_loss_changes_the_step(workspaces, trainer: str) -> None:
    with_it = run(workspaces("2d"), trainer, "with")
    without = run(workspaces("2d"), trainer, "without", consistency_weight=0.0)
    assert losses(with_it)["train_losses"] != losses(without)["train_losses"]
    assert any(not torch.equal(a, b) for a, b in zip(weights(with_it.network), weights(without.network), strict=True))


@pytest.mark.parametrize("trainer", TEACHERS)
def test_teacher_follows_its_closed_form(workspaces, trainer: str) -> None:
    made = started(workspaces("2d"), trainer, "ema", ema_decay=0.7)
    teacher = made.partners["teacher"]
    students = []
    for _ in range(10):
        made.train_step(next(made.dataloader_train))
        students.append(weights(made.network))
    expected = [torch.zeros_like(w, dtype=torch.float64) for w in students[0]]
    for step, student in enumerate(students):
        decay = min(1 - 1 / (step + 1), 0.7)
        expected = [decay * e + (1 - decay) * s.double() for e, s in zip(expected, student, strict=True)]
    for mean, parameter in zip(expected, teacher.parameters(), strict=True):
        torch.testing.assert_close(parameter.double(), mean, rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(p, n) for p, n in zip(teacher.parameters(), students[-1], strict=True))
    state = teacher.state_dict()  # the decoder's encoder is the encoder: averaged once, whatever it is called
    for key in [key for key in state if key.startswith("encoder.")]:
        assert torch.equal(state[key], state[f"decoder.{key}"])


@pytest.mark.parametrize("trainer", SEMI_SUPERVISED)
def test_masked_voxels_have_no_influence(workspaces, trainer: str) -> None:
    made = started(workspaces("2d"), trainer, "mask")
    made.network.eval()
    made.loss = SimpleNamespace(loss=lambda output, target: output.sum())  # supervised losses have masks of their own
    crops = made.crops(next(made.dataloader_train))
    mask = torch.ones_like(crops.valid)
    mask[..., : mask.shape[-1] // 2] = False
    label = torch.where(mask, crops.full_label, -1)  # nor is it annotated, where labelled crops are pasted
    recorded = []

    def spoil_outputs(module, inputs, output):
        heads = output if isinstance(output, (list, tuple)) else [output]
        if heads[0].shape[2:] != mask.shape[2:]:
            return output  # a discriminator's
        noise = torch.where(mask[: len(heads[0])].cpu(), 0.0, 50.0 * torch.randn(heads[0].shape, generator=generator))
        spoiled = heads[0] + noise.to(mask.device)
        spoiled.retain_grad() if spoiled.requires_grad else None
        recorded.append(spoiled)
        return [spoiled, *heads[1:]]

    networks = [getattr(network, "decoder", network) for network in made.networks.values()]
    hooks = [network.register_forward_hook(spoil_outputs) for network in networks]
    values = []
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        recorded.clear()
        made.optimizer.zero_grad(set_to_none=True)
        seed_everything(0)
        loss = made.unsupervised_loss(crops._replace(inside=mask, valid=mask, label=label)).loss
        loss.backward()
        values.append(loss.item())
        for output in recorded:
            if output.grad is not None:
                assert not output.grad[~mask.expand_as(output)].any()
                assert output.grad[mask.expand_as(output)].any()
    for hook in hooks:
        hook.remove()
    assert values[0] == values[1]


# ---- 4. stop and go on -----------------------------------------------------------------------------------------------


class Stopped(Exception):
    pass


@pytest.mark.parametrize(
    ("trainer", "variant"), [*((t, "2d") for t in TRAINERS), *((t, "3d") for t in TRAINERS_OF_THE_BASE)]
)
def test_resumed_equals_never_stopped(workspaces, monkeypatch, trainer: str, variant: str) -> None:
    workspace = workspaces(variant)
    length = {
        "num_epochs": 3,
        "save_every": 1,
        "start_fraction": 0.25,
        "rampup_fraction": 0.5,
        "log_pseudo_label_dice": True,
    }
    whole = run(workspace.activate("whole"), trainer, "resume", **length)

    workspace.activate("stopped")
    first = workspace.trainer(trainer, workspace.configure("resume", **settings_for(**length)))
    begin = first.on_epoch_start

    def stop_at_two():
        if first.current_epoch == 2:
            raise Stopped
        begin()

    monkeypatch.setattr(first, "on_epoch_start", stop_at_two)
    with pytest.raises(Stopped):
        first.run_training()
    torch.rand(5), np.random.rand(5)
    second = workspace.trainer(trainer, workspace.configure("resume", **settings_for(**length)), resume=True)
    assert second.current_epoch == 2
    second.run_training()

    logs = [t.logger.local_logger.my_fantastic_logging for t in (second, whole)]
    for key in logs[0].keys() - {"epoch_start_timestamps", "epoch_end_timestamps"}:
        np.testing.assert_allclose(logs[0][key], logs[1][key], *helpers.TOLERANCES, err_msg=key)
    assert second.iteration == whole.iteration
    files = [Path(t.output_folder) / "checkpoint_final.pth" for t in (second, whole)]
    a, b = (torch.load(file, weights_only=False) for file in files)
    assert_same(a["network_weights"], b["network_weights"])
    assert_same(a["optimizer_state"], b["optimizer_state"])
    assert_same(a[KEY]["networks"], b[KEY]["networks"])
    for part in ("random_state", "streams", "optimizers"):
        assert_same(a[KEY][part], b[KEY][part])
    assert a["_best_ema"] == pytest.approx(b["_best_ema"], *helpers.TOLERANCES)


@pytest.mark.parametrize("trainer", TRAINERS_OF_THE_BASE)  # that a run can be repeated is in the test above for all
def test_same_seed_same_run(workspaces, trainer: str) -> None:
    first = losses(run(workspaces("2d").activate("seed_a"), trainer, "seeded"))
    assert losses(run(workspaces("2d").activate("seed_b"), trainer, "seeded")) == first
    assert losses(run(workspaces("2d").activate("seed_c"), trainer, "reseeded", seed=8)) != first


@pytest.mark.parametrize("trainer", TRAINERS_OF_THE_BASE)
def test_interrupted_write_leaves_the_old_checkpoint(workspaces, monkeypatch, trainer: str) -> None:
    made = run(workspaces("2d"), trainer, "atomic")
    file = Path(made.output_folder) / "checkpoint_final.pth"
    before = file.read_bytes()
    made.iteration += 1

    def die(content, target, **kwargs):
        Path(target).write_bytes(b"half") if isinstance(target, (str, Path)) else real(content, target)
        if isinstance(target, (str, Path)):
            raise Stopped

    real = torch.save
    monkeypatch.setattr(torch, "save", die)
    with pytest.raises(Stopped):
        made.save_checkpoint(str(file))
    assert file.read_bytes() == before


# ---- 5. the host's commands on our results ---------------------------------------------------------------------------


@pytest.mark.parametrize("trainer", TRAINERS)
def test_validation_equals_val_and_prediction(workspaces, tmp_path: Path, trainer: str) -> None:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    workspace = workspaces("2d")
    made = run(workspace, trainer, "validate", num_epochs=1, num_iterations_per_epoch=15)
    made.perform_actual_validation()
    folder = Path(made.output_folder)
    summary = json.loads((folder / "validation" / "summary.json").read_text(encoding="utf-8"))["metric_per_case"]
    shutil.rmtree(folder / "validation")

    again = workspace.trainer(trainer, made.plans_manager.plans_name)
    again.load_checkpoint(str(folder / "checkpoint_final.pth"))
    again.perform_actual_validation()
    assert (
        json.loads((folder / "validation" / "summary.json").read_text(encoding="utf-8"))["metric_per_case"] == summary
    )

    predictor = nnUNetPredictor(device=helpers.DEVICE, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder.parent), (0,))
    images = workspace.root / "raw" / DATASET / "imagesTr"
    for case in made.run.fold.val:
        predictor.predict_from_files_sequential([[str(images / f"{case}_0000.nii.gz")]], [str(tmp_path / case)])
        predicted = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"{case}.nii.gz")))
        validated = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "validation" / f"{case}.nii.gz")))
        assert predicted.any()
        assert np.array_equal(predicted, validated)


# ---- 6. every kind of data -------------------------------------------------------------------------------------------


# What a method may take differently, with every trainer (2d and 3d are above); the rest with the base's.
OF_METHODS = ("two_channels", "regions", "ignore", "all_annotated", "ignore_regions", "anisotropic")
KINDS_OF_DATA = [*((variant, 0) for variant in OF_METHODS), ("one_labeled", 1), ("deployment", "all")]
KINDS_OF_SPLITS = [("3d", 0), ("one_labeled", 0), ("deployment", 0), ("2d", "all")]


@pytest.mark.parametrize(
    ("trainer", "variant", "fold"),
    [(t, *kind) for t in TRAINERS for kind in KINDS_OF_DATA]
    + [(t, *kind) for t in TRAINERS_OF_THE_BASE for kind in KINDS_OF_SPLITS],
)
def test_every_kind_of_data_trains(workspaces, trainer: str, variant: str, fold: int | str) -> None:
    if trainer == "LimitedSlicePropagationTrainer":  # which refuses labels without a whole slice
        variant = {"ignore": "planes_2d", "ignore_regions": "planes_regions"}.get(variant, variant)
    workspace = workspaces(variant)
    made = run(workspace, trainer, "kinds", fold=fold, num_epochs=1, log_pseudo_label_dice=True)
    log = made.logger.local_logger.my_fantastic_logging
    assert {len(values) for values in log.values()} == {made.num_epochs}
    assert all(math.isfinite(value) for value in log["train_losses"] + log["ema_fg_dice"])
    if trainer in SEMI_SUPERVISED:
        assert all(value > 0 for value in log["unsupervised_losses"])
    folder = Path(made.output_folder)
    assert {f.name for f in folder.glob("checkpoint*")} == {"checkpoint_final.pth", "checkpoint_best.pth"}
    content = torch.load(folder / "checkpoint_final.pth", weights_only=False)
    fresh = type(made).build_network_architecture(
        made.plans_manager,
        made.configuration_manager,
        made.num_input_channels,
        made.label_manager.num_segmentation_heads,
        True,
    )
    fresh.load_state_dict(content["network_weights"])
    assert_same(dict(fresh.state_dict()), dict(made.networks[made.predictor_name].state_dict()))


@pytest.mark.parametrize("trainer", ["LimitedMeanTeacherTrainer", "LimitedCrossPseudoSupervisionTrainer"])
def test_logging_hidden_labels_changes_nothing_else(workspaces, trainer: str) -> None:
    workspace = workspaces("2d")
    logged = run(workspace, trainer, "logged", log_pseudo_label_dice=True)
    silent = run(workspace, trainer, "silent", log_pseudo_label_dice=False)
    assert losses(logged) == losses(silent)
    assert all(0 <= value <= 1 for value in logged.logger.get_value("pseudo_label_dice", step=None))


@pytest.mark.parametrize("trainer", TRAINERS_OF_THE_BASE)
def test_other_settings_in_the_same_folder_are_refused(workspaces, trainer: str) -> None:
    workspace = workspaces("2d")
    made = run(workspace, trainer, f"mixed-{trainer}")
    file = workspace.preprocessed / f"{made.plans_manager.plans_name}.json"
    plans = json.loads(file.read_text(encoding="utf-8"))
    plans["limited"]["settings"]["initial_lr"] = 0.005
    file.write_text(json.dumps(plans), encoding="utf-8")
    with pytest.raises(LimitedError, match=r"initial_lr=0\.001.*initial_lr=0\.005"):
        workspace.trainer(trainer, made.plans_manager.plans_name)


def test_folders_are_as_the_host_expects(workspaces) -> None:
    workspace = workspaces("2d")
    for folder in workspace.preprocessed.glob("nnUNetLimited_*"):
        beside = "_pseudo_" in folder.name or folder.name.endswith("_boxes")  # labels of the cases in another folder
        stored = {".b2nd"} if beside else {".b2nd", ".pkl"}
        assert {file.suffix for file in folder.iterdir()} == stored
    assert not (workspace.preprocessed / "dataset_fingerprint.json").exists()
