"""The folder of a simulated loop of active learning: how it is opened, and the state of each of its trainings."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.studies.active.study import FULL, ActiveStudy, Step, data_problems, problems
from nnunet_limited.studies.engine.begun import Training
from nnunet_limited.studies.engine.failures import failed_marker
from nnunet_limited.studies.engine.folder import METHODS, RECORD, StudyFolder, link_dataset
from nnunet_limited.studies.engine.study_file import Method, read_study, refuse, write_left_out
from nnunet_limited.util.files import read_object, write_json

NUMBERS, ORACLE, LEFT_OUT = "datasets.json", "oracle", "left_out.txt"
FIRST_NUMBER = 601  # of the datasets of the rounds
FREE = ("dataset", "strategies", "targets", "methods", "seeds")


@dataclass(frozen=True)
class ActiveFolder(StudyFolder):
    """The folder of a simulation."""

    kind = ActiveStudy
    file_name = "active.yaml"
    runs_name = "rounds"
    snakefile = Path(__file__).with_name("Snakefile")
    remedy_for_stale = "run the simulation with another --out, as all later rounds depend on it"

    def log(self, run: Step, step: str = "") -> Path:
        """Return the log of a training, its queries included."""
        return self.path / "logs" / f"{run.identifier}.log"

    def state(self, run: Step) -> tuple[str, Path | None]:
        """Return ``done``, ``failed``, ``started`` or ``waiting``, and the log to look at."""
        log = self.log(run)
        if (self.run_folder(run) / RECORD).is_file():
            return "done", log
        if failed_marker(log).is_file():
            return "failed", log
        return ("started", log) if log.is_file() else ("waiting", None)

    def plan_again(self, run: Step) -> None:
        """Do nothing: each training plans its data."""

    def training(self, step: Step, plans: str) -> Training:
        """Return what is trained in a step, with the plans of its split."""
        method = Method(name=FULL) if step.target == FULL else self.study.method(step.method)
        configuration, folder = self.study.configuration, self.run_folder(step)
        return Training(method, step.seed, self.dataset_of(step), configuration, plans, 0, folder)

    def others(self, step: Step) -> list[Training]:
        """Return the other trainings of the step's method that are complete."""
        full = step.target == FULL
        same = [s for s in self.study.runs() if s.method == step.method and (s.target == FULL) == full and s != step]
        done = [one for one in same if (self.run_folder(one) / RECORD).is_file()]
        return [self.training(one, self.record(one)["plans"]) for one in done]

    def dataset_of(self, step: Step) -> str:
        """Return the name of the dataset that a training learns."""
        numbers = read_object(self.path / NUMBERS, "numbers of datasets", "delete the folder and run again")
        return str(numbers[step.identifier]) if step.number else str(self.study.dataset)


def open_active(file: Path, out: Path) -> ActiveFolder:
    """Check a simulation with its data and make its folder, or continue in one that holds the same simulation.

    Strategies, targets, methods and seeds may be added, but nothing that has run may change.
    """
    with ActiveFolder(out).alone():
        return _open(file, out)


def _open(file: Path, out: Path) -> ActiveFolder:
    study, folder = read_study(file, ActiveStudy), ActiveFolder(out)
    refuse(file, problems(study))
    started = not folder.fresh
    if started:
        study = folder.continued(study)
        folder.refuse_changes(study, file, FREE)
        for kind, known in _known(folder).items():
            folder.refuse_changed(kind.removesuffix("s"), _specifications(study, kind), known, file)
    with folder.opened():
        name = link_dataset(str(study.dataset), out / "raw")
        if started and name != folder.study.dataset:
            was = f"but {out} was run with {folder.study.dataset}"
            raise LimitedError(f"{file}: dataset is {name}, {was}; give another --out")
        study = study.model_copy(update={"dataset": name})
        with folder.active():
            refuse(file, data_problems(study))
            _prepare_oracle(study, out)
        _number(study, out / NUMBERS)
        if started:
            write_json(out / METHODS, _known(folder))
    folder.write_study(study)
    return ActiveFolder(out)


def _known(folder: ActiveFolder) -> dict[str, dict[str, Any]]:
    """Return all methods and targets that a folder was ever run with, by their slugs."""
    file = folder.path / METHODS
    found: dict[str, Any] = read_object(file, "record of methods", "delete the folder") if file.is_file() else {}
    return {kind: {**found.get(kind, {}), **_specifications(folder.study, kind)} for kind in ("methods", "targets")}


def _specifications(study: ActiveStudy, kind: str) -> dict[str, Any]:
    return {one.slug: one.model_dump(mode="json") for one in getattr(study, kind)}


def _number(study: ActiveStudy, file: Path) -> None:
    """Number the datasets of the rounds; a round that has a number keeps it."""
    numbers = read_object(file, "numbers of datasets", "delete the folder") if file.is_file() else {}
    taken = {int(name[7:10]) for name in (str(study.dataset), *numbers.values())}
    free = iter(number for number in range(FIRST_NUMBER, 1000) if number not in taken)
    for step in study.runs():
        if step.number and step.identifier not in numbers:
            number = next(free, None)
            if number is None:
                raise LimitedError(f"{file}: nnU-Net knows dataset numbers up to 999; use fewer rounds or chains")
            numbers[step.identifier] = f"Dataset{number}_" + re.sub(r"[^A-Za-z0-9]+", "_", step.identifier)
    write_json(file, numbers)


def _prepare_oracle(study: ActiveStudy, out: Path) -> None:
    """Link all labels into one folder, and list the cases that are not used.

    This is done before any job starts, since jobs run side by side.
    """
    raw, oracle = RawDataset.load(str(study.dataset)), out.resolve() / ORACLE
    oracle.mkdir(exist_ok=True)
    for case in raw.labeled:
        link = oracle / f"{case}{raw.description.file_ending}"
        if not link.exists():
            link.unlink(missing_ok=True)  # of a label that has moved
            link.symlink_to(Path(str(raw.cases[case].label)).resolve())
    write_left_out(out / LEFT_OUT, raw, study)
