"""Nothing in a folder got from a stranger acts, and nothing outside the dataset's own folders is written."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hostile_inputs import EVIL, TABLE, VICTIM, canary
from wrong_input import NAME, World, make_world


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Make a world with a second dataset, the victim, and a folder with modules that act when they are imported."""
    world = make_world(tmp_path_factory.mktemp("template"))
    for name in (f"raw/{VICTIM}/labelsTr/case_00.nii.gz", f"preprocessed/{VICTIM}/x.json", f"results/{VICTIM}/x.pth"):
        world.text(name, "precious")
    return world


def outside(world: World) -> dict[str, tuple[int, int]]:
    """Return size and time of each file that is not the attacked dataset's."""
    own = [world.root / name / NAME for name in ("raw", "preprocessed", "results")]
    own += [world.root / "out", world.root / "results" / "round"]
    files = [file for file in world.root.parent.rglob("*") if file.is_file()]
    files = [file for file in files if not any(file.is_relative_to(folder) for folder in own)]
    files = [file for file in files if file.suffix != ".lock"]
    return {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in files}


@pytest.mark.parametrize(("command", "status", "spoil"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_nothing_acts_and_nothing_outside_is_written(
    template: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    command: str,
    status: int,
    spoil: Callable[[World], Any],
) -> None:
    def too_late(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the attack was not noticed before the work began")

    shutil.copytree(template.root, tmp_path / "world")
    world = World(tmp_path / "world")
    spoil(world)
    world.text(f"cwd/{EVIL}.py", f"open({str(canary(world))!r}, 'w')")
    monkeypatch.chdir(world.root / "cwd")
    monkeypatch.syspath_prepend(world.root / "cwd")
    monkeypatch.setattr("nnunetv2.run.run_training.run_training_entry", too_late)
    if status:
        monkeypatch.setattr(subprocess, "run", too_late)
    before = outside(world)
    capfd.readouterr()

    found = world.run(command)

    error = capfd.readouterr().err
    assert found == status, error
    assert not list(tmp_path.rglob("CANARY"))
    assert outside(world) == before
    if status:
        assert error.startswith("error: "), error
        assert error.count("\n") == 1, error
        assert "\x1b" not in error
        assert len(error) < 1000
