"""Plans are made once."""

from __future__ import annotations

import sys

import pytest
from helpers import DATASET, plan
from hidden_labels import Watch

from nnunet_limited.planners.plan import make_plans
from nnunet_limited.planners.request import PlanRequest
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
