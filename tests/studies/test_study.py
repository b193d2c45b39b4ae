"""Study files: what is wrong is said at once and before anything is made; what has run goes on as it was."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock
from helpers import DATASET, Variant, write_case, write_dataset

from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.studies.active.study import ActiveStudy
from nnunet_limited.studies.comparison import folder as comparison_folder
from nnunet_limited.studies.comparison.folder import ComparisonFolder, estimate, open_folder
from nnunet_limited.studies.comparison.job import STEPS
from nnunet_limited.studies.comparison.study import check_data, load_study
from nnunet_limited.studies.engine.execution import Execution
from nnunet_limited.studies.engine.steps import device, self_training_words
from nnunet_limited.studies.engine.study_file import left_out, read_study
from nnunet_limited.studies.engine.workflow import run_study

SMALL: dict[str, Any] = {
    "name": "small",
    "datasets": [990],
    "labeled": [2, 3],
    "seeds": [0, 1],
    "number_of_folds": 3,
    "configurations": ["2d"],
    "size": "tiny",
    "iterations": 4,
    "iterations_per_epoch": 2,
    "methods": [
        {"name": "supervised", "trainer": "LimitedSupervisedTrainer", "labeled": [2, 3, "all"]},
        {"name": "mean teacher", "trainer": "LimitedMeanTeacherTrainer"},
    ],
}


def write(file: Path, **changes: Any) -> Path:
    """Write a study file; a change to None leaves the key out."""
    content = {**SMALL, **changes}
    file.write_text(
        yaml.safe_dump({key: value for key, value in content.items() if value is not None}), encoding="utf-8"
    )
    return file


@pytest.fixture
def raw(folders: Path) -> Path:
    return write_dataset(folders / "raw", Variant(cases=8))


def test_every_method_size_seed_and_fold_is_a_run(folders: Path) -> None:
    study = load_study(write(folders / "study.yaml", folds=[0, 2]))
    runs = study.runs()
    assert len(runs) == len({run.identifier for run in runs}) == 2 * 2 * (3 + 2)
    assert "990/2d/lalls1/supervised/fold_2" in [run.identifier for run in runs]
    assert {run.split for run in runs} == {f"l{size}s{seed}" for size in (2, 3, "all") for seed in (0, 1)}
    assert study.reference == "supervised"


def test_some_of_the_cases_and_methods_with_sources(raw: Path, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left out are always the same cases; what a method is asked with reaches the command, and may not change."""
    monkeypatch.setenv("HERE", "/weights")
    trainer = "LimitedPromptedPseudoLabelTrainer"
    both = {"name": "both", "trainer": trainer, "sources": "student,sam:$HERE/sam", "ask": ["axes=3"], "rounds": 2}
    both["accept_licence"] = "CC"
    alone = {"name": "alone", "trainer": "LimitedRecipeTrainer"}
    file = write(folders / "s.yaml", methods=[both, alone], cases=6, labeled=[2], seeds=[0])
    folder = open_folder(file, folders / "out")
    words: list[tuple[str, ...]] = []

    def call(*asked: str) -> str:
        words.append(asked)
        return json.dumps({"info": {}}) if asked[1] == "split" else "[]"

    run = folder.study.runs()[0]
    with folder.active():
        STEPS["split"](folder, run, call)
    listed = Path(words[0][words[0].index("--test-cases") + 1]).read_text(encoding="utf-8").splitlines()[1:]
    assert len(listed) == 2
    assert listed == left_out(RawDataset.load(DATASET), 6)
    assert left_out(RawDataset.load(DATASET), None) == []
    asked, plain = map(self_training_words, folder.study.methods)
    assert asked[-8:] == ["--rounds", "2", "--sources", "student,sam:/weights/sam", "--ask", "axes=3",
                          "--accept-licence", "CC"]  # fmt: skip
    assert "--sources" not in plain
    changed = {**both, "sources": "student"}
    (folders / "out" / "splits").mkdir(exist_ok=True)
    with pytest.raises(LimitedError, match="method 'both'"):
        open_folder(write(file, methods=[changed, alone], cases=6, labeled=[2], seeds=[0]), folders / "out")


def methods(*changes: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": f"m{n}", "trainer": "LimitedSupervisedTrainer", **change} for n, change in enumerate(changes)]


WRONG: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"name": None}, ("name",)),
    ({"sizes": [4]}, ("sizes", "extra")),
    ({"methods": []}, ("methods",)),
    ({"methods": methods({"trainer": "LimitedNoTrainer"})}, ("m0", "LimitedNoTrainer", "no such trainer")),
    ({"methods": methods({"trainer": "nnUNetTrainer"})}, ("m0", "nnUNetTrainer")),
    ({"methods": methods({"settings": {"no_setting": 1}})}, ("m0", "no_setting")),
    ({"methods": methods({"settings": {"initial_lr": -1}})}, ("m0", "initial_lr=-1")),
    ({"methods": methods({"settings": {"num_epochs": 3}})}, ("m0", "num_epochs", "set by the study")),
    ({"methods": methods({"teacher": "LimitedSupervisedTrainer"})}, ("m0", "takes no teacher")),
    ({"methods": methods({"trainer": "LimitedRecipeTrainer", "teacher": "Nobody"})}, ("m0", "teacher Nobody")),
    (
        {"methods": methods({"trainer": "LimitedRecipeTrainer", "sources": "nobody"})},
        ("m0", "'nobody' is not a source"),
    ),
    ({"methods": methods({"sources": "student"})}, ("m0", "does not learn from sources")),
    ({"methods": methods({"trainer": "LimitedRecipeTrainer", "ask": ["axes=3"]})}, ("m0", "need sources")),
    ({"methods": methods({"trainer": "LimitedRecipeTrainer", "accept_licence": "x"})}, ("m0", "need sources")),
    ({"methods": methods({"trainer": "LimitedPromptedPseudoLabelTrainer"})}, ("m0", "sources: student,atlas")),
    ({"methods": methods({"name": "a b"}, {"name": "a-b"})}, ("method a-b", "twice")),
    ({"baseline": "nobody"}, ("nobody", "supervised")),
    ({"seeds": [1, 1]}, ("seeds 1", "twice")),
    ({"seeds": [-1]}, ("seed -1",)),
    ({"labeled": [2, 2]}, ("labeled 2", "twice")),
    ({"labeled": ["few"]}, ("'few'",)),
    ({"labeled": [0]}, ("labeled 0",)),
    ({"folds": [3]}, ("fold 3", "3 folds")),
    ({"configurations": ["3d_fulres"]}, ("'3d_fulres'", "3d_fullres")),
    ({"configurations": ["3d_cascade_fullres"]}, ("'3d_cascade_fullres'",)),
    ({"size": "Tiny"}, ("size", "Tiny")),
    ({"patch": "abc"}, ("patch", "abc")),
    ({"patch": "32x32x32"}, ("patch 32x32x32", "2d")),
    ({"methods": methods({"name": "-"})}, ("methods.0.name",)),
    ({"methods": methods({"trainer": "LimitedRecipeTrainer", "teacher": "nnUNetTrainer"})}, ("teacher nnUNetTrainer",)),
    ({"methods": methods({"trainer": "LimitedRecipeTrainer", "settings": {"pseudo_labels": "r"}})}, ("pseudo_labels",)),
    ({"iterations": 5}, ("iterations=5", "iterations_per_epoch=2")),
    ({"metrics": ["dice", "accuracy"]}, ("accuracy",)),
]


@pytest.mark.parametrize(("changes", "messages"), WRONG, ids=[str(sorted(row[0].items()))[:40] for row in WRONG])
def test_a_wrong_file_is_refused(folders: Path, changes: dict[str, Any], messages: tuple[str, ...]) -> None:
    file = write(folders / "study.yaml", **changes)
    with pytest.raises(LimitedError) as error:
        load_study(file)
    for text in (str(file), *messages):
        assert text in str(error.value)


def test_all_problems_are_reported_at_once(folders: Path) -> None:
    file = write(folders / "study.yaml", seeds=[1, 1], folds=[9], baseline="nobody")
    with pytest.raises(LimitedError, match=r"3 problems: \(1\) .*\(2\) .*\(3\) "):
        load_study(file)


@pytest.mark.parametrize("content", ["- a list", "name: [", ""])
def test_what_is_no_study_is_refused(folders: Path, content: str) -> None:
    (folders / "study.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(LimitedError, match=r"study\.yaml (holds|is not readable)"):
        load_study(folders / "study.yaml")


def test_a_missing_file_is_refused(folders: Path) -> None:
    with pytest.raises(LimitedError, match=r"none\.yaml does not exist"):
        load_study(folders / "none.yaml")


def test_what_does_not_fit_the_data_is_refused_and_leaves_nothing(folders: Path, raw: Path) -> None:
    """Unknown datasets, sizes beyond the pool, nothing left to learn from, test cases to train on: all at once."""
    for number, label in ((0, True), (1, False)):
        write_case(raw, f"case_{number:02d}", Variant(), number, "imagesTs")
        if label:
            (raw / "labelsTs").mkdir(exist_ok=True)
            (raw / "labelsTs" / f"case_{number:02d}.nii.gz").write_bytes(b"")
    out = folders / "out"
    file = write(folders / "study.yaml", datasets=[990, 991], labeled=[2, 6], test={"images": "imagesTs"})
    with pytest.raises(LimitedError, match=r"dataset 991 is unknown.*labelsTs/case_01\.nii\.gz does not exist"):
        open_folder(file, out)
    (raw / "imagesTs" / "case_01_0000.nii.gz").unlink()
    mine = methods({}, {"trainer": "LimitedMeanTeacherTrainer", "labeled": ["all"]})
    file = write(folders / "study.yaml", labeled=[2, 6], test={}, methods=mine)
    with pytest.raises(LimitedError) as error:
        open_folder(file, out)
    for text in (
        "--labeled 6: there are only 5",
        "case_00 is a test case and a training case",
        "'m1' at labeled all: no case is left",
    ):
        assert text in str(error.value)
    assert not out.exists()


def test_groups_equal_those_of_the_split(folders: Path, raw: Path) -> None:
    file = write(folders / "study.yaml", group_by="case_(?=0[0-3])|case(?=_0[4-7])")
    with pytest.raises(LimitedError, match="labeled 2: there is only 1 labelled group"):
        open_folder(file, folders / "out")


def test_patients_of_the_test_set_are_not_trained_on(folders: Path, raw: Path) -> None:
    write_case(raw, "case_0x", Variant(), 9, "imagesTs")
    (raw / "labelsTs").mkdir()
    (raw / "labelsTs" / "case_0x.nii.gz").write_bytes(b"")
    open_folder(write(folders / "study.yaml", test={}), folders / "cases")
    file = write(
        folders / "study.yaml", test={}, group_by="case_(?=0[0-3])|case(?=_0[4-7x])|ca(?=se_0)", number_of_folds=2
    )
    with pytest.raises(LimitedError, match="case is a test case and a training case"):
        open_folder(file, folders / "patients")


def test_deployment_asks_for_a_test_set(folders: Path, raw: Path) -> None:
    """Or every size would be validated on other cases."""
    with pytest.raises(LimitedError, match="give a test set"):
        open_folder(write(folders / "study.yaml", protocol="deployment"), folders / "out")
    for case in ("case_06", "case_07"):
        (raw / "labelsTr" / f"{case}.nii.gz").unlink()
    with pytest.raises(LimitedError, match="give a test set"):
        open_folder(write(folders / "study.yaml"), folders / "out")
    with pytest.raises(LimitedError, match="is trained and validated on"):
        open_folder(
            write(folders / "study.yaml", protocol="deployment", labeled=[1], methods=methods({})), folders / "out"
        )


def test_a_partition_that_is_there_is_kept(folders: Path, raw: Path) -> None:
    cases = [f"case_{number:02d}" for number in range(8)]
    (raw / "splits_final.json").write_text(json.dumps([{"train": cases[:4], "val": cases[4:]}] * 2), encoding="utf-8")
    with pytest.raises(LimitedError, match=r"splits_final\.json"):
        open_folder(write(folders / "study.yaml"), folders / "out")


def test_a_study_that_has_run_may_grow_but_not_change(folders: Path, raw: Path) -> None:
    out = folders / "out"
    open_folder(write(folders / "study.yaml", iterations=2), out)
    open_folder(write(folders / "study.yaml"), out)  # nothing has run yet
    (out / "splits").mkdir()
    assert (out / "raw" / DATASET).resolve() == raw.resolve()
    more = write(folders / "more.yaml", seeds=[0, 1, 2], methods=[*SMALL["methods"], *methods({})])
    assert len(open_folder(more, out).study.runs()) == 3 * (3 + 2 + 2)
    assert ComparisonFolder(out).study.datasets == (DATASET,)
    with pytest.raises(LimitedError, match=r"iterations is 6, but .* was run with 4"):
        open_folder(write(folders / "changed.yaml", iterations=6), out)
    changed = [SMALL["methods"][0], {**SMALL["methods"][1], "settings": {"ema_decay": 0.9}}]
    with pytest.raises(LimitedError, match="'mean-teacher' is not as"):
        open_folder(write(folders / "changed.yaml", methods=changed), out)
    assert len(ComparisonFolder(out).study.runs()) == 3 * (3 + 2 + 2), "a refused file changes nothing"
    open_folder(write(folders / "fewer.yaml", methods=SMALL["methods"][:1]), out)
    with pytest.raises(LimitedError, match="'mean-teacher' is not as"):
        open_folder(write(folders / "changed.yaml", methods=changed), out)


def test_a_folder_of_something_else_is_not_taken(folders: Path, raw: Path) -> None:
    with pytest.raises(LimitedError, match="is not empty and holds no study"):
        open_folder(write(folders / "other.yaml"), folders)
    with pytest.raises(LimitedError, match="holds no study"):
        _ = ComparisonFolder(folders).study


def test_a_study_is_run_by_one_at_a_time(folders: Path, raw: Path) -> None:
    folder = open_folder(write(folders / "study.yaml"), folders / "out")
    other = write(folders / "other.yaml", seeds=[0])
    with FileLock(folder.path / ".running.lock"):
        with pytest.raises(LimitedError, match="out is in use by another process"):
            run_study(folder, Execution())
        with pytest.raises(LimitedError, match="out is in use by another process"):
            open_folder(other, folder.path)
        with pytest.raises(LimitedError, match="new is in use by"), FileLock(folders / "new" / ".running.lock"):
            open_folder(other, folders / "new")
    assert ComparisonFolder(folder.path).study == folder.study


def test_a_study_that_was_killed_before_it_had_a_file_is_made_again(folders: Path, raw: Path, monkeypatch) -> None:
    """A folder of somebody else is not touched."""
    out = folders / "out"
    for moment in (ComparisonFolder.write_study, check_data):
        with monkeypatch.context() as patched:
            owner = ComparisonFolder if moment is ComparisonFolder.write_study else comparison_folder
            patched.setattr(owner, moment.__name__, killed)
            with pytest.raises(KeyboardInterrupt):
                open_folder(write(folders / "study.yaml"), out)
        assert (out / "raw").is_dir()
        (out / "results" / "rest").mkdir()
        folder = open_folder(write(folders / "other.yaml", seeds=[0]), out)
        assert folder.study.seeds == (0,)
        assert not (out / "results" / "rest").exists()
        assert not (out / ".unfinished").exists()
        shutil.rmtree(out)
    (out / "raw").mkdir(parents=True)
    with pytest.raises(LimitedError, match="is not empty and holds no study"):
        open_folder(write(folders / "study.yaml"), out)
    assert [file.name for file in out.iterdir()] == ["raw"]
    for content in ("[", "name: 1"):  # a refused one leaves nothing
        (folders / "bad.yaml").write_text(content, encoding="utf-8")
        with pytest.raises(LimitedError):
            open_folder(folders / "bad.yaml", folders / "third")
        assert not (folders / "third").exists()


def killed(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("execution", "threads", "freed_at_once"),
    [
        (Execution(cores=2), 1, False),
        (Execution(cores=32), 8, False),
        (Execution(cores=32, gpus=2, share_gpus=2), 8, True),
    ],
)
def test_runs_share_the_cores(
    folders: Path,
    raw: Path,
    monkeypatch: pytest.MonkeyPatch,
    execution: Execution,
    threads: int,
    freed_at_once: bool,
) -> None:
    """Four runs, or four at a time: on few cores each has one, on many more."""
    seen: dict[str, Any] = {}

    class Snakemake:
        def __init__(self, command: list[str], env: dict[str, str]) -> None:
            seen.update(command=command, env=env)

        def wait(self) -> int:
            return 0

    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr("torch.cuda.device_count", lambda: execution.gpus or 0)
    monkeypatch.setattr("subprocess.Popen", Snakemake)
    two = [{"name": "supervised"}, {"name": "mean teacher", "trainer": "LimitedMeanTeacherTrainer"}]
    folder = open_folder(write(folders / "study.yaml", seeds=[0], methods=two), folders / "out")
    assert len(folder.study.runs()) == 4
    assert run_study(folder, execution) == 0
    assert f"threads={threads}" in seen["command"]
    assert seen["env"]["OMP_NUM_THREADS"] == str(threads)
    assert ("MALLOC_TRIM_THRESHOLD_" not in seen["env"]) == freed_at_once


def test_gpus_are_those_that_cuda_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert Execution().devices() == ("0", "1", "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3,7")
    assert Execution(gpus=2).devices() == ("5", "3")
    assert Execution(gpus=0).devices() == ()
    with pytest.raises(LimitedError, match="--gpus 4: this machine shows 3"):
        Execution(gpus=4).devices()
    with pytest.raises(LimitedError, match="--gpus 0 or --gpus 1"):
        Execution(executor="slurm").devices()
    assert len(Execution(gpus=1, executor="slurm").devices()) == 1


def test_a_gpu_is_held_by_as_many_trainings_as_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two places on GPU 5 and none free, the third training waits."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("time.sleep", lambda seconds: waited.append(seconds) or first.close())
    waited: list[float] = []
    first, second = ExitStack(), ExitStack()
    for stack in (first, second):
        assert stack.enter_context(device("5/5")) == "cuda"
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
    assert not waited
    with device("5/5"):
        assert waited
    second.close()
    with device("none"):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def test_the_cost_counts_what_is_missing(folders: Path, raw: Path) -> None:
    recipe = {"name": "recipe", "trainer": "LimitedRecipeTrainer", "labeled": [2], "rounds": 2}
    folder = open_folder(write(folders / "study.yaml", methods=[*SMALL["methods"], recipe]), folders / "out")
    runs = {name: (number, cost) for name, number, cost in estimate(folder)}
    assert runs["supervised"] == (6, 6.0)
    assert runs["recipe"][0] == 2
    teacher, student = 3.5, 2.0  # of LimitedBidirectionalCopyPasteTrainer and of LimitedRecipeTrainer
    assert runs["recipe"][1] == pytest.approx(2 * (teacher + 2 * student))
    done = next(run for run in folder.study.runs() if run.method == "supervised")
    (folder.run_folder(done)).mkdir(parents=True)
    (folder.run_folder(done) / "metrics.csv").write_text("", encoding="utf-8")
    assert dict((name, number) for name, number, _ in estimate(folder))["supervised"] == 5


def test_the_shipped_studies_are_well_formed() -> None:
    files = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))
    assert files
    for file in files:
        study: Any = read_study(file, ActiveStudy) if file.name.startswith("active_") else load_study(file)
        assert study.name == file.stem
        assert study.runs()
