"""Several sources label unlabelled cases: models, atlases and a promptable model, and what trains on the result."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import DATASET, FROM_START, VARIANTS, Workspace, command, make_workspace, plan, read, spoil
from shapes import TINY_SAM, overlap

from nnunet_limited.data.pseudo_label_store import PseudoLabels, load_for_fold
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.losses.label_space import ClassLabels
from nnunet_limited.prompters.prompter import ModelCard, find_prompter
from nnunet_limited.prompters.prompts import tight_box
from nnunet_limited.pseudo_labels import registration
from nnunet_limited.pseudo_labels.ensemble import EnsembleLabeller
from nnunet_limited.pseudo_labels.job import PseudoLabelJob
from nnunet_limited.pseudo_labels.sources.atlas import AtlasSource
from nnunet_limited.pseudo_labels.sources.base import Scan, SourceContext, SourcePrediction
from nnunet_limited.pseudo_labels.spec import parse_sources
from nnunet_limited.runs.request import TrainRequest
from nnunet_limited.splits import load_split

SOURCES = f"student,atlas,sam:{TINY_SAM}"
TRAINER = "LimitedSupervisedTrainer"
CLASSES = ClassLabels(((0,), (1,)))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register in little time: the discs of the tests lie at about the same place."""
    for name, value in {"SAMPLES": 800, "AFFINE_STEPS": 10, "SPLINE_STEPS": 2, "EVALUATIONS": 3}.items():
        monkeypatch.setattr(registration, name, value)


def trained(workspace: Workspace, *folds: int, steps: int = 60) -> str:
    """Return plans with which folds are trained a little, in two epochs of ``steps``."""
    workspace.activate("consensus")
    plans = workspace.configure("consensus", **FROM_START, num_iterations_per_epoch=steps)
    for fold in folds:
        if not (Path(os.environ["nnUNet_results"]) / DATASET / f"{TRAINER}__{plans}__{workspace.variant.configuration}"
                / f"fold_{fold}" / "checkpoint_final.pth").is_file():  # fmt: skip
            workspace.trainer(TRAINER, plans, fold).run_training()
    return plans


def make(workspace: Workspace, plans: str, *more: str, sources: str = SOURCES, name: str = "several") -> int:
    """Label by several sources; under a name of its own, since other tests learn what goes by the usual one."""
    words = ("pseudo-label", DATASET, workspace.variant.configuration, "-tr", TRAINER, "-p", plans, "-device", "cpu")
    return command(*words, "--name", name, "--sources", sources, "--ask", "min_area=8", "--ask", "boxes=2", *more)


def labels_of(workspace: Workspace, name: str = "several", fold: int | str = 0) -> PseudoLabels:
    return load_for_fold(workspace.preprocessed, load_split(workspace.preprocessed, "few"), name, fold)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["2d", "regions", "anisotropic"])
def test_sources_label_together(workspaces, capfd: pytest.CaptureFixture[str], variant: str) -> None:
    workspace = workspaces(variant)
    plans = trained(workspace, 0)
    assert make(workspace, plans, "-f", "0") == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "coverage" in said
    assert "fold_0: on 3 labelled cases the mean Dice is" in said  # by atlases, which leave one out
    assert "SamModel of tiny_sam: licence of the code Apache-2.0, of the weights Apache-2.0" in said
    labels = labels_of(workspace)
    raw, fold = RawDataset.load(DATASET), load_split(workspace.preprocessed, "few").folds[0]
    assert set(labels.cases) == set(fold.unlabeled)
    dices = []
    for case, about in labels.cases.items():
        label, confidence = (read(file) for file in labels.files(case))
        assert set(np.unique(label)) <= {0, 1, 2}
        kept = confidence > 0
        assert about["coverage"] == pytest.approx(kept.mean(), abs=1e-4)
        assert about["coverage"] < 1
        assert about["coverage"] > 0 or variant == "regions"  # whose sources agree on too little
        assert 0 <= about["agreement"] <= 1
        assert about["seconds"]["total"] > 0
        assert about["sources"][f"sam:{TINY_SAM}"]["embeddings"] <= label.shape[0]
        assert (labels.folder / "pictures" / f"{case}.png").stat().st_size > 1000
        truth = read(raw.cases[case].label)
        dices.append(overlap((label > 0) & kept, (truth > 0) & kept))
    if variant != "regions":  # whose model was trained too little in so few steps
        assert np.mean(dices) > 0.7
    before = {file: file.stat().st_mtime_ns for file in labels.folder.rglob("*") if file.is_file()}
    labels.files(fold.unlabeled[0])[0].unlink()
    content = {file: file.read_bytes() for file in before if file.exists()}
    assert make(workspace, plans, "-f", "0") == 0
    assert labels.files(fold.unlabeled[1])[0].stat().st_mtime_ns == before[labels.files(fold.unlabeled[1])[0]]
    assert [file.name for file in content if file.suffix != ".json" and file.read_bytes() != content[file]] == []
    settings = {"pseudo_labels": "several", "num_iterations_per_epoch": 2}
    student = workspace.trainer(
        "LimitedPromptedPseudoLabelTrainer", workspace.configure("learn", **FROM_START, **settings)
    )
    student.run_training()
    assert np.isfinite(student.logger.get_value("unsupervised_losses", step=-1))
    counted = student.logger.get_value("counted_shares", step=-1)
    assert counted < 1  # what is left open does not count
    assert counted > 0 or variant == "regions"


@pytest.mark.slow
def test_hidden_labels_reach_no_prompt_no_mask_and_no_weight(workspaces, tmp_path: Path) -> None:
    """Everything written is the same to the bit when the hidden labels are noise."""
    original = workspaces("2d")
    plans = trained(original, 0)
    assert make(original, plans, "-f", "0", name="hidden") == 0
    folder = labels_of(original, "hidden").folder
    hidden = load_split(original.preprocessed, "few").folds[0].unlabeled
    spoiled = original.copy(tmp_path)
    spoil(spoiled, list(hidden), "noise")
    spoiled.plans = plan(VARIANTS["2d"])
    again = trained(spoiled, 0)
    assert make(spoiled, again, "-f", "0", name="hidden") == 0
    other = labels_of(spoiled, "hidden").folder
    files = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.suffix in (".gz", ".png"))
    assert len(files) == 3 * len(hidden)
    for file in files:
        assert (folder / file).read_bytes() == (other / file).read_bytes(), file
    calibrated = [json.loads((one / "calibration.json").read_text(encoding="utf-8")) for one in (folder, other)]
    assert {**calibrated[0], "origin": ""} == {**calibrated[1], "origin": ""}  # which depends on the time of training
    for one, two in zip(
        labels_of(original, "hidden").cases.values(), labels_of(spoiled, "hidden").cases.values(), strict=True
    ):
        for timed in (one, two):
            timed["seconds"] = timed["sources"]["atlas"]["registration_seconds"] = 0
        assert one == two


@pytest.mark.slow
def test_an_ensemble_is_calibrated_on_folds_that_have_not_learned_the_case(tmp_path_factory) -> None:
    """With a few labelled cases in folds, each is judged by the model that it validates."""
    workspace = make_workspace(tmp_path_factory.mktemp("deployed"), VARIANTS["deployment"])
    for case in ("case_06", "case_07"):  # images without label
        (workspace.root / "raw" / DATASET / "labelsTr" / f"{case}.nii.gz").unlink(missing_ok=True)
    plans = trained(workspace, 0, 1, 2, steps=5)
    assert make(workspace, plans, "--ensemble", name="all", sources="student,atlas") == 0
    labels = labels_of(workspace, "all", "all")
    found = json.loads((labels.folder / "calibration.json").read_text(encoding="utf-8"))
    split = load_split(workspace.preprocessed, "few")
    assert found["cases"] == len(split.labeled)
    assert set(found["dice"]) == {"mean", "student", "atlas"}
    assert all(about["sources"]["student"]["reliability"] is not None for about in labels.cases.values())


def test_atlases_in_part_are_refused_before_the_teacher_trains(workspaces, capfd: pytest.CaptureFixture[str]) -> None:
    workspace = workspaces("ignore")
    words = ("self-train", DATASET, "2d", "-p", workspace.plans, "-tr", "LimitedPromptedPseudoLabelTrainer", "--folds",
             "0", "-device", "cpu", "--epochs", "1", "--sources", "student,atlas")  # fmt: skip
    before = sorted(workspace.preprocessed.rglob("*")), sorted((workspace.root / "results").rglob("*"))
    assert command(*words) == 2
    assert "annotated in part only" in capfd.readouterr().err
    assert (sorted(workspace.preprocessed.rglob("*")), sorted((workspace.root / "results").rglob("*"))) == before


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["3d", "regions"])
def test_boxes_of_people_are_prompts(workspaces, tmp_path: Path, variant: str) -> None:
    """A scan with boxes is labelled where they are, others not at all; what lies in no box is left open."""
    workspace = workspaces(variant)
    plans = trained(workspace)
    raw, fold = RawDataset.load(DATASET), load_split(workspace.preprocessed, "few").folds[0]
    case, other = fold.unlabeled[:2]
    truth = read(raw.cases[case].label) > 0
    (z0, y0, x0), (z1, y1, x1) = tight_box(truth)
    name = "whole" if variant == "regions" else "1"
    row = f"{case},{name},{x0},{y0},{z0},{x1 - 1},{y1 - 1},{z1 - 1}"
    file = tmp_path / "boxes.csv"
    file.write_text("\n".join(["case,class,x0,y0,z0,x1,y1,z1", row]), encoding="utf-8")
    assert make(workspace, plans, "-f", "0", name="boxes", sources=f"boxes:{file},sam:{TINY_SAM}") == 0
    labels = labels_of(workspace, "boxes")
    label, confidence = (read(path) for path in labels.files(case))
    assert overlap(label > 0, truth) > 0.6
    assert not confidence[: int(z0)].any()
    assert (confidence[int(z0) : int(z1)] > 0).mean() > 0.5
    assert not read(labels.files(other)[1]).any()
    assert labels.cases[other]["coverage"] == 0
    model = TrainRequest(
        dataset=DATASET, configuration=workspace.variant.configuration, fold="0", trainer=TRAINER, plans=plans
    )
    job = PseudoLabelJob(EnsembleLabeller(model, parse_sources(f"boxes:{file},sam:{TINY_SAM}")), "wrong")
    for wrong, message in (
        (row.replace(name, "9", 1), "class '9'"),
        (row.replace(f"{x1 - 1},{y1 - 1}", f"99,{y1 - 1}"), "is not inside"),
        (f"{case},{name},{x1},{y0},{z0},{x0},{y1},{z1}", "is not inside"),
        (f"{case},{name},a,{y0},{z0},{x0},{y1},{z1}", "not a number"),
    ):
        file.write_text("\n".join(["case,class,x0,y0,z0,x1,y1,z1", wrong]), encoding="utf-8")
        with pytest.raises(LimitedError, match=message):
            job.make(job.check([0])[0], "cpu", lambda cases: cases)


class Bright:
    about = ModelCard("bright")

    def __init__(self, asked: list[tuple[str, bool]]) -> None:
        self.asked = asked

    def __call__(self, scan: Scan, guess: np.ndarray | None) -> SourcePrediction:
        self.asked.append((scan.case, guess is None))
        p = np.stack([scan.image[0] < 0, (scan.image[0] >= 0) & (scan.image[0] < 1.5), scan.image[0] >= 1.5])
        return SourcePrediction(p.astype(np.float32), 0.5)


def factory(source: Any) -> Any:
    def made(given: SourceContext) -> Any:
        return source

    made.is_label_source = True
    return made


@pytest.mark.slow
def test_a_source_and_a_prompter_of_ones_own(workspaces, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = workspaces("2d")
    plans = trained(workspace, 0)
    asked: list[tuple[str, bool]] = []

    module: Any = SimpleNamespace(bright=factory(Bright(asked)), tiny=lambda: find_prompter(f"sam:{TINY_SAM}"))
    monkeypatch.setitem(sys.modules, "mine", module)
    assert make(workspace, plans, "-f", "0", name="own", sources="mine:bright,mine:tiny") == 0
    labels = labels_of(workspace, "own")
    assert {case for case, _ in asked} >= set(labels.cases)
    assert all(first for _, first in asked)  # nobody has guessed before the first source
    assert labels.origin["checkpoints"] == {}
    one = next(iter(labels.cases.values()))
    assert one["sources"]["mine:bright"]["reliability"] == 0.5
    assert one["sources"]["mine:tiny"]["prompts"] > 0


@pytest.mark.slow
def test_entry_points_of_other_packages(workspaces, monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompter gets what follows the colon and the device, a source what it may know."""
    asked: list[Any] = []

    def prompter(weights: str, device: str) -> Any:
        asked.append((weights, device))
        return find_prompter(f"sam:{TINY_SAM}")

    def source(given: SourceContext) -> AtlasSource:
        asked.append(given.device)
        return AtlasSource(given)

    def entries(group: str) -> list[Any]:
        found = {"nnunet_limited.prompters": ("theirs", prompter), "nnunet_limited.label_sources": ("maps", source)}
        name, function = found[group]
        return [SimpleNamespace(name=name, load=lambda: function)]

    for module in ("prompters.prompter", "pseudo_labels.spec"):
        monkeypatch.setattr(f"nnunet_limited.{module}.entry_points", entries)
    workspace = workspaces("2d")
    plans = trained(workspace, 0)
    assert make(workspace, plans, "-f", "0", name="entries", sources="maps,theirs:here") == 0
    assert asked == [("here", "cpu"), "cpu"]
    one = next(iter(labels_of(workspace, "entries").cases.values()))
    assert one["sources"]["maps"]["atlases"] == 3
    assert one["sources"]["theirs:here"]["prompts"] > 0


@pytest.mark.slow
def test_two_rounds_of_training_and_labelling(workspaces, commands_here, capfd, monkeypatch) -> None:
    workspace = workspaces("one_labeled").activate("rounds_of_sources")
    plans = workspace.configure("two", **FROM_START, num_iterations_per_epoch=3, num_epochs=1)
    words = ("self-train", DATASET, "2d", "-p", plans, "-tr", "LimitedPromptedPseudoLabelTrainer", "--folds", "0",
             "-device", "cpu", "--rounds", "2", "--json", "--sources")  # fmt: skip
    monkeypatch.setitem(sys.modules, "mine", SimpleNamespace(bright=factory(Bright([]))))
    assert command(*words, "mine:bright") == 0
    results = json.loads(capfd.readouterr().out)
    assert [one["trainer"] for one in results] == [TRAINER, *["LimitedPromptedPseudoLabelTrainer"] * 2]
    sets = list((workspace.preprocessed / "pseudo_labels" / "few").glob("Limited*"))
    assert len(sets) == 2
    found = [json.loads((folder / "fold_0" / "pseudo_labels.json").read_text(encoding="utf-8")) for folder in sets]
    assert {one["trainer"] for one in found} == {TRAINER, "LimitedPromptedPseudoLabelTrainer"}
    assert sorted(one["previous"] is None for one in found) == [False, True]
