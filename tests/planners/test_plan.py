"""Plans are made once."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from helpers import DATASET, plan
from hidden_labels import Watch

from nnunet_limited.planners.plan import keep_settings, make_plans
from nnunet_limited.planners.request import PlanRequest
from nnunet_limited.planners.size import SETTINGS
from nnunet_limited.runs.variants import configure
from nnunet_limited.splits import load_split


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="files are watched on Linux only")
def test_planning_again_reads_what_is_never_hidden_alone(workspaces) -> None:
    """Scans are inspected once, those that were copied from elsewhere too."""
    workspace = workspaces("2d")
    assert plan(workspace.variant) == workspace.plans
    file = workspace.preprocessed / f"{workspace.plans}.json"
    content = file.read_bytes()
    first, *images = sorted(workspace.raw.glob("imagesTr/*"))  # nnU-Net looks at the first for its format
    assert workspace.hidden[0] in first.name
    watch = Watch([*images, *workspace.raw.glob("labelsTr/*")])
    request = PlanRequest(dataset=DATASET, split="few", configurations=("2d",), size="tiny", processes=1)
    assert make_plans(request).plans == workspace.plans
    file.write_bytes(content)
    opened = {opened.name.split(".")[0].removesuffix("_0000") for opened in watch.opened()}
    assert opened == set(load_split(workspace.preprocessed, "few").never_hidden)


def test_plans_keep_the_settings_that_they_were_made_with(workspaces) -> None:
    """Those of a size change from version to version; plans with other settings, made from them, are not refused."""
    workspace = workspaces("2d")
    file = workspace.preprocessed / f"{workspace.plans}.json"
    content = file.read_bytes()
    former = json.loads(content)
    former["limited"]["settings"] = {key: value for key, value in SETTINGS.items() if key != "cpu_autocast"}
    file.write_text(json.dumps(former), encoding="utf-8")
    request = PlanRequest(dataset=DATASET, split="few", configurations=("2d",), size="tiny", processes=1)
    try:
        settings = {"num_epochs": 4}
        before = configure(workspace.preprocessed, workspace.plans, settings)
        result = make_plans(request)
        assert json.loads(file.read_text(encoding="utf-8"))["limited"]["settings"] == former["limited"]["settings"]
        file.write_text(json.dumps(former), encoding="utf-8")  # the network of tests is smaller than tiny
        assert configure(workspace.preprocessed, workspace.plans, settings) == before
    finally:
        file.write_bytes(content)
    [line] = [line for line in result.warnings if "keeps the settings" in line]
    assert "cpu_autocast=True instead" in line


def test_plans_of_another_request_have_the_settings_of_today(tmp_path: Path) -> None:
    file = tmp_path / "plans.json"
    now = {"version": "2", "split": "few", "split_hash": "a", "size": "tiny", "settings": {"optimizer": "adamw"}}
    for change, kept in (({"version": "1"}, True), ({"split_hash": "b"}, False), ({"size": None}, False)):
        file.write_text(json.dumps({"limited": {**now, **change, "settings": {"optimizer": "sgd"}}}), encoding="utf-8")
        plans = {"limited": dict(now)}
        assert bool(keep_settings(plans, file)) == kept
        assert plans["limited"]["settings"] == {"optimizer": "sgd" if kept else "adamw"}
    file.write_text(json.dumps({"limited": now}), encoding="utf-8")
    assert keep_settings({"limited": dict(now)}, file) == []
    assert keep_settings({"limited": dict(now)}, tmp_path / "none.json") == []
