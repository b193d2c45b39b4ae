"""nnU-Net finds the trainers from a wheel and from where the package is installed, with nothing exported."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from helpers import command

import nnunet_limited

PACKAGE = Path(nnunet_limited.__file__).parent
ROOT = Path(__file__).parents[2]
PROBE = """
import multiprocessing, os, pickle, sys

def check():
    import nnunet_limited
    assert nnunet_limited.__file__.startswith(sys.argv[1]), nnunet_limited.__file__
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
    found = find("LimitedMeanTeacherTrainer")
    from nnunet_limited.trainers import LimitedMeanTeacherTrainer
    assert found is LimitedMeanTeacherTrainer is find("LimitedMeanTeacherTrainer")
    assert pickle.loads(pickle.dumps(found)) is found
    return os.environ["nnUNet_extTrainer"]

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(check))
"""
# Each interpreter that imports nnU-Net costs seconds: what doctor would start one for runs in this one.
DOCTOR = """
import contextlib, importlib, os, subprocess, sys
from nnunet_limited.cli import main
from nnunet_limited.host import discovery, doctor

def run(words, env=None, **options):
    before = dict(os.environ)
    os.environ.update(env or {})
    try:
        exec(words[-1], {})
    except Exception as problem:
        return subprocess.CompletedProcess(words, 1, "", str(problem))
    finally:
        os.environ.clear()
        os.environ.update(before)
    return subprocess.CompletedProcess(words, 0, "", "")

subprocess.run = run
for given in sys.argv[1:]:
    os.environ["nnUNet_extTrainer"] = given
    importlib.reload(discovery)  # it keeps what is given when the command starts
    importlib.reload(doctor)
    sys.argv = ["nnunet-limited", "doctor"]
    try:
        main.main()
    except SystemExit as ended:
        print("status", ended.code)
"""


def run_python(python: Path | str, *arguments: str, **environment: str) -> str:
    """Run an interpreter that finds the package as this one does, or only where ``PYTHONPATH`` says, if it is given."""
    clean = {k: v for k, v in os.environ.items() if k != "nnUNet_extTrainer"}
    done = subprocess.run(
        [str(python), *arguments], env={**clean, **environment}, capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_found_from_a_wheel_in_spawned_processes(tmp_path: Path) -> None:
    """In a virtual environment with our wheel, which borrows all dependencies from this one."""
    probe = tmp_path / "probe.py"  # ``multiprocessing`` spawns from a file
    probe.write_text(PROBE, encoding="utf-8")
    pip = ("-m", "pip", "-q", "--disable-pip-version-check")
    build = ("wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT))
    run_python(sys.executable, *pip, *build)
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    base = {"base": str(tmp_path / "venv"), "platbase": str(tmp_path / "venv")}
    site = Path(sysconfig.get_path("purelib", "venv", base))
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:  # this installs all of it but the command
        archive.extractall(site)
    (site / "zz_borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    out = run_python(python, str(probe), str(tmp_path / "venv"), PYTHONPATH="")
    assert out.strip().splitlines()[-1].endswith("_ext")


def test_named_where_it_is_installed() -> None:
    """The user's own folders stay before ours."""
    code = "import os; print(os.environ['nnUNet_extTrainer'])"
    mine, *others = run_python(sys.executable, "-c", code, nnUNet_extTrainer="/my/trainers").strip().split(os.pathsep)
    assert mine == "/my/trainers"
    assert str(PACKAGE / "_ext") in others


@pytest.mark.slow
def test_doctor_takes_the_variable_where_pth_files_are_not_read(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    found = {name: str(tmp_path) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    found["PYTHONPATH"] = os.pathsep.join([str(PACKAGE.parent), sysconfig.get_path("purelib")])
    out = run_python(python, "-c", DOCTOR, "", str(PACKAGE / "_ext"), **found)
    without, given, _ = out.split("status ")
    assert "nnU-Net finds the trainers: Could not find" in without
    assert "nnU-Net finds the trainers: works" in given
    assert out.count("torchvision: works") == 2
    assert [given[0], out.strip()[-1]] == ["1", "0"]


def test_path_prints_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("path") == 0
    folder = Path(capsys.readouterr().out.strip())
    assert folder == PACKAGE / "_ext"
    assert (folder / "limited_trainers.py").is_file()
