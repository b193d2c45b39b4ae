"""The folder of a study: its file, nnU-Net's folders, and the state of each run."""

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml

from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import dataset_name, raw_folder
from nnunet_limited.studies.engine.failures import RunState
from nnunet_limited.studies.engine.study_file import StudyFile, read_study
from nnunet_limited.util.files import read_object, replace_text, writing
from nnunet_limited.util.locks import alone_inside
from nnunet_limited.util.names import check_workflow_name

METHODS = "methods.json"  # all methods that the study was run with
RECORD = "trained.json"  # what the training of a run left
PHANTOM, PHANTOM_DATASET = "phantom", "Dataset990_Phantom"
RUNNING = "running"  # the kind of lock of a study
UNFINISHED = ".unfinished"  # in the folder of a study until it has its file

F = TypeVar("F", bound=StudyFile)


@dataclass(frozen=True)
class StudyFolder(ABC):
    """A study's folder. Logs are in ``logs/``, nnU-Net's data in ``raw/``, ``preprocessed/`` and ``results/``."""

    path: Path

    kind: ClassVar[type[StudyFile]]
    file_name: ClassVar[str]
    runs_name: ClassVar[str]
    snakefile: ClassVar[Path]
    remedy_for_stale: ClassVar[str]

    @cached_property
    def study(self) -> Any:
        """Return the study, as it was when it last ran."""
        if self.fresh:
            raise LimitedError(f"{self.path} holds no study ({self.file_name}); give the --out that it was run with")
        study = read_study(self.path / self.file_name, self.kind)
        former = study.cover is None and self._covered_always()
        return study.model_copy(update={"cover": "classes"}) if former else study

    def _covered_always(self) -> bool:
        """Return whether a split was made when labelled cases always covered classes, which was not recorded then."""
        files = (self.path / "preprocessed").glob("*/splits_*.info.json")
        infos = [read_object(file, "split description", "delete it") for file in files]
        return any("cover" not in info and info.get("protocol") in ("benchmark", "deployment") for info in infos)

    def continued(self, study: F) -> F:
        """Return ``study`` with labelled cases drawn as in this folder, where its file does not state how."""
        return study if study.cover is not None else study.model_copy(update={"cover": self.study.cover})

    def run_folder(self, run: Any) -> Path:
        """Return the folder of a run's results."""
        return self.path / self.runs_name / run.identifier

    @abstractmethod
    def log(self, run: Any, step: str) -> Path:
        """Return the log of a step of a run."""

    @abstractmethod
    def state(self, run: Any) -> tuple[str, Path | None]:
        """Return the state of a run, and the log to look at."""

    @abstractmethod
    def plan_again(self, run: Any) -> None:
        """Let the data of a run be planned again."""

    @property
    def fresh(self) -> bool:
        """Whether the folder holds no study yet."""
        return not (self.path / self.file_name).is_file()

    def run(self, identifier: str) -> Any:
        """Return the run of a name."""
        runs = {run.identifier: run for run in self.study.runs()}
        if identifier not in runs:
            raise LimitedError(f"{identifier!r} is not a run of {self.path}; 'nnunet-limited study status' lists them")
        return runs[identifier]

    def states(self) -> list[RunState]:
        """Return the state of every run."""
        return [RunState(run, *self.state(run)) for run in self.study.runs()]

    def record(self, run: Any) -> Any:
        """Return the record of a run's training, a ``TrainingRecord`` with the keys of its kind of study."""
        return read_object(self.run_folder(run) / RECORD, "record of a run", "delete its folder and run again")

    def environment(self) -> dict[str, str]:
        """Return nnU-Net's three variables for this study."""
        root = self.path.resolve()
        return {f"nnUNet_{name}": str(root / name) for name in ("raw", "preprocessed", "results")}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Point nnU-Net's variables into this folder while the block runs."""
        mine = self.environment()
        before = {name: os.environ.get(name) for name in mine}
        os.environ.update(mine)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Work on the study while no other process does; if that fails, a folder without a study is removed.

        Raises LimitedError if it is in use, and for a folder that is not empty and holds no study.
        """
        self._refuse_others()
        with alone_inside(self.path, RUNNING):
            try:
                yield
            except LimitedError:
                if self.fresh:
                    shutil.rmtree(self.path, ignore_errors=True)
                raise

    def _refuse_others(self) -> None:
        if self.path.exists() and not self.path.is_dir():
            raise LimitedError(f"{self.path} is a file, not a folder; give another --out")
        known = (self.path / UNFINISHED).is_file()
        if self.fresh and not known and self.path.exists() and any(map(is_not_lock, self.path.iterdir())):
            raise LimitedError(f"{self.path} is not empty and holds no study; give another --out")

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Make nnU-Net's folders for a block that prepares the study, in :meth:`alone`.

        What a killed process has prepared of a study that has no file yet is removed.
        """
        self._refuse_others()
        with writing(self.path):
            if self.fresh:
                for former in filter(is_not_lock, self.path.iterdir()):
                    shutil.rmtree(former) if former.is_dir() and not former.is_symlink() else former.unlink()
                replace_text(self.path / UNFINISHED, "")
            for folder in self.environment().values():
                Path(folder).mkdir(parents=True, exist_ok=True)
            yield

    def write_study(self, study: StudyFile) -> None:
        """Write the study file of this folder."""
        replace_text(self.path / self.file_name, yaml.safe_dump(study.model_dump(mode="json"), sort_keys=False))
        (self.path / UNFINISHED).unlink(missing_ok=True)

    def refuse_changes(self, study: StudyFile, file: Path, free: Collection[str]) -> None:
        """Raise LimitedError if ``study`` differs from that of this folder in a field that is not ``free``."""
        old = self.study.model_dump()
        for key, value in study.model_dump().items():
            if key not in free and value != old[key]:
                was = f"but {self.path} was run with {old[key]!r}"
                raise LimitedError(f"{file}: {key} is {value!r}, {was}; give another --out")

    def refuse_changed(self, kind: str, now: Mapping[str, Any], known: Mapping[str, Any], file: Path) -> None:
        """Raise LimitedError if one of a ``kind`` (``method``, ``target``) differs from what the study ran with."""
        for name, specification in now.items():
            if known.get(name, specification) != specification:
                was = f"{kind} {name!r} is not as {self.path} was run with it"
                raise LimitedError(f"{file}: {was}; give it another name, or give another --out")


def is_not_lock(file: Path) -> bool:
    """Return whether a file in the folder of a study is none of those of its lock."""
    return not file.name.startswith(f".{RUNNING}.lock")


def link_dataset(dataset: str, raw: Path) -> str:
    """Return the full name of a dataset that is in ``raw``, or gets a link there to the one in ``nnUNet_raw``.

    The phantom is written there.
    """
    if dataset in (PHANTOM, PHANTOM_DATASET):
        if not (raw / PHANTOM_DATASET / "dataset.json").is_file():
            from nnunet_limited.datasets.phantom import write_phantom_dataset

            write_phantom_dataset(raw, PHANTOM_DATASET)
        return PHANTOM_DATASET
    for name in sorted(link.name for link in raw.iterdir()):
        if dataset == name or (dataset.isdecimal() and name.startswith(f"Dataset{int(dataset):03d}_")):
            return check_workflow_name(name)
    name = check_workflow_name(dataset_name(dataset))
    source = raw_folder(name)
    if not source.is_dir():
        raise LimitedError(f"{source} does not exist; put the raw dataset there or correct nnUNet_raw")
    (raw / name).symlink_to(source.resolve())
    return name
