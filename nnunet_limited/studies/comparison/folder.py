"""The folder of a study: its file, nnU-Net's folders, and what has come of each run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import dataset_name, raw_folder
from nnunet_limited.studies.comparison.study import PHANTOM, Method, Run, Study, check_data, load_study, read_study
from nnunet_limited.util.files import read_object, replacing, write_json

FILE, METHODS = "study.yaml", "methods.json"
PHANTOM_DATASET = "Dataset990_Phantom"
STEPS = ("split", "plan", "train", "predict", "evaluate")
FREE = ("datasets", "labeled", "methods", "seeds", "folds", "baseline", "metrics", "minutes_per_run")


@dataclass(frozen=True)
class StudyFolder:
    """A study's folder. Runs are in ``runs/``, logs in ``logs/``, nnU-Net's data in ``raw/`` and so on."""

    path: Path

    @cached_property
    def study(self) -> Study:
        """Return the study, as it was when it last ran."""
        file = self.path / FILE
        if not file.is_file():
            raise LimitedError(f"{self.path} holds no study ({FILE}); give the --out of 'nnunet-limited study run'")
        return read_study(file)

    def run_folder(self, run: Run) -> Path:
        """Return where the results of a run are."""
        return self.path / "runs" / run.identifier

    def log(self, run: Run, step: str) -> Path:
        """Return the log of a step of a run."""
        if step in ("split", "plan"):
            return self.path / "logs" / "splits" / run.dataset / run.split / f"{step}.log"
        return self.path / "logs" / "runs" / run.identifier / f"{step}.log"

    def run(self, identifier: str) -> Run:
        """Return the run of a name."""
        for run in self.study.runs():
            if run.identifier == identifier:
                return run
        raise LimitedError(f"{identifier!r} is no run of {self.path}; 'nnunet-limited study status' lists them")

    def state(self, run: Run) -> tuple[str, Path | None]:
        """Return ``done``, ``failed``, ``started``, ``trained`` or ``waiting``, and the log to look at.

        What is trained waits for its evaluation.
        """
        if (self.run_folder(run) / "metrics.csv").is_file():
            return "done", self.log(run, "evaluate")
        for step in STEPS:
            if failed_marker(self.log(run, step)).is_file():
                return "failed", self.log(run, step)
        for step in reversed(STEPS[2:]):
            if self.log(run, step).is_file():
                waits = step == "train" and (self.run_folder(run) / "trained.json").is_file()
                return "trained" if waits else "started", self.log(run, step)
        return "waiting", None

    def environment(self) -> dict[str, str]:
        """Return nnU-Net's three variables for this study."""
        root = self.path.resolve()
        return {f"nnUNet_{name}": str(root / name) for name in ("raw", "preprocessed", "results")}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Point nnU-Net's variables into this folder while the block lasts."""
        mine = self.environment()
        before = {name: os.environ.get(name) for name in mine}
        os.environ.update(mine)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def failed_marker(log: Path) -> Path:
    """Return the file that says that the step of a log has failed."""
    return log.with_suffix(".failed")


def open_folder(file: Path, out: Path) -> StudyFolder:
    """Check a study file with its data and make its folder, or go on in one that holds the same study.

    Methods, sizes, seeds, folds and datasets may be added to a study that has run; its runs may not change.
    """
    study = load_study(file)
    fresh = not (out / FILE).is_file()
    if (out / "splits").is_dir():
        _refuse_changes(StudyFolder(out), study, file)
    elif fresh and out.exists() and any(out.iterdir()):
        raise LimitedError(f"{out} is not empty and holds no study; give another --out")
    try:
        named, problems = _link_datasets(study, out)
        with StudyFolder(out).active():
            check_data(named, file, problems)
    except LimitedError:
        if fresh:
            shutil.rmtree(out)
        raise
    with replacing(out / FILE) as temporary:
        temporary.write_text(yaml.safe_dump(named.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    known = learnt_methods(out) if (out / "splits").is_dir() else {}
    write_json(out / METHODS, known | {method.slug: _specification(method) for method in named.methods})
    return StudyFolder(out)


def learnt_methods(out: Path) -> dict[str, Any]:
    """Return every method that a study has ever been run with."""
    return read_object(out / METHODS, "list of methods", "delete it with the folder's runs")


def _specification(method: Method) -> dict[str, Any]:
    said = method.model_dump(mode="json", include={"trainer", "settings", "teacher", "rounds"})
    return said | ({"sources": method.sources, "ask": list(method.ask)} if method.sources else {})


def _refuse_changes(folder: StudyFolder, now: Study, file: Path) -> None:
    old, new, out = folder.study.model_dump(), now.model_dump(), folder.path
    for key, value in new.items():
        if key not in FREE and value != old[key]:
            raise LimitedError(f"{file}: {key} is {value!r}, but {out} was run with {old[key]!r}; give another --out")
    learnt = learnt_methods(out)
    for method in now.methods:
        mine = _specification(method)
        if learnt.get(method.slug, mine) != mine:
            raise LimitedError(f"{file}: method {method.name!r} is not as {out} was run with it; give it another name")


def _link_datasets(study: Study, out: Path) -> tuple[Study, list[str]]:
    """Put links to the datasets into the study's raw folder; return the study with their full names, and problems."""
    for name in ("raw", "preprocessed", "results"):
        (out / name).mkdir(parents=True, exist_ok=True)
    names, problems = [], []
    for dataset in map(str, study.datasets):
        try:
            names.append(link_dataset(dataset, out / "raw"))
        except LimitedError as error:
            problems.append(str(error))
    problems += [f"dataset {name} is there twice" for name in sorted(set(names)) if names.count(name) > 1]
    return study.model_copy(update={"datasets": tuple(names)}), problems


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
            return name
    name = dataset_name(dataset)
    source = raw_folder(name)
    if not source.is_dir():
        raise LimitedError(f"{source} does not exist; put the raw dataset there or correct nnUNet_raw")
    (raw / name).symlink_to(source.resolve())
    return name


def read_record(folder: StudyFolder, run: Run) -> Mapping[str, Any]:
    """Return what the training of a run recorded."""
    return read_object(folder.run_folder(run) / "trained.json", "record of a run", "delete its folder and run again")
