"""Runs of a study that began with other defaults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import DATASET, Variant, write_dataset
from test_study import write

from nnunet_limited.engine.run import RECORD
from nnunet_limited.engine.settings import parse_assignments
from nnunet_limited.errors import LimitedError
from nnunet_limited.runs.request import find_trainer
from nnunet_limited.runs.variants import configure
from nnunet_limited.studies.active.folder import ActiveFolder
from nnunet_limited.studies.active.study import ActiveStudy
from nnunet_limited.studies.comparison.folder import open_folder
from nnunet_limited.studies.comparison.job import STEPS
from nnunet_limited.studies.engine.begun import FORMER, Training, former_defaults
from nnunet_limited.studies.engine.folder import RECORD as TRAINED
from nnunet_limited.studies.engine.study_file import Method
from nnunet_limited.util.files import read_object, write_json

MEAN_TEACHER, RECIPE, SUPERVISED = "LimitedMeanTeacherTrainer", "LimitedRecipeTrainer", "LimitedSupervisedTrainer"
NAMES = {"labels": "LimitedSupervisedTrainer-plans-2d"}
OLD = {"start_fraction": 0.4}  # a default that has changed


class Folder:
    """Runs of a study in nnU-Net's folders below ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def training(self, method: Method, seed: int, size: dict[str, Any] | None = None) -> Training:
        """Return a training whose split is planned, with the settings of a ``size``."""
        plans = f"nnUNetPlans_l2s{seed}"
        folder = self.root / "preprocessed" / DATASET
        settings = {"optimizer": "adamw"} if size is None else size
        limited = {"split": f"l2s{seed}", "split_hash": "", "settings": settings}
        content = {"dataset_name": DATASET, "plans_name": plans, "configurations": {}, "limited": limited}
        write_json(folder / f"{plans}.json", content)
        return Training(method, seed, DATASET, "2d", plans, 0, self.root / "runs" / f"{method.slug}_{seed}")

    def begin(
        self, training: Training, changed: dict[str, Any], trainer: str = "", complete: bool = False, **further: Any
    ) -> str:
        """Write what a run leaves that began when ``changed`` settings had other defaults; return its plans' name."""
        trainer = trainer or training.method.trainer
        settings = asked(training) | further
        name = configure(self.root / "preprocessed" / DATASET, training.plans, settings)
        plans = read_object(self.root / "preprocessed" / DATASET / f"{name}.json", "", "")
        config = find_trainer(trainer).resolve_config(plans).model_dump(mode="json") | changed
        run = f"results/{DATASET}/{trainer}__{name}__2d/fold_0"
        write_json(self.root / run / RECORD, {"trainer": trainer, "settings": config})
        if complete:
            file = training.folder / TRAINED
            before = read_object(file, "", "")["results"] if file.is_file() else []
            write_json(file, {"results": [*before, run]})
        return name


@pytest.fixture
def study(folders: Path) -> Iterator[Folder]:
    (folders / "runs").mkdir()
    return Folder(folders)


def asked(training: Training) -> dict[str, Any]:
    settings = {"seed": training.seed, "num_epochs": 3, **training.method.settings}
    return parse_assignments([f"{key}={value}" for key, value in settings.items()])


def needed(training: Training, *others: Training) -> dict[str, Any]:
    return former_defaults(training, others, asked(training))


def test_a_new_study_has_the_defaults_of_today(study: Folder) -> None:
    method = Method(name="mt", trainer=MEAN_TEACHER, settings={"cutmix": True})
    first, second = study.training(method, 0), study.training(method, 1)
    assert needed(first, second) == {}
    study.begin(first, {}, complete=True)
    assert needed(second, first) == {}


@pytest.mark.parametrize("complete", [True, False])
def test_remaining_runs_are_like_those_that_are_there(study: Folder, complete: bool) -> None:
    method = Method(name="mt", trainer=MEAN_TEACHER)
    first, second = study.training(method, 0), study.training(method, 1)
    study.begin(first, OLD, complete=complete)
    assert needed(second, first) == OLD
    assert needed(first, second) == {}, "it is continued with its own settings"


def test_runs_of_another_method_do_not_count(study: Folder) -> None:
    """One with further settings of the same trainer, whose plans' names begin alike."""
    plain = [study.training(Method(name="mt", trainer=MEAN_TEACHER), seed) for seed in (0, 1)]
    other = [study.training(Method(name="mix", trainer=MEAN_TEACHER, settings={"cutmix": True}), n) for n in (0, 1)]
    study.begin(other[0], OLD)
    assert needed(plain[1], plain[0]) == {}
    assert needed(plain[0], plain[1]) == {}
    assert needed(other[1], other[0]) == OLD


def test_a_remaining_run_is_asked_for_the_same_each_time(study: Folder) -> None:
    """From when it begins on, whatever defaults change then."""
    first, second = (study.training(Method(name="mt", trainer=MEAN_TEACHER), seed) for seed in (0, 1))
    study.begin(first, OLD, complete=True)
    assert needed(second, first) == OLD
    more = {**OLD, "consistency_weight": 0.5}
    study.begin(first, more)
    assert needed(second, first) == more, "it has not begun"
    study.begin(second, {}, **more)
    study.begin(first, {**more, "rampup_fraction": 0.7})
    for _ in range(2):
        assert needed(second, first) == more
    (second.folder / FORMER).unlink()
    study.begin(second, more)
    assert needed(second, first) == {}, "it began before former defaults were chosen"


def test_the_size_of_plans_does_not_change_a_method(study: Folder) -> None:
    method = Method(name="mt", trainer=MEAN_TEACHER)
    first, second = study.training(method, 0), study.training(method, 1, {"optimizer": "adamw", "cpu_autocast": True})
    study.begin(first, {}, complete=True)
    assert needed(second, first) == {"cpu_autocast": False}
    again = study.training(Method(name="r", trainer=RECIPE), 0), study.training(Method(name="r", trainer=RECIPE), 1)
    study.begin(again[0], {}, complete=True, pseudo_labels=NAMES["labels"])
    study.training(again[1].method, 1, {"optimizer": "adamw", "cpu_autocast": True})
    assert needed(again[1], again[0]) == {"cpu_autocast": False}, "teacher and student alike"


def test_former_names_of_settings_are_those_of_today(study: Folder) -> None:
    trainer = "LimitedBidirectionalCopyPasteTrainer"
    method = Method(name="bcp", trainer=trainer, settings={"largest_component": False})
    first, second = study.training(method, 0), study.training(method, 1)
    study.begin(first, OLD)
    assert needed(second, first) == OLD
    assert needed(first, second) == {}
    record = study.root / "results" / DATASET
    file = next(record.glob(f"{trainer}__*/fold_0/{RECORD}"))
    content = read_object(file, "", "")
    content["settings"]["largest_component"] = content["settings"].pop("components") == "largest"
    write_json(file, content)
    assert needed(second, first) == OLD


def test_self_training_is_not_mixed(study: Folder) -> None:
    """The pseudo-labels of a student are no default, and those of its teacher count too."""
    method = Method(name="recipe", trainer=RECIPE)
    first, second, third = (study.training(method, seed) for seed in (0, 1, 2))
    study.begin(first, {}, trainer=SUPERVISED, complete=True)
    study.begin(first, {}, complete=True, pseudo_labels=NAMES["labels"])
    assert needed(second, first) == {}
    study.begin(first, OLD, pseudo_labels=NAMES["labels"])
    with pytest.raises(LimitedError, match=r"'recipe' .* other defaults \(start_fraction\)"):
        needed(second, first)
    study.begin(second, OLD, pseudo_labels=NAMES["labels"])
    assert needed(second, first) == {}, "its student has begun"
    study.begin(first, {}, pseudo_labels=NAMES["labels"])
    study.begin(first, {"weight_decay": 0.1}, trainer=SUPERVISED)
    with pytest.raises(LimitedError, match=r"other defaults \(weight_decay\)"):
        needed(third, first)


def test_jobs_ask_for_former_defaults(folders: Path) -> None:
    write_dataset(folders / "raw", Variant(cases=8))
    methods = [{"name": "mt", "trainer": MEAN_TEACHER}]
    opened = open_folder(write(folders / "s.yaml", methods=methods, labeled=[2]), folders / "out")
    study = Folder(folders / "out")
    words: list[tuple[str, ...]] = []

    def call(*asked: str) -> str:
        words.append(asked)
        raise LimitedError("no training in this test")

    with opened.active():
        runs = opened.study.runs()
        assert [opened.others(run) for run in runs] == [[], []]
        for run in runs:
            made = study.training(opened.study.methods[0], run.seed)
            write_json(opened.split_folder(run) / "plans.json", {"plans": made.plans})
        assert [[other.seed for other in opened.others(run)] for run in runs] == [[1], [0]]
        study.begin(opened.training(runs[0]), OLD, num_epochs=2, num_iterations_per_epoch=2)
        for run in runs:
            with pytest.raises(LimitedError, match="no training"):
                STEPS["train"](opened, run, call, "none")
    assert ["start_fraction=0.4" in asked for asked in words] == [False, True]
    assert "seed=1" in words[1]


def test_trainings_of_other_rounds_count(tmp_path: Path) -> None:
    """Those of the method that are complete, with whatever dataset they had; those with all labels are apart."""
    methods = [{"name": "mt", "trainer": MEAN_TEACHER}, {"name": "other", "trainer": MEAN_TEACHER}]
    targets = [{"what": "case", "items": 1}]
    content = {"name": "a", "dataset": DATASET, "methods": methods, "targets": targets, "strategies": ["random"]}
    folder = ActiveFolder(tmp_path)
    folder.write_study(ActiveStudy(**content, seeds=[0, 1], rounds=1))  # type: ignore[arg-type]
    steps = [step for step in folder.study.runs() if step.seed == 0]
    write_json(tmp_path / "datasets.json", {step.identifier: "Dataset601_Round" for step in steps})
    for step in steps:
        write_json(folder.run_folder(step) / TRAINED, {"plans": "nnUNetPlans_x", "results": ["results/x"]})
    found = {step.target: folder.others(step) for step in folder.study.runs() if step.method == "mt" and step.seed}
    assert {name: sorted(one.dataset for one in others) for name, others in found.items()} == {
        "full": [DATASET], "start": ["Dataset601_Round", DATASET], "case": ["Dataset601_Round", DATASET],
    }  # fmt: skip
    assert {one.method.name for one in found["start"]} == {"mt"}
    assert [one.method.trainer for one in found["full"]] == [SUPERVISED]
