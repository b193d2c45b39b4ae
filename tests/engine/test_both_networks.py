"""The log of trainers whose predicting network is not the student."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.mark.parametrize(
    ("trainer", "settings"),
    [("LimitedMeanTeacherTrainer", {}), ("LimitedFixMatchTrainer", {"teacher": "ema"})],
)
def test_the_dice_of_both_networks_and_the_ratio_of_gradients_are_logged(workspaces, trainer: str, settings) -> None:
    workspace = workspaces("2d")
    plans = workspace.configure(
        f"both-{trainer}", **settings, num_epochs=6, start_fraction=0.3, rampup_fraction=0.0, initial_lr=0.01
    )
    made = workspace.trainer(trainer, plans)
    lines: list[str] = []
    made.print_to_log_file = lambda *words, **_: lines.append(" ".join(map(str, words)))
    made.run_training()
    log = made.logger.local_logger.my_fantastic_logging
    assert len(log["student_dice"]) == len(log["mean_fg_dice"]) == 6
    assert log["student_dice"] != log["mean_fg_dice"]
    started = np.array(log["unsupervised_weights"]) > 0
    assert np.isfinite(log["gradient_ratios"])[started].all()
    assert np.isnan(log["gradient_ratios"])[~started].all()
    log["student_dice"][:], log["mean_fg_dice"][:] = [0.5] * 6, [0.48] * 6
    made._warn_of_a_teacher_behind()
    assert "0.020 below that of the student" in lines[-1]
    log["mean_fg_dice"][:] = [0.495] * 6
    lines.clear()
    made._warn_of_a_teacher_behind()
    assert not lines


def test_the_unlabelled_stream_rests_while_its_loss_has_no_weight(workspaces) -> None:
    workspace = workspaces("2d")
    made = workspace.trainer("LimitedMeanTeacherTrainer", workspace.configure("rest", num_epochs=4, start_fraction=0.5))
    made.on_train_start()
    seen = []
    for _ in range(made.total_steps):
        batch = next(made.dataloader_train)
        seen.append("unlabeled" in batch)
        made.train_step(batch)
    assert seen == [step >= made.start_step for step in range(made.total_steps)]
    assert made.start_step == 6


def test_batches_prepared_before_the_start_are_passed_over(workspaces) -> None:
    """Worker processes prepare some while the stream rests."""
    workspace = workspaces("2d")
    made = workspace.trainer("LimitedMeanTeacherTrainer", workspace.configure("late", start_fraction=0.0))
    made.on_train_start()
    batch = next(made.dataloader_train)
    del batch["unlabeled"]
    assert made.train_step(batch)["unsupervised_weights"] > 0


@pytest.mark.parametrize(("epochs", "start"), [(4, 100), (200, 5000), (1000, 5000)])
def test_the_schedule_has_a_limit(workspaces, epochs: int, start: int) -> None:
    workspace = workspaces("2d")
    plans = workspace.configure(f"limit-{epochs}", num_epochs=epochs, num_iterations_per_epoch=250)
    made = workspace.trainer("LimitedMeanTeacherTrainer", plans)
    assert made.start_step == start
    made.iteration = 2 * start
    assert made.progress == 1
    assert made.unsupervised_weight == made.config.consistency_weight
