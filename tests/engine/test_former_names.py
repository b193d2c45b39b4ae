"""Settings under their former names: in plans, in names of plans and in the records of runs."""

from __future__ import annotations

import json

import pytest
import torch
from helpers import FROM_START

from nnunet_limited.engine import checkpoint
from nnunet_limited.engine.run import FORMAT, RECORD, open_run
from nnunet_limited.engine.settings import RENAMED, merged, with_current_names
from nnunet_limited.engine.split_trainer import known_settings
from nnunet_limited.errors import LimitedError
from nnunet_limited.prompters.prompts import PromptSettings
from nnunet_limited.runs.variants import variant_name

TRAINER = "LimitedSelfTrainingTrainer"


def test_former_names_are_of_settings_that_exist() -> None:
    known = known_settings() | set(PromptSettings.model_fields)
    assert set(RENAMED.values()) <= known
    assert not set(RENAMED) & known


def test_names_of_plans_are_made_from_the_names_given() -> None:
    assert variant_name({"stable_share": 0.5}) == "stable_share-0.5"
    assert variant_name({"stable_fraction": 0.5}) == "stable_fraction-0.5"


def test_the_later_of_two_names_counts() -> None:
    assert with_current_names({"stable_share": 0.5, "stable_fraction": 0.7}) == {"stable_fraction": 0.7}
    assert merged({"stable_share": 0.5, "seed": 1}, {"stable_fraction": 0.7}) == {"seed": 1, "stable_fraction": 0.7}
    assert merged({"stable_fraction": 0.5}, {"stable_share": 0.7}) == {"stable_share": 0.7}
    assert merged({"stable_share": 0.5}, {"stable_share": 0.7}) == {"stable_share": 0.7}


def test_a_run_recorded_under_former_names_can_be_continued(workspaces) -> None:
    workspace = workspaces("2d")
    made = workspace.trainer(TRAINER, workspace.configure("former", **FROM_START, stable_share=0.5))
    assert made.config.stable_fraction == 0.5
    run = made.run
    settings = run.record["settings"]
    former = {key: value for key, value in settings.items() if key != "stable_fraction"} | {"stable_share": 0.5}
    run.results.mkdir(parents=True, exist_ok=True)
    (run.results / RECORD).write_text(json.dumps({**run.record, "settings": former}), encoding="utf-8")
    again = open_run(TRAINER, run.planned, run.configuration, 0, made.config)
    assert again.record == {key: run.record[key] for key in again.record}
    other = made.config.model_copy(update={"stable_fraction": 0.6})
    with pytest.raises(LimitedError, match=r"with stable_fraction=0.5, this one has stable_fraction=0.6"):
        open_run(TRAINER, run.planned, run.configuration, 0, other)


def test_the_former_values_of_components_are_understood(workspaces) -> None:
    trainer, workspace = "LimitedBidirectionalCopyPasteTrainer", workspaces("2d")
    assert with_current_names({"components": "auto"}) == {"components": "auto"}
    for former, now in ((True, "largest"), (False, "all")):
        plans = workspace.configure(f"former-{former}", **FROM_START, largest_component=former)
        run = workspace.trainer(trainer, plans).run
        assert run.record["settings"]["components"] == now
        before = {key: value for key, value in run.record["settings"].items() if key != "components"}
        run.results.mkdir(parents=True, exist_ok=True)
        record = {**run.record, "settings": before | {"largest_component": former}}
        (run.results / RECORD).write_text(json.dumps(record), encoding="utf-8")
        assert workspace.trainer(trainer, plans).config.components == now


def test_a_run_keeps_the_defaults_that_it_began_with(workspaces) -> None:
    """Its other folds too; settings that are newer than its record stand for how it was trained without them."""
    name = "LimitedMeanTeacherTrainer"
    workspace = workspaces("2d")
    plans = workspace.configure("begun", num_epochs=2)
    made = workspace.trainer(name, plans)
    newer = {"schedule_limit", "ema_window"}
    former = {key: value for key, value in made.run.record["settings"].items() if key not in newer}
    former |= {"start_fraction": 0.4, "consistency_weight": 1.0}
    made.run.results.mkdir(parents=True, exist_ok=True)
    record = {key: value for key, value in made.run.record.items() if key not in ("given", "format")}
    (made.run.results / RECORD).write_text(json.dumps({**record, "settings": former}), encoding="utf-8")
    for fold in (0, 1):
        again = workspace.trainer(name, plans, fold=fold)
        assert (again.config.start_fraction, again.config.consistency_weight) == (0.4, 1.0)
        assert again.config.schedule_limit is None
        assert again.config.num_epochs == 2
    other = made.config.model_copy(update={**former, "start_fraction": 0.3})
    with pytest.raises(LimitedError, match=r"with start_fraction=0.4, this one has start_fraction=0.3"):
        open_run(name, made.run.planned, made.run.configuration, 0, other)


def test_a_setting_that_left_the_plans_is_no_former_default(workspaces) -> None:
    """It is refused as any other setting; only settings that the plans did not name are adopted."""
    name = "LimitedMeanTeacherTrainer"
    workspace = workspaces("2d")
    made = workspace.trainer(name, workspace.configure("left", start_fraction=0.4, strong_view="default"))
    assert {"start_fraction", "strong_view", "num_epochs", "optimizer"} <= set(made.run.record["given"])
    assert not {"consistency_weight", "cutmix"} & set(made.run.record["given"])
    settings = {**made.run.record["settings"], "consistency_weight": 1.0}
    made.run.results.mkdir(parents=True, exist_ok=True)
    (made.run.results / RECORD).write_text(json.dumps({**made.run.record, "settings": settings}), encoding="utf-8")
    file = workspace.preprocessed / f"{made.run.planned.name}.json"
    plans = json.loads(file.read_text(encoding="utf-8"))
    assert workspace.trainer(name, plans["plans_name"]).config.consistency_weight == 1.0
    for key, now in (("start_fraction", 0.1), ("strong_view", "strong")):
        left = {**plans, "limited": {**plans["limited"], "settings": dict(plans["limited"]["settings"])}}
        left["limited"]["settings"].pop(key)
        file.write_text(json.dumps(left), encoding="utf-8")
        with pytest.raises(LimitedError, match=f"{key}={settings[key]}, this one has {key}={now}"):
            workspace.trainer(name, plans["plans_name"])


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("LimitedUAMTTrainer", "the limit of the uncertainty"),
        ("LimitedBCPTrainer", "voxels outside of the largest component"),
        ("LimitedCCTTrainer", "features of every stride"),
        ("LimitedMeanTeacherTrainer", ""),
    ],
)
def test_what_no_setting_brings_back_is_logged(workspaces, name: str, what: str) -> None:
    """Each time that a run of an earlier version is continued, and beside one; never in a new folder."""
    workspace = workspaces("2d")
    plans = workspace.configure("earlier")

    def logged(fold: int) -> str:
        made = workspace.trainer(name, plans, fold)
        made.run.results.mkdir(parents=True, exist_ok=True)
        made.run.write_record()
        lines: list[str] = []
        made.print_to_log_file = lines.append
        made._print_run()
        return "\n".join(line for line in lines if "earlier version" in line)

    assert logged(0) == ""
    file = workspace.trainer(name, plans).run.results / RECORD
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record.pop("format") == FORMAT
    assert record.pop("given")
    file.write_text(json.dumps(record), encoding="utf-8")
    trainer = type(workspace.trainer(name, plans))
    torch.save(
        {"trainer_name": name, checkpoint.KEY: {"format": checkpoint.FORMAT, "record": record}}, file.parent / "c"
    )
    checkpoint.check(file.parent / "c", trainer, workspace.trainer(name, plans).run.record)
    for fold in (0, 0, 1):
        assert what in logged(fold)
        assert bool(logged(fold)) == bool(what)
    assert workspace.trainer(name, plans, 1).run.record["format"] == FORMAT
