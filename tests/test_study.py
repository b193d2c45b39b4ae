"""Study files: what is wrong is said at once and before anything is made; what has run goes on as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock
from helpers import DATASET, Variant, write_case, write_dataset

from nnunet_limited.errors import LimitedError
from nnunet_limited.studies.folder import StudyFolder, open_folder
from nnunet_limited.studies.study import Study, load_study
from nnunet_limited.studies.workflow import Execution, estimate, run_study

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
    file.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
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
    ({"methods": methods({"settings": {"num_epochs": 3}})}, ("m0", "num_epochs", "study's")),
    ({"methods": methods({"teacher": "LimitedSupervisedTrainer"})}, ("m0", "takes no teacher")),
    ({"methods": methods({"trainer": "LimitedRecipeTrainer", "teacher": "Nobody"})}, ("m0", "teacher Nobody")),
    ({"methods": methods({"name": "a b"}, {"name": "a-b"})}, ("method a-b", "twice")),
    ({"baseline": "nobody"}, ("nobody", "supervised")),
    ({"seeds": [1, 1]}, ("seeds 1", "twice")),
    ({"seeds": [-1]}, ("seed -1",)),
    ({"labeled": [2, 2]}, ("labeled 2", "twice")),
    ({"labeled": ["few"]}, ("'few'",)),
    ({"labeled": [0]}, ("labeled 0",)),
    ({"folds": [3]}, ("fold 3", "3 folds")),
    ({"iterations": 5}, ("iterations=5", "iterations_per_epoch=2")),
    ({"metrics": ["dice", "accuracy"]}, ("accuracy",)),
]


@pytest.mark.parametrize(("changes", "told"), WRONG, ids=[str(sorted(row[0].items()))[:40] for row in WRONG])
def test_a_wrong_file_is_refused(folders: Path, changes: dict[str, Any], told: tuple[str, ...]) -> None:
    file = write(folders / "study.yaml", **changes)
    with pytest.raises(LimitedError) as error:
        load_study(file)
    for text in (str(file), *told):
        assert text in str(error.value)


def test_all_problems_are_told_at_once(folders: Path) -> None:
    file = write(folders / "study.yaml", seeds=[1, 1], folds=[9], baseline="nobody")
    with pytest.raises(LimitedError, match=r"3 problems: \(1\) .*\(2\) .*\(3\) "):
        load_study(file)


@pytest.mark.parametrize("content", ["- a list", "name: [", ""])
def test_what_is_no_study_is_refused(folders: Path, content: str) -> None:
    (folders / "study.yaml").write_text(content)
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
    for text in ("labeled 6: only 5", "test case case_00 is a training case", "'m1' at labeled all: no case is left"):
        assert text in str(error.value)
    assert not out.exists()


def test_groups_are_counted_as_the_split_counts_them(folders: Path, raw: Path) -> None:
    file = write(folders / "study.yaml", group_by="case_(?=0[0-3])|case(?=_0[4-7])")
    with pytest.raises(LimitedError, match="labeled 2: only 1 labelled groups"):
        open_folder(file, folders / "out")


def test_a_study_that_has_run_may_grow_but_not_change(folders: Path, raw: Path) -> None:
    out = folders / "out"
    open_folder(write(folders / "study.yaml"), out)
    assert (out / "raw" / DATASET).resolve() == raw.resolve()
    more = write(folders / "more.yaml", seeds=[0, 1, 2], methods=[*SMALL["methods"], *methods({})])
    assert len(open_folder(more, out).study.runs()) == 3 * (3 + 2 + 2)
    assert StudyFolder(out).study.datasets == (DATASET,)
    with pytest.raises(LimitedError, match=r"iterations is 6, but .* was run with 4"):
        open_folder(write(folders / "changed.yaml", iterations=6), out)
    changed = [SMALL["methods"][0], {**SMALL["methods"][1], "settings": {"ema_decay": 0.9}}]
    with pytest.raises(LimitedError, match="'mean teacher' is not as"):
        open_folder(write(folders / "changed.yaml", methods=changed), out)
    assert len(StudyFolder(out).study.runs()) == 3 * (3 + 2 + 2), "a refused file changes nothing"


def test_a_folder_of_something_else_is_not_taken(folders: Path, raw: Path) -> None:
    with pytest.raises(LimitedError, match="is not empty and holds no study"):
        open_folder(write(folders / "other.yaml"), folders)
    with pytest.raises(LimitedError, match="holds no study"):
        _ = StudyFolder(folders).study


def test_a_study_is_run_by_one_at_a_time(folders: Path, raw: Path) -> None:
    folder = open_folder(write(folders / "study.yaml"), folders / "out")
    with FileLock(folder.path / ".running.lock"), pytest.raises(LimitedError, match="is being run already"):
        run_study(folder, Execution())


def test_the_cost_counts_what_is_missing(folders: Path, raw: Path) -> None:
    recipe = {"name": "recipe", "trainer": "LimitedRecipeTrainer", "labeled": [2], "rounds": 2}
    folder = open_folder(write(folders / "study.yaml", methods=[*SMALL["methods"], recipe]), folders / "out")
    runs = {name: (number, cost) for name, number, cost in estimate(folder)}
    assert runs["supervised"] == (6, 6.0)
    assert runs["recipe"][0] == 2
    assert runs["recipe"][1] > 2 * (1 + 2), "teacher and two rounds"
    done = next(run for run in folder.study.runs() if run.method == "supervised")
    (folder.run_folder(done)).mkdir(parents=True)
    (folder.run_folder(done) / "metrics.csv").write_text("")
    assert dict((name, number) for name, number, _ in estimate(folder))["supervised"] == 5


def test_the_shipped_studies_are_well_formed() -> None:
    files = sorted((Path(__file__).parents[1] / "studies").glob("*.yaml"))
    assert files
    for file in files:
        study: Study = load_study(file)
        assert study.name == file.stem
