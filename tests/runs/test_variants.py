"""Plans that carry settings."""

from __future__ import annotations

import json

from nnunet_limited.runs.variants import configure


def test_host_plans_take_settings(workspaces) -> None:
    workspace = workspaces("2d")
    content = (workspace.preprocessed / f"{workspace.plans}.json").read_text(encoding="utf-8")
    plans = json.loads(content)
    del plans["limited"]
    plans["plans_name"] = "nnUNetPlans"
    (workspace.preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans), encoding="utf-8")
    assert configure(workspace.preprocessed, "nnUNetPlans", {"num_epochs": 3}) == "nnUNetPlans_num_epochs-3"
