"""Check whether this environment can train; each finding has a remedy."""

import os
import subprocess
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from packaging.specifiers import SpecifierSet

from nnunet_limited.host.discovery import EXT_TRAINER, GIVEN
from nnunet_limited.util.processes import python_code

SUPPORTED = ">=2.8,<2.9"  # releases of nnunetv2; signatures change in every minor release
PROBE = """
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
from nnunet_limited.trainers import LimitedMeanTeacherTrainer
from nnunet_limited.host.discovery import is_users
from nnunet_limited.util.modules import import_failure
try:
    found = find("LimitedMeanTeacherTrainer")
except (Exception, SystemExit) as error:
    if not is_users(error):
        raise
    raise SystemExit(import_failure(error))
assert found is LimitedMeanTeacherTrainer
"""
TORCHVISION = (
    "nnU-Net imports torchvision (through timm) when it looks up any trainer but its default one, so without it every "
    "other -tr fails. torch and torchvision must be builds of one release and one kind: 'pip install -U torch "
    "torchvision' for the default builds, or both from PyTorch's CPU index; a CUDA torchvision beside a CPU torch fails"
)


class Finding(NamedTuple):
    """The result of one check."""

    what: str
    ok: bool
    found: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at versions, torchvision, the trainer look-up and nnU-Net's folders."""
    remedy = (
        "correct the file of yours, if one is named; otherwise reinstall nnunet-limited with pip, or export "
        "nnUNet_extTrainer=$(python -m nnunet_limited path)"
    )
    return [
        _version("nnunetv2", f"pip install 'nnunetv2{SUPPORTED}'", SUPPORTED),
        _version("torch", "pip install torch"),
        _runs("torchvision", "import torchvision", TORCHVISION),
        _runs("nnU-Net finds the trainers", PROBE, remedy, {**os.environ, EXT_TRAINER: GIVEN}),
        *map(_folder, ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")),
    ]


def _version(package: str, remedy: str, supported: str = "") -> Finding:
    try:
        found = metadata.version(package)
    except metadata.PackageNotFoundError:
        return Finding(package, False, "not installed", remedy)
    ok = SpecifierSet(supported).contains(found, prereleases=True)
    return Finding(package, ok, found, "" if ok else remedy)


def _runs(what: str, code: str, remedy: str, environment: dict[str, str] | None = None) -> Finding:
    # A fresh interpreter, because the .pth file is read at start-up only and a failed import would stay half-loaded.
    done = subprocess.run(python_code(code), capture_output=True, text=True, env=environment, check=False)
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return Finding(what, done.returncode == 0, "works" if done.returncode == 0 else last, remedy)


def _folder(variable: str) -> Finding:
    value = os.environ.get(variable)
    if not value:
        return Finding(variable, False, "not set", f"export {variable}=/path/to/{variable}")
    if not Path(value).is_dir():
        return Finding(variable, False, f"{value} is not a folder", f"mkdir -p {value}, or correct the variable")
    if variable != "nnUNet_raw" and not os.access(value, os.W_OK):
        return Finding(variable, False, f"{value} is read-only", "point the variable to a folder you may write to")
    return Finding(variable, True, value)
