"""nnU-Net finds the trainers from a wheel and from an editable install, with nothing exported."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROBE = """
import os, pickle, sys
from concurrent.futures import ProcessPoolExecutor
import multiprocessing
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
import nnunet_limited
assert nnunet_limited.__file__.startswith(sys.argv[1]), nnunet_limited.__file__
found = find("LimitedMeanTeacherTrainer")
from nnunet_limited.trainers import LimitedMeanTeacherTrainer
assert found is LimitedMeanTeacherTrainer is find("LimitedMeanTeacherTrainer")
assert pickle.loads(pickle.dumps(found)) is found
print(os.environ["nnUNet_extTrainer"])
"""
SPAWNED = """
import multiprocessing
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(find, ("LimitedMeanTeacherTrainer",)) is find("LimitedMeanTeacherTrainer")
"""


def run_python(python: Path | str, *arguments: str, **environment: str) -> str:
    clean = {k: v for k, v in os.environ.items() if k not in ("nnUNet_extTrainer", "PYTHONPATH")}
    done = subprocess.run(
        [str(python), *arguments], env={**clean, **environment}, capture_output=True, text=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with our wheel, which borrows all dependencies from this one."""
    folder = tmp_path_factory.mktemp("wheel")
    run_python(
        sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)
    )
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    site = Path(run_python(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (wheel,) = folder.glob("*.whl")
    run_python(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel))
    (site / "zz_borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


def test_found_from_a_wheel(wheel_python: Path) -> None:
    out = run_python(wheel_python, "-c", PROBE, str(wheel_python.parent.parent))
    assert out.strip().splitlines()[-1].endswith("_ext")


def test_the_users_own_folders_are_kept() -> None:
    out = run_python(sys.executable, "-c", PROBE, str(ROOT), nnUNet_extTrainer="/my/trainers")
    assert out.strip().splitlines()[-1].split(os.pathsep)[0] == "/my/trainers"


def test_found_from_the_editable_install_and_in_spawned_processes(tmp_path: Path) -> None:
    script = tmp_path / "spawned.py"
    script.write_text(SPAWNED, encoding="utf-8")
    run_python(sys.executable, str(script))


def test_doctor_takes_the_variable_where_pth_files_are_not_read(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    found = {name: str(tmp_path) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    found["PYTHONPATH"] = os.pathsep.join([str(ROOT), sysconfig.get_path("purelib")])
    with pytest.raises(AssertionError):
        run_python(python, "-m", "nnunet_limited", "doctor", **found)
    folder = run_python(python, "-m", "nnunet_limited", "path", **found).strip()
    out = run_python(python, "-m", "nnunet_limited", "doctor", nnUNet_extTrainer=folder, **found)
    assert "nnU-Net finds the trainers: works" in out


def test_path_prints_the_folder() -> None:
    folder = Path(run_python(sys.executable, "-m", "nnunet_limited", "path").strip())
    assert (folder / "limited_trainers.py").is_file()
