"""nnU-Net finds the trainers from a wheel and from where the package is installed, with nothing exported."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from helpers import command

import nnunet_limited

PACKAGE = Path(nnunet_limited.__file__).parent
ROOT = Path(__file__).parents[2]
PROBE = """
import multiprocessing, os, pickle, sys
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
if __name__ == "__main__":
    import nnunet_limited
    assert nnunet_limited.__file__.startswith(sys.argv[1]), nnunet_limited.__file__
    found = find("LimitedMeanTeacherTrainer")
    from nnunet_limited.trainers import LimitedMeanTeacherTrainer
    assert found is LimitedMeanTeacherTrainer is find("LimitedMeanTeacherTrainer")
    assert pickle.loads(pickle.dumps(found)) is found
    if "spawn" in sys.argv:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(find, ("LimitedMeanTeacherTrainer",)) is found
    print(os.environ["nnUNet_extTrainer"])
"""


def run_python(python: Path | str, *arguments: str, **environment: str) -> str:
    """Run an interpreter that finds the package as this one does, or only where ``PYTHONPATH`` says, if it is given."""
    clean = {k: v for k, v in os.environ.items() if k != "nnUNet_extTrainer"}
    done = subprocess.run(
        [str(python), *arguments], env={**clean, **environment}, capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A script that finds a trainer; ``multiprocessing`` spawns from a file."""
    file = tmp_path_factory.mktemp("probe") / "probe.py"
    file.write_text(PROBE, encoding="utf-8")
    return str(file)


@pytest.mark.slow
def test_found_from_a_wheel(tmp_path: Path, probe: str) -> None:
    """In a virtual environment with our wheel, which borrows all dependencies from this one."""
    pip = ("-m", "pip", "-q", "--disable-pip-version-check")
    build = ("wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(ROOT))
    run_python(sys.executable, *pip, *build)
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    base = {"base": str(tmp_path / "venv"), "platbase": str(tmp_path / "venv")}
    site = Path(sysconfig.get_path("purelib", "venv", base))
    (wheel,) = tmp_path.glob("*.whl")
    run_python(sys.executable, *pip, "install", "--no-deps", "--target", str(site), str(wheel))
    (site / "zz_borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    out = run_python(python, probe, str(tmp_path / "venv"), PYTHONPATH="")
    assert out.strip().splitlines()[-1].endswith("_ext")


@pytest.mark.slow
def test_found_where_it_is_installed_and_in_spawned_processes(probe: str) -> None:
    """The user's own folders stay before ours."""
    out = run_python(sys.executable, probe, str(PACKAGE), "spawn", nnUNet_extTrainer="/my/trainers")
    mine, *others = out.strip().splitlines()[-1].split(os.pathsep)
    assert mine == "/my/trainers"
    assert str(PACKAGE / "_ext") in others


@pytest.mark.slow
def test_doctor_takes_the_variable_where_pth_files_are_not_read(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    found = {name: str(tmp_path) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    found["PYTHONPATH"] = os.pathsep.join([str(PACKAGE.parent), sysconfig.get_path("purelib")])
    with pytest.raises(AssertionError):
        run_python(python, "-m", "nnunet_limited", "doctor", **found)
    out = run_python(python, "-m", "nnunet_limited", "doctor", nnUNet_extTrainer=str(PACKAGE / "_ext"), **found)
    assert "nnU-Net finds the trainers: works" in out


def test_path_prints_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("path") == 0
    folder = Path(capsys.readouterr().out.strip())
    assert folder == PACKAGE / "_ext"
    assert (folder / "limited_trainers.py").is_file()
