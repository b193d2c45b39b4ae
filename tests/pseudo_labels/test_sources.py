"""Built-in sources keep to the rules of sources, and what is special about each."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import DATASET
from shapes import TINY_SAM

from nnunet_limited.errors import LimitedError
from nnunet_limited.losses.label_space import ClassLabels
from nnunet_limited.prompters.prompter import ModelCard, find_prompter
from nnunet_limited.pseudo_labels import registration
from nnunet_limited.pseudo_labels.sources import atlas, student
from nnunet_limited.pseudo_labels.sources.atlas import AtlasSource
from nnunet_limited.pseudo_labels.sources.base import LabeledScan, Scan, SourceContext, SourcePrediction, SourceSettings
from nnunet_limited.pseudo_labels.sources.prompted import PromptedSource
from nnunet_limited.pseudo_labels.spec import parse_sources
from nnunet_limited.splits import Fold, Split
from nnunet_limited.testing import check_source

CLASSES = ClassLabels(((0,), (1,)))


def test_atlases_keep_to_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SAMPLES": 800, "AFFINE_STEPS": 10, "SPLINE_STEPS": 2, "EVALUATIONS": 3}.items():
        monkeypatch.setattr(registration, name, value)
    check_source(AtlasSource)


def test_promptable_models_keep_to_the_rules() -> None:
    prompter = find_prompter(f"sam:{TINY_SAM}")
    check_source(lambda context: PromptedSource(prompter, context), needs_guess=True)


class Copies:
    """A source that returns the label of the scan itself."""

    about = ModelCard("copies")

    def __init__(self, context: SourceContext) -> None:
        self.known = {one.scan.case: one.classes for one in context.labeled}

    def __call__(self, scan: Scan, guess: np.ndarray | None) -> SourcePrediction:
        return SourcePrediction(self.known[scan.case])


def test_a_source_that_reads_the_label_is_found() -> None:
    with pytest.raises(AssertionError, match="depends on the label"):
        check_source(Copies)


def test_a_list_of_sources(tmp_path: Path) -> None:
    (tmp_path / "b.csv").touch()
    specs = parse_sources(f"student, mine:load,boxes:{tmp_path / 'b.csv'},sam:a:b")
    assert [spec.text for spec in specs] == ["student", "mine:load", f"boxes:{tmp_path / 'b.csv'}", "sam:a:b"]
    assert [spec.argument for spec in specs] == ["", "load", str(tmp_path / "b.csv"), "a:b"]
    assert [spec.kind.is_hint for spec in specs] == [False, False, True, False]
    assert [spec.file for spec in specs] == [None, None, tmp_path / "b.csv", None]
    assert specs[3].is_prompter
    for text, message in (
        ("student,atlas,student", "listed twice"),
        ("sam:x,student", "begin with student"),
        ("student,sam", "sam:FOLDER"),
        ("boxes:none.csv,student", "no file"),
        (f"boxes:{tmp_path / 'b.csv'}", "promptable model"),
        ("student:x y", "not a source"),
        ("", "not a source"),
    ):
        with pytest.raises(LimitedError, match=message):
            parse_sources(text)


def test_which_fold_judges_a_labelled_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = {0, 1, 2}

    def trained(model: Any, split: Split, folds: list[int]) -> None:
        if not there >= set(folds):
            raise LimitedError("not trained")

    monkeypatch.setattr(student, "Predictor", lambda *_: None)
    monkeypatch.setattr(student, "trained", trained)
    folds = [Fold(("b", "c"), ("a",), ("x",)), Fold(("a", "c"), ("b",), ("x",)), Fold(("a", "b"), ("c",), ("x",))]
    split = Split("few", DATASET, tuple(folds), {})
    model: Any = SimpleNamespace(results=tmp_path, planned=SimpleNamespace(split=split))

    def source(*folds: int) -> student.StudentSource:
        return student.StudentSource(SourceContext([], CLASSES, "cpu", SourceSettings(), None, model, folds))

    every = source(0, 1, 2)
    assert [every.fold_without(case) for case in "abc"] == [0, 1, 2]
    one = source(0)
    assert [one.fold_without(case) for case in "bc"] == [None, None]  # the others train on what fold 0 validates on
    there.remove(1)  # or of another split
    assert every.fold_without("b") is None


def test_an_atlas_is_complete_and_never_its_own() -> None:
    scan = Scan("a", np.zeros((1, 2, 8, 8), np.float32), (1.0, 1.0, 1.0))
    classes = np.zeros((2, 2, 8, 8), np.float32)
    alone = AtlasSource(SourceContext([LabeledScan(scan, classes)], CLASSES, "cpu", SourceSettings()))
    assert np.isnan(alone(scan, None).probability).all()
    classes[:, 0] = np.nan
    with pytest.raises(LimitedError, match="'a' is annotated in part"):
        AtlasSource(SourceContext([LabeledScan(scan, classes)], CLASSES, "cpu", SourceSettings()))


@pytest.mark.parametrize(
    ("group_by", "case", "expected"),
    [
        (None, "p1_a", {"p1_b", "p2_a", "p3_a"}),
        (r"p\d", "p1_a", {"p2_a", "p3_a"}),  # it is calibrated as it labels: without the patient's other scan
        (r"(p\d)_", "p2_a", {"p1_a", "p1_b", "p3_a"}),
        (r"p\d", "p1_c", {"p1_a", "p1_b", "p2_a", "p3_a"}),  # an unlabelled scan has every atlas
        (".", "p1_a", set()),  # one patient
    ],
)
def test_an_atlas_is_not_judged_on_its_patient(monkeypatch: pytest.MonkeyPatch, group_by, case: str, expected) -> None:
    used: list[Any] = []

    def propagate(image: Any, spacing: Any, atlases: list[Any], folder: Any) -> Any:
        used.extend(int(atlas.image[0, 0, 0]) for atlas in atlases)
        return np.zeros((2, 2, 8, 8), np.float32), [0.0]

    monkeypatch.setattr(atlas, "propagate_atlases", propagate)
    names = ["p1_a", "p1_b", "p2_a", "p3_a"]
    scans = {name: Scan(name, np.full((1, 2, 8, 8), n, np.float32), (1.0,) * 3) for n, name in enumerate(names)}
    model: Any = SimpleNamespace(planned=SimpleNamespace(split=Split("s", DATASET, (), {"group_by": group_by})))
    labeled = [LabeledScan(scan, np.zeros((2, 2, 8, 8), np.float32)) for scan in scans.values()]
    source = AtlasSource(SourceContext(labeled, CLASSES, "cpu", SourceSettings(), None, model))
    source(scans.get(case, Scan(case, np.zeros((1, 2, 8, 8), np.float32), (1.0,) * 3)), None)
    assert {names[n] for n in used} == expected
