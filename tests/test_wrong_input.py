"""Wrong input: exit status 2, one line on stderr with file or option, value and remedy, and nothing written."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wrong_input_data
import wrong_input_drawings
import wrong_input_files
import wrong_input_folders
import wrong_input_grids
import wrong_input_names
import wrong_input_odd
import wrong_input_patients
import wrong_input_prompted
import wrong_input_pseudo
import wrong_input_queries
import wrong_input_sparse
import wrong_input_train
import wrong_input_writing
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
from wrong_input import PLANS, SUPERVISED, TEACHER, TRAIN, World, make_world, nothing

SMALL = TRAIN.replace(" 2d ", " 2d_small ")
TABLE = [
    *wrong_input_data.TABLE,
    *wrong_input_grids.TABLE,
    *wrong_input_files.TABLE,
    *wrong_input_names.TABLE,
    *wrong_input_folders.TABLE,
    *wrong_input_odd.TABLE,
    *wrong_input_train.TABLE,
    *wrong_input_pseudo.TABLE,
    *wrong_input_prompted.TABLE,
    *wrong_input_sparse.TABLE,
    *wrong_input_queries.TABLE,
    *wrong_input_drawings.TABLE,
    *wrong_input_patients.TABLE,
    *wrong_input_writing.TABLE,
]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Make the world that every case spoils a copy of: two channels, six labelled cases of three patients."""
    return make_world(tmp_path_factory.mktemp("template"))


@pytest.mark.parametrize(("command", "named", "spoil"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_one_line_and_nothing_written(
    template: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    command: str,
    named: tuple[str, ...],
    spoil: Callable[[World], Any],
) -> None:
    def too_late(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("the wrong input was not noticed before the work began")

    shutil.copytree(template.root, tmp_path / "world")
    world = World(tmp_path / "world")
    spoil(world)
    before = world.listing()
    capfd.readouterr()
    monkeypatch.setattr(DatasetFingerprintExtractor, "run", too_late)
    monkeypatch.setattr("nnunetv2.run.run_training.run_training_entry", too_late)
    monkeypatch.setattr(subprocess, "run", too_late)

    assert world.run(command) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: ")
    assert error.endswith("\n")
    assert error.count("\n") == 1, error
    assert "; " in error or "--help)" in error, "no remedy"
    places = {"root": world.root, "raw": world.raw, "preprocessed": world.preprocessed}
    for text in named:
        for place, folder in places.items():
            text = text.replace(f"{{{place}}}", str(folder))
        assert text in error
    assert world.listing() == before


@pytest.mark.parametrize(
    ("command", "prepare"),
    [
        ("split 990 --name all", nothing),
        (f"{TRAIN} --c", lambda w: w.checkpoint(TEACHER)),
        (f"{TRAIN} --val", lambda w: w.checkpoint(TEACHER, "final")),
        (f"{TRAIN} -pretrained_weights {{root}}/{SUPERVISED}.pth --epochs 2", nothing),
        (f"{SMALL} -tr {SUPERVISED}", World.inherited),
        (f"{SMALL} -tr LimitedUniMatchTrainer", World.inherited),
        (f"{SMALL} -tr LimitedCrossTeachingTrainer", World.inherited),
    ],
)
def test_right_input_is_not_refused(
    template: World,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    command: str,
    prepare: Callable[[World], Any],
) -> None:
    shutil.copytree(template.root, tmp_path / "world")
    world = World(tmp_path / "world")
    prepare(world)
    monkeypatch.setattr("nnunetv2.run.run_training.run_training_entry", lambda: None)
    assert world.run(command) == 0
    assert capfd.readouterr().err == ""
    assert (world.preprocessed / f"{PLANS}_num_epochs-2.json").is_file() == ("--epochs" in command)
