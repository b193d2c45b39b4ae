"""What surrounds the step: worker processes, warnings, other loggers."""

from __future__ import annotations

import json
import pickle
import threading
from pathlib import Path

import pytest
import torch
from helpers import DATASET, DEVICE, FROM_START, plan

from nnunet_limited.data.views import Views
from nnunet_limited.engine.checkpoint import KEY
from nnunet_limited.engine.run import RECORD
from nnunet_limited.engine.settings import parse_assignments
from nnunet_limited.errors import LimitedError
from nnunet_limited.runs.crossval import missing_step, train_folds
from nnunet_limited.runs.launch import prepare
from nnunet_limited.runs.request import TrainRequest
from nnunet_limited.runs.variants import configure
from nnunet_limited.trainers.two_stage.self_training import SelfTrainingConfig
from nnunet_limited.util.files import one_at_a_time

TEACHER = "LimitedMeanTeacherTrainer"


def test_worker_processes_draw_both_streams(workspaces, monkeypatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    workspace = workspaces("2d")
    made = workspace.trainer(TEACHER, workspace.configure("workers", **FROM_START))
    made.on_train_start()
    made.on_train_epoch_start()
    try:
        batches = [next(made.dataloader_train) for _ in range(8)]
        crops = {batch["unlabeled"]["data"].numpy().tobytes() for batch in batches}
        assert len(crops) == 8  # the two processes draw different ones
        assert made.train_step(batches[0])["unsupervised_losses"] > 0
    finally:
        made.dataloader_train._finish()
        made.dataloader_val._finish()
    again = pickle.loads(pickle.dumps(made.unlabeled_loader))
    assert next(again)["unlabeled"]["data"].shape == batches[0]["unlabeled"]["data"].shape


def test_views_share_geometry_and_differ_in_intensity(workspaces) -> None:
    workspace = workspaces("2d")
    made = workspace.trainer(TEACHER, workspace.configure("views", **FROM_START))
    made.on_train_start()
    batch = [next(made.dataloader_train)["unlabeled"] for _ in range(4)]
    weak, strong = torch.cat([b["data"] for b in batch]).chunk(2, dim=1)
    assert set(batch[0]["target"].unique().tolist()) <= {-1, 0}
    assert not torch.equal(weak, strong)
    for w, s in zip(weak, strong, strict=True):
        assert abs(torch.corrcoef(torch.stack([w.flatten(), s.flatten()]))[0, 1]) > 0.5


def test_unknown_augmentation_is_refused() -> None:
    class Pipeline:
        transforms = (object(),)

    with pytest.raises(LimitedError, match="augmentation object"):
        Views(Pipeline())


def test_collapsed_pseudo_labels_are_warned_of_and_terms_reach_every_logger(workspaces, capsys) -> None:
    workspace = workspaces("2d")
    made = workspace.trainer(TEACHER, workspace.configure("collapse", num_epochs=1, **FROM_START))
    seen: dict[str, float] = {}

    class Logger:
        def log(self, key, value, step):
            seen[key] = value

        def update_config(self, config):
            pass

    made.logger.loggers.append(Logger())
    made.on_train_start()
    with torch.no_grad():
        for layer in made.partners["teacher"].decoder.seg_layers:
            layer.weight.zero_()
            layer.bias.copy_(torch.tensor([9.0, 0.0, 0.0]))
    made.after_step = lambda: None
    made.on_epoch_start()
    made.on_train_epoch_start()
    made.on_train_epoch_end([made.train_step(next(made.dataloader_train))])
    made.on_validation_epoch_end([made.validation_step(next(made.dataloader_val))])
    made.on_epoch_end()
    assert "all pseudo-labels that count were of one class" in capsys.readouterr().out
    assert {"unsupervised_losses", "unsupervised_weights", "pseudo_label_shares/class_1"} <= seen.keys()
    assert seen["pseudo_label_shares/class_1"] == 1


def test_pretrained_weights_reach_the_teacher(workspaces) -> None:
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

    workspace = workspaces("2d")
    first = workspace.trainer(TEACHER, workspace.configure("before", num_epochs=1, **FROM_START))
    first.run_training()
    made = workspace.trainer(TEACHER, workspace.configure("after", num_epochs=1, seed=9, **FROM_START))
    made.initialize()
    load_pretrained_weights(made.network, str(Path(first.output_folder) / "checkpoint_final.pth"))
    loaded = [p.detach().clone() for p in made.network.parameters()]
    made.on_train_start()
    assert all(torch.equal(a, b) for a, b in zip(loaded, made.network.parameters(), strict=True))
    made.on_train_epoch_start()
    made.train_step(next(made.dataloader_train))
    for student, teacher in zip(made.network.parameters(), made.partners["teacher"].parameters(), strict=True):
        assert torch.equal(student, teacher)  # after the first step the teacher is the student


def test_planning_again_reads_no_image(workspaces, monkeypatch) -> None:
    workspace = workspaces("2d")
    plan(workspace.variant)  # what is copied from elsewhere is inspected once
    monkeypatch.setattr("nnunet_limited.planners.fingerprint.inspect_case", None)
    assert plan(workspace.variant) == workspace.plans


def test_host_plans_take_settings(workspaces) -> None:
    workspace = workspaces("2d")
    content = (workspace.preprocessed / f"{workspace.plans}.json").read_text(encoding="utf-8")
    import json

    plans = json.loads(content)
    del plans["limited"]
    plans["plans_name"] = "nnUNetPlans"
    (workspace.preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans), encoding="utf-8")
    assert configure(workspace.preprocessed, "nnUNetPlans", {"num_epochs": 3}) == "nnUNetPlans_num_epochs-3"


MINE = """
from pydantic import Field
from nnunet_limited.trainers import LimitedMeanTeacherTrainer, LimitedTrainer
from nnunet_limited.trainers.semi_supervised.mean_teacher import MeanTeacherConfig

class MineConfig(MeanTeacherConfig):
    own_threshold: float = Field(0.1, ge=0, description="mine")

class LimitedMineTrainer(LimitedMeanTeacherTrainer):
    Config = MineConfig

class LimitedUnfinishedTrainer(LimitedTrainer):
    pass
"""


def test_a_trainer_of_the_users_own(workspaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    workspace = workspaces("2d")
    request = TrainRequest(
        dataset=DATASET, configuration="2d", fold="0", trainer="LimitedMineTrainer", plans=workspace.plans
    )
    ready = prepare(request.with_settings(["own_threshold=0.5"], None, None))
    ready.write_plans()
    assert workspace.trainer(ready.trainer, ready.plans).config.own_threshold == 0.5
    with pytest.raises(LimitedError, match="LimitedUnfinishedTrainer: it has no unsupervised_loss"):
        workspace.trainer("LimitedUnfinishedTrainer", workspace.plans)


def test_a_fold_is_complete_with_the_probabilities_asked_for(tmp_path: Path) -> None:
    assert missing_step(tmp_path, True) == ("training", ())
    (tmp_path / "checkpoint_final.pth").touch()
    (tmp_path / "validation").mkdir()
    (tmp_path / "validation" / "summary.json").write_text('{"metric_per_case": [{}, {}]}', encoding="utf-8")
    assert missing_step(tmp_path, False) is None
    for name in ("a", "b"):
        assert missing_step(tmp_path, True) == ("validating", ("--val",))
        (tmp_path / "validation" / f"{name}.npz").touch()
    assert missing_step(tmp_path, True) is None


def test_settings_are_numbers_only_where_no_name_is_lost() -> None:
    given = ["a=0.3", "b=20", "c=none", "d=true", "e=007", "f=2024_01", "g=1e-3"]
    found = parse_assignments(given)
    assert found == {"a": 0.3, "b": 20, "c": None, "d": True, "e": "007", "f": "2024_01", "g": "1e-3"}
    assert SelfTrainingConfig(initial_lr="1e-3", pseudo_labels=2024).model_dump() == {
        **SelfTrainingConfig().model_dump(),
        "initial_lr": 0.001,
        "pseudo_labels": "2024",
    }


def test_both_views_are_blank_outside_a_masked_image() -> None:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    pipeline = nnUNetTrainer.get_training_transforms(
        (16, 16), (-0.1, 0.1), None, (0, 1), False, use_mask_for_norm=[True]
    )
    views = Views(pipeline)
    for _ in range(20):
        segmentation = torch.zeros(1, 24, 24, dtype=torch.int16)
        segmentation[:, :, 12:] = -1
        out = views(image=torch.full((1, 24, 24), 5.0) + torch.rand(1, 24, 24), segmentation=segmentation)
        inside = out["segmentation"] >= 0
        assert inside.any()
        assert not out["image"][~inside.expand(2, -1, -1)].any()


def test_each_network_is_clipped_by_itself(workspaces) -> None:
    workspace = workspaces("2d")
    made = workspace.trainer("LimitedCPSTrainer", workspace.configure("clip", **FROM_START))
    made.on_train_start()
    networks = (made.network, made.partners["second"])
    for scale, network in zip((1.0, 100.0), networks, strict=True):
        for parameter in network.parameters():
            parameter.grad = torch.full_like(parameter, scale)
    made._optimizer_step()
    for network in networks:
        norm = torch.stack([parameter.grad.norm() for parameter in network.parameters()]).norm()
        assert norm.item() == pytest.approx(12, rel=1e-3)


@pytest.mark.parametrize("trainer", ["LimitedCPSTrainer", "LimitedCrossTeachingTrainer"])
def test_second_networks_learn_from_the_labelled_crops(workspaces, trainer: str) -> None:
    workspace = workspaces("2d")
    made = workspace.trainer(trainer, workspace.configure("labelled", **FROM_START, consistency_weight=0.0))
    made.on_train_start()
    made.on_train_epoch_start()
    second = made.partners["second"]
    before = [parameter.detach().clone() for parameter in second.parameters()]
    made.train_step(next(made.dataloader_train))
    assert any(not torch.equal(a, b) for a, b in zip(before, second.parameters(), strict=True))


def test_a_fold_is_trained_once_by_two_at_a_time(workspaces, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits for the first and finds the fold complete."""
    workspace = workspaces("2d").activate("results_twice")
    request = TrainRequest(
        dataset=DATASET,
        configuration="2d",
        fold="0",
        trainer="LimitedSupervisedTrainer",
        plans=workspace.configure("twice"),
    )
    folder = request.results / "fold_0"
    monkeypatch.setattr("nnunet_limited.runs.crossval.subprocess.run", lambda *a, **k: pytest.fail("trained"))
    lines: list[str] = []
    second = threading.Thread(target=train_folds, args=(request, [0], lines.append))
    with one_at_a_time(folder):
        second.start()
        second.join(10)
        assert second.is_alive()
        assert not lines
        (folder / "validation").mkdir(parents=True)
        (folder / "checkpoint_final.pth").touch()
        (folder / "validation" / "summary.json").write_text("{}", encoding="utf-8")
    second.join()
    assert lines == ["fold 0: complete"]


@pytest.mark.parametrize("variant", ["2d", "3d"])
def test_channels_come_last_in_every_network_and_change_nothing_else(workspaces, variant: str) -> None:
    workspace, made = workspaces(variant), []
    for last in (False, True):
        plans = workspace.configure(f"last{last}", **FROM_START, channels_last=last)
        trainer = workspace.trainer("LimitedCPSTrainer", plans)
        trainer.on_train_start()
        trainer.on_train_epoch_start()
        torch.manual_seed(0)
        made.append((trainer, [trainer.train_step(next(trainer.dataloader_train))["loss"] for _ in range(2)]))
    kinds = {4: torch.channels_last, 5: torch.channels_last_3d}
    for trainer, asked in zip((one for one, _ in made), (False, True), strict=True):
        for network in trainer.networks.values():
            kernels = [p for p in network.parameters() if p.dim() in kinds and min(p.shape[1], p[0, 0].numel()) > 1]
            assert kernels
            wanted = asked and trainer.device.type == "cpu"
            assert all(p.is_contiguous(memory_format=kinds[p.dim()]) == wanted for p in kernels)
    assert made[0][1] == pytest.approx(made[1][1], rel=1e-4)


def test_a_run_on_a_cpu_keeps_to_its_share_of_the_cores(workspaces, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host's command takes all of them. On a GPU the number is left alone."""
    workspace, before = workspaces("2d"), torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    try:
        workspace.trainer("LimitedSupervisedTrainer", workspace.configure("share")).initialize()
        assert torch.get_num_threads() == (2 if DEVICE.type == "cpu" else before)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("now", [False, True])
def test_a_run_from_before_a_setting_existed_had_its_default(workspaces, now: bool) -> None:
    workspace = workspaces("2d").activate("results_older")
    plans = workspace.configure("older", num_epochs=1, channels_last=False)
    first = workspace.trainer("LimitedSupervisedTrainer", plans)
    first.run_training()
    record = first.run.results / RECORD
    file = first.run.results / "checkpoint_final.pth"
    about, content = json.loads(record.read_text(encoding="utf-8")), torch.load(file, weights_only=False)
    for settings in (about["settings"], content[KEY]["record"]["settings"]):
        del settings["channels_last"]
    torch.save(content, file)
    record.write_text(json.dumps(about), encoding="utf-8")
    if now:
        stored = workspace.preprocessed / f"{plans}.json"
        changed = json.loads(stored.read_text(encoding="utf-8"))
        changed["limited"]["settings"]["channels_last"] = True
        stored.write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(LimitedError, match="channels_last=False, this one has channels_last=True"):
            workspace.trainer("LimitedSupervisedTrainer", plans, resume=True)
    else:
        assert workspace.trainer("LimitedSupervisedTrainer", plans, resume=True).current_epoch == 1
