"""A module of the user that cannot be imported is named with file and line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nnunet_limited.errors import LimitedError
from nnunet_limited.host.discovery import EXT_TRAINER, export_extension_folder, extension_folder
from nnunet_limited.prompters.prompter import find_prompter
from nnunet_limited.runs.request import find_trainer

BROKEN = [
    ("syntax", "x = 1\ndef f(:\n", "line 2: SyntaxError"),
    ("package", "\nimport not_installed_package\n", "line 2: ModuleNotFoundError: No module named"),
    ("name", "from numpy import no_such_name\n", "line 1: ImportError"),
    ("library", "import json\nx = json.loads('{')\n", "line 2: JSONDecodeError"),
    ("runtime", "raise RuntimeError('no GPU')\n", "line 1: RuntimeError: no GPU"),
    ("exit", "import sys\n\nsys.exit('usage')\n", "line 3: SystemExit: usage"),
]


@pytest.mark.parametrize(("name", "text", "reason"), BROKEN, ids=[row[0] for row in BROKEN])
def test_a_broken_module_of_trainers_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, reason: str
) -> None:
    file = tmp_path / f"my_broken_{name}.py"
    file.write_text(text, encoding="utf-8")
    monkeypatch.setenv(EXT_TRAINER, os.pathsep.join([str(extension_folder()), str(tmp_path)]))
    with pytest.raises(LimitedError) as error:
        find_trainer("MyTrainer")
    assert f"{file}, {reason}" in str(error.value)
    assert f"or remove its folder from {EXT_TRAINER}" in str(error.value)


def test_a_trainer_that_is_in_no_module_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_fine_module.py").write_text("class Other: ...\n", encoding="utf-8")
    monkeypatch.setenv(EXT_TRAINER, str(tmp_path))
    with pytest.raises(LimitedError, match="no such trainer"):
        find_trainer("MyTrainer")


def test_a_module_that_derives_from_our_trainer_is_no_second_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "LimitedMeanTeacherTrainer"
    text = f"from nnunet_limited.trainers import {name}\n\nclass {name}Wide({name}): ...\n"
    (tmp_path / "wide.py").write_text(text, encoding="utf-8")
    monkeypatch.setenv(EXT_TRAINER, os.pathsep.join([str(extension_folder()), str(tmp_path), str(tmp_path / "none")]))
    assert find_trainer(name).__module__.startswith("nnunet_limited.")
    (tmp_path / "other.py").write_text(f"class {name}: ...\n", encoding="utf-8")
    monkeypatch.setenv(EXT_TRAINER, str(tmp_path))
    with pytest.raises(LimitedError, match=r"other\.py defines a class of this name too"):
        find_trainer(name)


def test_our_trainers_are_found_before_modules_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for before in ("/mine", f"/mine{os.pathsep}{extension_folder()}", ""):
        monkeypatch.setenv(EXT_TRAINER, before)
        export_extension_folder()
        mine = [str(extension_folder()), *(["/mine"] if before else [])]
        assert os.environ[EXT_TRAINER].split(os.pathsep) == mine


@pytest.mark.parametrize(("name", "text", "reason"), BROKEN, ids=[row[0] for row in BROKEN])
def test_a_broken_module_of_a_prompter_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, reason: str
) -> None:
    file = tmp_path / f"my_prompter_{name}.py"
    file.write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LimitedError) as error:
        find_prompter(f"my_prompter_{name}:make")
    assert f"{file}, {reason}" in str(error.value)


def test_a_prompter_that_fails_or_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "my_prompter_fails.py"
    file.write_text("def make():\n    return 1 / 0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LimitedError, match=f"{file}, line 2: ZeroDivisionError"):
        find_prompter("my_prompter_fails:make")
    for spec in ("my_prompter_fails:build", "my_prompter_missing:make"):
        with pytest.raises(LimitedError, match="check its spelling and PYTHONPATH"):
            find_prompter(spec)
