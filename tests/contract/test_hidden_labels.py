"""The label of an unlabelled case is never read.

Every other file of the contract trains where hidden labels cannot be read and reading one is noticed; here, what is
planned and trained is the same to the bit as with the labels in place.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import blosc2
import pytest
from contract_runs import run
from helpers import VARIANTS, Workspace, losses, plan
from hidden_labels import Watch, spoil, traps
from trainer_sets import TRAINERS, TRAINERS_OF_THE_BASE, data_hooks

# The loaders are the base's, but for those that have hooks of their own.
OTHER_DATA = [name for name in TRAINERS if any(hook.startswith(f"{name}.") for hook in data_hooks(name))]


def preprocessed_images(workspace: Workspace, cases: set[str]) -> dict[str, bytes]:
    """Voxels of all preprocessed images, and of the masks of unlabelled ones."""
    found = {}
    for file in sorted(workspace.preprocessed.glob("nnUNetLimited_*/*.b2nd")):
        name = file.name.removesuffix(".b2nd").removesuffix("_seg")
        if name in cases or file.parent.name.endswith("_unlabeled"):
            found[f"{file.parent.name}/{file.name}"] = blosc2.open(str(file))[:].tobytes()
    return found


def planned_without(original: Workspace, root: Path, variant: str, how: str) -> Workspace:
    """Return a copy planned with spoiled hidden labels; plans, fingerprint and images are those of the original."""
    fold = original.trainer("LimitedMeanTeacherTrainer", original.plans).run.fold
    visible = {*fold.train, *fold.val}
    spoiled = original.copy(root)
    spoil(spoiled, list(fold.unlabeled), how)
    spoiled.plans = plan(VARIANTS[variant])
    assert spoiled.plans == original.plans
    plans = f"{original.plans}.json"
    assert (spoiled.preprocessed / plans).read_bytes() == (original.preprocessed / plans).read_bytes()
    fingerprint = f"fingerprints/{original.plans}/dataset_fingerprint.json"
    assert (spoiled.preprocessed / fingerprint).read_bytes() == (original.preprocessed / fingerprint).read_bytes()
    images = preprocessed_images(original, visible)
    assert images
    assert preprocessed_images(spoiled, visible) == images
    return spoiled


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "how"), [("2d", "deleted"), ("deployment", "garbage"), ("deployment", "deleted")])
def test_plans_do_not_depend_on_hidden_labels(untouched, tmp_path: Path, variant: str, how: str) -> None:
    planned_without(untouched(variant), tmp_path, variant, how)


@pytest.mark.slow
@pytest.mark.parametrize(
    "trainers",
    [
        pytest.param(sorted({*TRAINERS_OF_THE_BASE, *OTHER_DATA}), id="loaders"),
        pytest.param(TRAINERS, id="all", marks=pytest.mark.full),
    ],
)
def test_hidden_labels_change_nothing(untouched, tmp_path: Path, trainers: list[str]) -> None:
    """Labels that look right are in their place: a fault that swallows errors does not help."""
    original = untouched("2d")
    spoiled = planned_without(original, tmp_path, "2d", "noise")
    for name in trainers:
        curves = [losses(run(world.activate(), name, "hidden", num_epochs=1)) for world in (original, spoiled)]
        assert curves[0] == curves[1], name


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["LimitedMeanTeacherTrainer", "LimitedCrossPseudoSupervisionTrainer"])
def test_logging_hidden_labels_changes_nothing_else(untouched, trainer: str) -> None:
    workspace = untouched("2d")
    logged = run(workspace, trainer, "logged", log_pseudo_label_dice=True)
    silent = run(workspace, trainer, "silent", log_pseudo_label_dice=False)
    assert losses(logged) == losses(silent)
    assert all(0 <= value <= 1 for value in logged.logger.get_value("pseudo_label_dice", step=None))


def test_a_hidden_label_that_is_opened_is_noticed(workspaces, tmp_path: Path) -> None:
    """By any process and library, or the contract would hold nothing."""
    guarded = traps(workspaces("2d"))
    assert {file.suffix for file in guarded} == {".gz", ".b2nd", ".pkl"}
    assert all(file.is_file() for file in guarded)
    if not sys.platform.startswith("linux"):
        pytest.skip("files are watched on Linux only")
    files = [tmp_path / name for name in "abc"]
    for file in files:
        file.touch()
    watch = Watch(files)
    assert watch.opened() == []
    subprocess.run(["cat", str(files[0])], check=True)
    files[2].read_bytes()
    assert watch.opened() == [files[0], files[2]]
    assert watch.opened() == []
