"""The folder of a comparison study: how it is opened, the state of each of its runs, what the missing ones cost."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_limited.studies.comparison.study import Method, Run, Study, check_data, load_study
from nnunet_limited.studies.engine.begun import Training
from nnunet_limited.studies.engine.failures import failed_marker
from nnunet_limited.studies.engine.folder import METHODS, RECORD, StudyFolder, link_dataset
from nnunet_limited.studies.engine.study_file import gathered
from nnunet_limited.util.files import read_object, write_json

PLANS = "plans.json"  # in the folder of a split: what was planned for it
STEPS = ("split", "plan", "train", "predict", "evaluate")
FREE = ("datasets", "labeled", "methods", "seeds", "folds", "baseline", "metrics", "minutes_per_run")


@dataclass(frozen=True)
class ComparisonFolder(StudyFolder):
    """The folder of a comparison study."""

    kind = Study
    file_name = "study.yaml"
    runs_name = "runs"
    snakefile = Path(__file__).with_name("Snakefile")
    remedy_for_stale = "run the study with --redo, which moves such runs aside and trains them again"

    def split_folder(self, run: Run) -> Path:
        """Return the folder with what is recorded of a run's split."""
        return self.path / "splits" / run.dataset / run.split

    def training(self, run: Run) -> Training:
        """Return what is trained in a run, whose split must be planned."""
        plans = read_object(self.split_folder(run) / PLANS, "record of plans", "delete its folder")["plans"]
        method = self.study.method(run.method)
        return Training(method, run.seed, run.dataset, run.configuration, plans, run.fold, self.run_folder(run))

    def others(self, run: Run) -> list[Training]:
        """Return the other trainings of the run's method, dataset and configuration, if their splits are planned."""
        mine = (run.dataset, run.configuration, run.method)
        runs = [one for one in self.study.runs() if (one.dataset, one.configuration, one.method) == mine and one != run]
        return [self.training(one) for one in runs if (self.split_folder(one) / PLANS).is_file()]

    def plan_again(self, run: Run) -> None:
        """Let the split of a run be planned again."""
        (self.split_folder(run) / PLANS).unlink(missing_ok=True)

    def log(self, run: Run, step: str) -> Path:
        """Return the log of a step of a run."""
        if step in ("split", "plan"):
            return self.path / "logs" / "splits" / run.dataset / run.split / f"{step}.log"
        return self.path / "logs" / "runs" / run.identifier / f"{step}.log"

    def state(self, run: Run) -> tuple[str, Path | None]:
        """Return ``done``, ``failed``, ``started``, ``trained`` or ``waiting``, and the log to look at.

        A run that is trained waits for its evaluation.
        """
        if (self.run_folder(run) / "metrics.csv").is_file():
            return "done", self.log(run, "evaluate")
        for step in STEPS:
            if failed_marker(self.log(run, step)).is_file():
                return "failed", self.log(run, step)
        for step in reversed(STEPS[2:]):
            if self.log(run, step).is_file():
                waits = step == "train" and (self.run_folder(run) / RECORD).is_file()
                return "trained" if waits else "started", self.log(run, step)
        return "waiting", None


def open_folder(file: Path, out: Path) -> ComparisonFolder:
    """Check a study file with its data and make its folder, or continue in one that holds the same study.

    Methods, sizes, seeds, folds and datasets may be added to a study that has run; its runs may not change.
    """
    with ComparisonFolder(out).alone():
        return _open(file, out)


def _open(file: Path, out: Path) -> ComparisonFolder:
    study, folder = load_study(file), ComparisonFolder(out)
    methods = {method.slug: _specification(method) for method in study.methods}
    known: dict[str, Any] = {}
    if (out / "splits").is_dir():
        study = folder.continued(study)
        folder.refuse_changes(study, file, FREE)
        known = read_object(out / METHODS, "list of methods", "delete it with the folder's runs")
        folder.refuse_changed("method", methods, known, file)
    with folder.opened():
        named, problems = _link_datasets(study, out)
        with folder.active():
            check_data(named, file, problems)
    write_json(out / METHODS, known | methods)
    folder.write_study(named)
    return ComparisonFolder(out)


def estimate(folder: ComparisonFolder) -> list[tuple[str, int, float]]:
    """Return each method with its number of unfinished runs, and their cost as a number of supervised runs."""
    from nnunet_limited.runs.request import find_trainer
    from nnunet_limited.trainers.catalogue import step_cost

    waiting = [one.run.method for one in folder.states() if one.state != "done"]
    costs = []
    for method in folder.study.methods:
        trainer = find_trainer(method.trainer)
        cost = step_cost(trainer)["relative_time"] or 1.0
        if trainer.learns_pseudo_labels != "none":
            teacher = find_trainer(method.teacher or trainer.teacher)
            cost = (step_cost(teacher)["relative_time"] or 1.0) + method.rounds * cost
        runs = waiting.count(method.slug)
        costs.append((method.name, runs, runs * cost))
    return costs


def _specification(method: Method) -> dict[str, Any]:
    """Return what may not change of a method."""
    content = method.model_dump(mode="json", include={"trainer", "settings", "teacher", "rounds"})
    return content | ({"sources": method.sources, "ask": list(method.ask)} if method.sources else {})


def _link_datasets(study: Study, out: Path) -> tuple[Study, list[str]]:
    """Link the datasets into the study's raw folder; return the study with their full names, and the problems."""
    names: list[str] = []
    problems: list[str] = []
    for dataset in map(str, study.datasets):
        with gathered(problems):
            names.append(link_dataset(dataset, out / "raw"))
    problems += [f"dataset {name} is listed twice" for name in sorted(set(names)) if names.count(name) > 1]
    return study.model_copy(update={"datasets": tuple(names)}), problems
