"""Patients and sites in studies: patients stay together in every split; studies that began otherwise continue so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import DATASET, Variant, command, write_dataset
from test_active_study import write as write_loop
from test_study import write

from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.splits import load_split
from nnunet_limited.studies.active import job as active_job
from nnunet_limited.studies.active.folder import open_active
from nnunet_limited.studies.comparison.folder import open_folder
from nnunet_limited.studies.comparison.job import STEPS
from nnunet_limited.studies.engine.study_file import left_out

PATIENT = r"p\d"


@pytest.fixture
def patients(folders: Path) -> Path:
    """Make a dataset of five patients with two scans each."""
    raw = write_dataset(folders / "raw", Variant(cases=10))
    for file in list(raw.glob("*/*.nii.gz")):
        number = int(file.name[5:7])
        file.rename(file.with_name(f"p{number // 2}_{'ab'[number % 2]}{file.name[7:]}"))
    return raw


def call(*words: str) -> str:
    """Run a command of a step in this process."""
    assert command(*words[1:]) == 0
    return json.dumps({"info": {}})


def split_of(folder: Any, name: str) -> Any:
    return load_split(folder.path / "preprocessed" / DATASET, name)


@pytest.mark.usefixtures("patients")
@pytest.mark.parametrize("cases", [None, 7])
def test_a_loop_keeps_patients_together(folders: Path, cases) -> None:
    """Also where fewer cases are used than there are: all scans of a patient, or none."""
    file = write_loop(folders / "a.yaml", group_by=PATIENT, cases=cases)
    folder = open_active(file, folders / "out")
    with folder.active():
        for step in folder.study.runs()[:2]:  # with all labels, and at the start
            name = f"{step.target}0"
            active_job._start(folder, step, name, call)
            split = split_of(folder, name)
            used = {case for fold in split.folds for case in (*fold.train, *fold.val, *fold.unlabeled)}
            assert len(used) == (10 if cases is None else 6)
            assert all({case[:2] + "_a", case[:2] + "_b"} <= used for case in used)
            for fold in split.folds:
                assert not {case[:2] for case in fold.val} & {case[:2] for case in (*fold.train, *fold.unlabeled)}
    assert split.info["group_by"] == PATIENT  # by which queries and the next splits know the patients
    assert len(split.folds[0].train) == 2  # one patient


@pytest.mark.usefixtures("patients")
def test_a_loop_starts_from_one_site(folders: Path) -> None:
    folder = open_active(write_loop(folders / "a.yaml", labeled_from="_a$"), folders / "out")
    with folder.active():
        full, start = folder.study.runs()[:2]
        for step, name in ((full, "full0"), (start, "start0")):
            active_job._start(folder, step, name, call)
    assert {case[-1] for case in split_of(folder, "start0").labeled} == {"a"}
    assert {case[-1] for case in split_of(folder, "full0").labeled} == {"a", "b"}


@pytest.mark.usefixtures("patients")
def test_all_scans_of_a_patient_are_left_out_or_none(folders: Path) -> None:
    raw = RawDataset.load(DATASET)
    for cases in (4, 5, 9):
        out = left_out(raw, cases, PATIENT)
        assert len(out) == 10 - cases // 2 * 2
        assert {case[:2] + "_a" for case in out} <= {*out}
    assert left_out(raw, 4, None) != left_out(raw, 4, PATIENT)
    assert left_out(raw, None, PATIENT) == []


@pytest.mark.usefixtures("patients")
@pytest.mark.parametrize(
    ("changes", "option", "value"),
    [({"labeled_from": "_a"}, "--labeled-from", "_a"), ({"cover": "classes"}, "--cover", "classes")],
)
def test_a_study_draws_as_it_is_asked(folders: Path, changes, option: str, value: str) -> None:
    folder = open_folder(write(folders / "s.yaml", labeled=[2], seeds=[0], **changes), folders / "out")
    words: list[str] = []
    with folder.active():
        STEPS["split"](folder, folder.study.runs()[0], lambda *asked: words.extend(asked) or call(*asked))
    assert words[words.index(option) + 1] == value
    split = split_of(folder, "l2s0")
    assert split.info[option[2:].replace("-", "_")] == value
    other = {next(iter(changes)): "none"}
    with pytest.raises(LimitedError, match=f"{option[2:].replace('-', '_')} is 'none', but"):
        open_folder(write(folders / "s.yaml", labeled=[2], seeds=[0], **other), folders / "out")


@pytest.mark.parametrize("active", [False, True])
def test_a_study_that_covered_classes_goes_on_so(patients: Path, folders: Path, active: bool) -> None:
    """Its splits do not record it; one that is new draws without labels."""
    begin, make = (open_active, write_loop) if active else (open_folder, write)
    file, out = make(folders / "s.yaml"), folders / "out"
    assert begin(file, out).study.cover is None
    assert begin(file, out).study.cover is None
    info = out / "preprocessed" / DATASET / "splits_old.info.json"
    info.parent.mkdir(parents=True)
    info.write_text(json.dumps({"protocol": "benchmark", "cover": "none"}), encoding="utf-8")
    (out / "splits").mkdir(exist_ok=True)
    assert begin(file, out).study.cover is None
    info.write_text(json.dumps({"protocol": "benchmark"}), encoding="utf-8")
    for _ in range(2):
        assert begin(file, out).study.cover == "classes"
    info.unlink()
    assert begin(file, out).study.cover == "classes"  # the folder's study file has it now
    with pytest.raises(LimitedError, match=r"cover is 'none', but .* was run with 'classes'; give another --out"):
        begin(make(folders / "s.yaml", cover="none"), out)
