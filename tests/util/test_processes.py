"""Processes of ours ignore modules of the working folder, and write every name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_limited.util.names import check_name, check_workflow_name, printable
from nnunet_limited.util.parallel import run_all
from nnunet_limited.util.processes import protect_children, python_code, python_module

SHADOWED = ("numpy", "yaml", "typer", "runpy", "json", "multiprocessing", "concurrent", "pickle", "nnunet_limited")


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with modules named like those of Python and of packages."""
    for name in SHADOWED:
        (tmp_path / f"{name}.py").write_text("open('CANARY', 'w')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    monkeypatch.setenv("PYTHONUTF8", "0")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return tmp_path


@pytest.mark.parametrize("old", [False, True], ids=["with -P", "as under Python 3.10"])
def test_commands_ignore_modules_beside(hostile: Path, monkeypatch: pytest.MonkeyPatch, old: bool) -> None:
    if old:
        monkeypatch.setattr("nnunet_limited.util.processes.HAS_SAFE_PATH", False)
        monkeypatch.delenv("PYTHONSAFEPATH")
    for words in ([*python_module("nnunet_limited"), "--version"], python_code("import json, yaml, typer")):
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert not (hostile / "CANARY").exists()


def test_workers_ignore_modules_beside(hostile: Path) -> None:
    protect_children()
    assert run_all(os.path.basename, [("a/b",), ("c/d",)], 2, "Names") == ["b", "d"]
    assert not (hostile / "CANARY").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="has no such locale")
def test_names_are_written_whatever_the_locale(tmp_path: Path) -> None:
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    (tmp_path / "Dataset001_Ä").mkdir()
    environment = {**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "PYTHONPATH": path}
    environment["nnUNet_raw"] = str(tmp_path)
    words = [*python_module("nnunet_limited"), "split", "Dataset001_Ä", "--name", "x"]
    done = subprocess.run(words, capture_output=True, encoding="utf-8", check=False, env=environment)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "Dataset001_Ä/dataset.json does not exist" in done.stderr


@pytest.mark.parametrize("name", ["case_1", "Fall 1 (links)", "症例 1", "a.b", "a'b", "-x", "$HOME", "a" * 180])
def test_names_of_cases_that_stay(name: str) -> None:
    assert check_name(name, "case") == name
    assert printable(name) == name


@pytest.mark.parametrize("name", ["Dataset001_A", "Dataset742_With Space", "Dataset001_Ä-1.2 (b)"])
def test_datasets_of_studies_that_stay(name: str) -> None:
    assert check_workflow_name(name) == name
