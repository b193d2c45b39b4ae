"""A study from its file to its page, with real trainings on the workflow engine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import SimpleITK as sitk
from helpers import DATASET, Variant, write_dataset
from test_study import write

from nnunet_limited.cli.main import main
from nnunet_limited.splits import load_split
from nnunet_limited.studies.comparison import job
from nnunet_limited.studies.comparison.folder import open_folder
from nnunet_limited.studies.engine.stale import move_stale_runs_aside, was_moved_aside

TRAINER = """
from nnunet_limited.trainers import LimitedSupervisedTrainer

class Breaking{trainer}(LimitedSupervisedTrainer):
    def on_train_start(self):
        {what}
        super().on_train_start()
"""
METHODS = [
    {"name": "supervised", "trainer": "LimitedSupervisedTrainer"},
    {"name": "broken", "trainer": "BreakingTrainer"},
]


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> int | str | None:
    monkeypatch.setattr("sys.argv", ["nnunet-limited", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_wrong_words_are_one_line(folders: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    assert command(monkeypatch, "study", "run", "s.yaml") == 2
    printed = capsys.readouterr().err
    assert "--out" in printed
    assert "(see nnunet-limited study run --help)" in printed
    assert command(monkeypatch, "study", "status", str(folders)) == 2
    assert "holds no study" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.usefixtures("commands_here")
def test_a_study_goes_on_where_it_stopped(folders: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """A job that fails stops no other and is reported; started again, finished jobs are not repeated and it is done."""
    pytest.importorskip("snakemake", reason="Snakemake needs Python 3.11")
    write_dataset(folders / "raw", Variant(cases=6))
    trainers = folders / "trainers"
    trainers.mkdir()
    file = trainers / "breaking.py"
    file.write_text(TRAINER.format(trainer="Trainer", what="raise ValueError('no luck')"), encoding="utf-8")
    monkeypatch.setenv("nnUNet_extTrainer", os.pathsep.join([os.environ.get("nnUNet_extTrainer", ""), str(trainers)]))
    study, out = write(folders / "s.yaml", methods=METHODS, labeled=[2], seeds=[0]), str(folders / "a study")

    folder = open_folder(study, folders / "a study")
    for name in ("yaml", "numpy", "json"):
        (folder.path / f"{name}.py").write_text("raise SystemExit('a module of the working folder')", encoding="utf-8")
    monkeypatch.chdir(out)
    with folder.active():  # as the workflow would do them first
        assert [job.main([step, f"{DATASET}/l2s0"]) for step in ("split", "plan")] == [0, 0]
        supervised = next(run for run in folder.study.runs() if run.method == "supervised")
        assert job.main(["train", supervised.identifier, "none"]) == 0
    monkeypatch.chdir(folders)
    assert command(monkeypatch, "study", "run", str(study), "--out", out, "--cores", "2") == 1
    found = {run.method: state for run, state, _ in folder.states()}
    assert found == {"supervised": "done", "broken": "failed"}
    broken = next(run for run in folder.study.runs() if run.method == "broken")
    capsys.readouterr()
    assert command(monkeypatch, "study", "status", out, "--log", broken.identifier) == 0
    assert "no luck" in capsys.readouterr().out
    page = folders / "a study" / "report" / "index.html"
    assert f"1 run failed: {broken.identifier}" in page.read_text(encoding="utf-8")
    assert "no luck" in page.read_text(encoding="utf-8")

    file.write_text(TRAINER.format(trainer="Trainer", what="pass"), encoding="utf-8")
    before = {path: path.stat().st_mtime_ns for path in (folders / "a study" / "runs").rglob("*") if path.is_file()}
    assert any(path.name == "metrics.csv" for path in before)
    assert command(monkeypatch, "study", "run", str(study), "--out", out, "--cores", "1") == 0
    assert {state for _, state, _ in folder.states()} == {"done"}
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "failed" not in page.read_text(encoding="utf-8")
    assert "broken, training loss: " in page.read_text(encoding="utf-8")

    with folder.active():
        case = load_split(folders / "a study" / "preprocessed" / DATASET, "l2s0").fold(0).train[0]
    label = folders / "raw" / DATASET / "labelsTr" / f"{case}.nii.gz"
    image = sitk.ReadImage(str(label))
    sitk.WriteImage(image == 1, str(label))
    capsys.readouterr()
    assert command(monkeypatch, "study", "run", str(study), "--out", out, "--cores", "1") == 2
    assert f"the label of {case} has changed since it was preprocessed; run the study with --redo" in "".join(
        capsys.readouterr().err
    )
    assert len(move_stale_runs_aside(folder)) == 2
    assert {state for _, state, _ in folder.states()} == {"started"}
    assert was_moved_aside(folder, broken)
    assert not list((folders / "a study" / "splits").rglob("plans.json"))
