"""Planned workspaces, each made once for all test processes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest
from helpers import VARIANTS, Workspace, make_workspace

from nnunet_limited.util.locks import one_at_a_time

MADE: dict[str, Workspace] = {}


def planned(tmp_path_factory: pytest.TempPathFactory, hide: bool) -> Callable[[str], Workspace]:
    """Return a function that gives each variant's workspace; it is planned once and copied for each test process.

    With ``hide``, labels that a fold must not see are gone or unreadable (:func:`helpers.make_workspace`).
    """
    mine = tmp_path_factory.getbasetemp()
    shared = (mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) / "planned"

    def get(variant: str) -> Workspace:
        name = f"{variant}_hidden" if hide else variant
        if name not in MADE:
            with one_at_a_time(shared / name):
                if not (shared / name / "done").is_file():
                    shutil.rmtree(shared / name, ignore_errors=True)  # what failed
                    (shared / name).mkdir()
                    workspace = make_workspace(shared / name, VARIANTS[variant], hide)
                    (shared / name / "done").write_text(workspace.plans, encoding="utf-8")
            shutil.copytree(shared / name, mine / name)
            plans = (mine / name / "done").read_text(encoding="utf-8")
            MADE[name] = Workspace(mine / name, VARIANTS[variant], plans)
        return MADE[name].activate()

    return get
