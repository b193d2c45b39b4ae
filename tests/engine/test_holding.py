"""A fold is trained by one process at a time, and planning leaves what is trained on."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers import DATASET, Workspace, command
from processes import other_process

from nnunet_limited.engine.holding import TRAINING
from nnunet_limited.errors import LimitedError
from nnunet_limited.planners import preprocessing
from nnunet_limited.planners.plan import make_plans
from nnunet_limited.planners.readers import READERS, TRUTH, reading, refuse_read
from nnunet_limited.planners.request import PlanRequest
from nnunet_limited.runs.crossval import train_folds
from nnunet_limited.runs.request import TrainRequest
from nnunet_limited.splits import load_split
from nnunet_limited.util.locks import is_held

SUPERVISED = "LimitedSupervisedTrainer"
PLAN = PlanRequest(dataset=DATASET, split="few", configurations=("2d",), size="tiny", processes=1)
HELD = f"alone(place, {TRAINING!r})"
IN_USE = "fold_0 is in use by 'nnunet-limited plan 701"


@pytest.fixture
def world(workspaces, tmp_path: Path) -> Workspace:
    """Return a planned dataset that a test may change."""
    source = workspaces("2d")
    for name in ("raw", "preprocessed"):
        shutil.copytree(source.root / name, tmp_path / name)
    made = Workspace(tmp_path, source.variant, source.plans).activate()
    made.plans = made.configure("holding", num_epochs=1, num_iterations_per_epoch=1)
    return made


def fold(world: Workspace) -> Path:
    return world.root / "results" / DATASET / f"{SUPERVISED}__{world.plans}__2d" / "fold_0"


def lock(world: Workspace) -> Path:
    return fold(world).with_name(f".fold_0.{TRAINING}.lock")


def test_a_fold_that_another_process_trains(world: Workspace, capsys, monkeypatch) -> None:
    """Our command, nnU-Net's, continued or not, and validation; crossval waits, and finds what there is to do then."""
    first = world.trainer(SUPERVISED, world.plans)
    first.run_training()
    words = ["train", DATASET, "2d", "0", "-tr", SUPERVISED, "-p", world.plans, "-device", "cpu"]
    files = {file: file.stat().st_mtime_ns for file in fold(world).parent.rglob("*") if file.is_file()}
    with other_process(fold(world), HELD) as process:
        for more in ([], ["--c"], ["--val"]):
            assert command(*words, *more) == 2
            assert IN_USE in capsys.readouterr().err
        with pytest.raises(LimitedError, match=IN_USE):
            world.trainer(SUPERVISED, world.plans).on_train_start()
        with pytest.raises(LimitedError, match=IN_USE):
            world.trainer(SUPERVISED, world.plans, resume=True)
        assert {file: file.stat().st_mtime_ns for file in files} == files
        request = TrainRequest(dataset=DATASET, configuration="2d", trainer=SUPERVISED, plans=world.plans)
        lines: list[str] = []

        def run(command: list[str], **_: object) -> object:
            lines.append(command[-1])
            return type("Done", (), {"returncode": 0})

        monkeypatch.setattr("nnunet_limited.runs.crossval.subprocess.run", run)
        monkeypatch.setattr("nnunet_limited.util.locks.print", lambda *a, **k: process.kill(), raising=False)
        train_folds(request, [0], lines.append)
    assert lines == [f"fold 0: validating; log in {fold(world)}", "--val"]


def test_a_training_holds_its_fold_and_what_it_reads_to_its_end(world: Workspace) -> None:
    run = world.trainer(SUPERVISED, world.plans)
    during: list[bool] = []
    save = run.save_checkpoint

    def look(file: str) -> None:
        during.append(is_held(lock(world)) and len(list((world.preprocessed / READERS).iterdir())) == 1)
        save(file)

    run.save_checkpoint = look
    assert not is_held(lock(world))
    run.run_training()
    assert set(during) == {True}
    assert not is_held(lock(world))
    assert not any((world.preprocessed / READERS).iterdir())
    resumed = world.trainer(SUPERVISED, world.plans, resume=True)  # it is what it loads
    assert is_held(lock(world))
    resumed.perform_actual_validation()
    assert not is_held(lock(world))


def correct(file: Path) -> None:
    image = sitk.ReadImage(str(file))
    array = sitk.GetArrayFromImage(image)
    corrected = sitk.GetImageFromArray(np.where(array == 1, 2, np.where(array == 2, 1, array)).astype(array.dtype))
    corrected.CopyInformation(image)
    sitk.WriteImage(corrected, str(file))


@pytest.mark.parametrize("role", ["train", "val"])
def test_planning_does_not_replace_what_a_training_reads(world: Workspace, role: str) -> None:
    split = load_split(world.preprocessed, "few").fold(0)
    case = getattr(split, role)[0]
    (data,) = world.preprocessed.glob("nnUNetLimited_*_2d")
    read = {"train": f"{{{data.name!r}: {[case]!r}}}", "val": f"{{{TRUTH!r}: {[case]!r}}}"}[role]
    correct(world.raw / "labelsTr" / f"{case}.nii.gz")

    def files() -> dict[Path, int]:
        found = [*data.iterdir(), *world.preprocessed.glob("nnUNetPlans*"), *(world.preprocessed / TRUTH).iterdir()]
        return {file: file.stat().st_mtime_ns for file in found}

    with other_process(world.preprocessed, f"reading(place, {read})") as process:
        before = files()
        refused = rf"case '{case}' has to be made again, but 'nnunet-limited plan 701 .* is training on it; wait"
        with pytest.raises(LimitedError, match=refused):
            make_plans(PLAN)
        assert role == "val" or files() == before
        process.kill()
        process.wait()
        assert any(case in line for line in make_plans(PLAN).again)
    assert not any((world.preprocessed / READERS).iterdir())


def test_planning_adds_cases_beside_a_training(world: Workspace) -> None:
    split = load_split(world.preprocessed, "few").fold(0)
    (data,) = world.preprocessed.glob("nnUNetLimited_*_2d")
    for file in data.glob(f"{split.val[0]}*"):
        file.unlink()
    with other_process(world.preprocessed, f"reading(place, {{{data.name!r}: {list(split.train)!r}}})"):
        assert make_plans(PLAN).again == ()
    assert (data / f"{split.val[0]}.pkl").is_file()


def test_a_training_waits_until_files_are_replaced(world: Workspace, capsys, monkeypatch) -> None:
    with other_process(world.preprocessed, "alone_inside(place, 'replacing')") as process:
        monkeypatch.setattr("nnunet_limited.util.locks.print", lambda *a, **k: process.kill(), raising=False)
        with reading(world.preprocessed, {"a": ["x"]}):
            refuse_read(world.preprocessed, {"a": ["x"]})  # by this process itself
            assert len(list((world.preprocessed / READERS).iterdir())) == 1


def test_where_nothing_can_be_written_nothing_is_stated(world: Workspace, monkeypatch) -> None:
    before = sorted((world.preprocessed / READERS).glob("*"))  # what other tests on this dataset have left
    monkeypatch.setattr("os.access", lambda *_: False)
    with reading(world.preprocessed, {"a": ["x"]}):
        assert sorted((world.preprocessed / READERS).glob("*")) == before


def test_what_a_killed_plan_left_is_removed(world: Workspace) -> None:
    (data,) = world.preprocessed.glob("nnUNetLimited_*_2d")
    left = preprocessing.scratch_folder(data) / "tmpabc"
    left.mkdir(parents=True)
    (left / "case.pkl").touch()
    (data / ".case.b2nd.999999999.tmp").touch()
    make_plans(PLAN)
    assert not left.parent.exists()
    assert not (data / ".case.b2nd.999999999.tmp").exists()
