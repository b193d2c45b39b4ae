"""Answers of annotators become the next dataset and split, and are queried again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from helpers import DATASET, Workspace, command, read
from rounds import PATCH, PATCHES, TRAINER, ask, request, write

from nnunet_limited.datasets.derived import RECORD, ignore_of
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.queries.absorb import absorb
from nnunet_limited.queries.answers import Answer, read_answer, write_answer
from nnunet_limited.queries.choose import load_pool
from nnunet_limited.queries.record import dice_so_far, load_round, next_round
from nnunet_limited.queries.request import AbsorbRequest, QueryRequest
from nnunet_limited.queries.windows import Window
from nnunet_limited.runs.request import TrainRequest
from nnunet_limited.splits import load_split


@pytest.fixture(scope="module")
def handed_over(models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a round of five patches, which nobody has answered."""
    workspace, plans = models("one_labeled")
    folder = tmp_path_factory.mktemp("asked") / "round_1"
    ask(request(workspace, plans, folder, items=5, strategy="random_stratified"))
    return folder


@pytest.fixture
def asked(models, handed_over: Path, tmp_path: Path):
    """Return a workspace, its plans and a round of five patches, and take back all that is absorbed."""
    workspace, plans = models("one_labeled")
    made = load_round(shutil.copytree(handed_over, tmp_path / "round_1"))
    yield workspace, plans, made
    for name in ("raw", "preprocessed", "rounds"):
        for folder in (workspace.root / name).glob("Dataset7*"):
            shutil.rmtree(folder)


def annotate(made, workspace: Workspace, cases: list[str]) -> None:
    """Answer the queries of some cases as someone would who knows the truth."""
    for case in cases:
        file = made.folder / "labels" / f"{case}.nii.gz"
        label, truth = read(file), read(workspace.root / "raw" / DATASET / "labelsTr" / f"{case}.nii.gz")
        for window in made.windows_of(case):
            label[window.inside] = truth[window.inside]
        write(label, file, file)


@pytest.mark.slow
def test_answers_become_the_next_dataset_and_split(asked, capsys) -> None:
    workspace, _, made = asked
    annotate(made, workspace, made.cases)
    assert command("absorb", str(made.folder), "--out", "Dataset700_Next") == 0
    assert "done" in capsys.readouterr().out
    raw, first = RawDataset.load("700"), load_split(workspace.preprocessed, "few").fold(0)
    split = load_split(workspace.root / "preprocessed" / "Dataset700_Next", "r1")
    assert len(split.folds) == 1
    assert set(split.folds[0].train) == {*first.train, *made.cases}
    assert split.folds[0].val == first.val  # never an answered one
    assert set(split.folds[0].unlabeled) == set(first.unlabeled) - set(made.cases)
    assert split.info["queried"] == made.cases
    stock = json.loads(
        (workspace.root / "preprocessed" / "Dataset700_Next" / "splits_final.json").read_text(encoding="utf-8")
    )
    assert stock == [{"train": list(split.folds[0].train), "val": list(split.folds[0].val)}]
    assert set(raw.without_label) == set(first.unlabeled) - set(made.cases)  # hidden labels are not there
    assert ignore_of(raw) == raw.description.labels["ignore"] == 3
    truths = workspace.root / "raw" / DATASET / "labelsTr"
    for case in made.cases:
        label, truth = read(raw.cases[case].label), read(truths / f"{case}.nii.gz")
        annotated = label != 3
        assert annotated.sum() == sum(np.prod(window.size) for window in made.windows_of(case))
        assert (label[annotated] == truth[annotated]).all()
        assert raw.cases[case].truth is None
    record = json.loads((raw.folder / "annotations.json").read_text(encoding="utf-8"))
    assert [query["annotated"] for query in record["queries"]] == [1.0] * 5
    assert sum(about["voxels"] for about in record["cases"].values()) == 5 * 4 * 8 * 8
    assert next_round(raw) == 2
    assert next_round(RawDataset.load(DATASET)) == 1


@pytest.mark.slow
def test_partial_answers(asked, capsys) -> None:
    workspace, _, made = asked
    cases = made.cases
    annotate(made, workspace, cases[:2])
    half = made.folder / "labels" / f"{cases[1]}.nii.gz"
    label = read(half)
    window = made.windows_of(cases[1])[0]
    label[window.inside][:2] = 3  # two of four slices are not done
    write(label, half, half)
    (made.folder / "labels" / f"{cases[2]}.nii.gz").unlink()
    assert command("absorb", str(made.folder), "--out", "Dataset700_Next", "--name", "some") == 0
    printed = capsys.readouterr().out
    assert "50 % annotated" in printed
    assert "not annotated" in printed
    assert "unchanged" in printed
    assert "--accept-unchanged" in printed
    split = load_split(workspace.root / "preprocessed" / "Dataset700_Next", "some")
    assert set(split.info["queried"]) == set(cases[:2])
    assert cases[2] in split.folds[0].unlabeled


@pytest.mark.slow
def test_an_unchanged_window_is_no_answer(models, tmp_path: Path) -> None:
    """Of two windows of one case one is corrected; the other is what the model predicts, unchanged."""
    workspace, plans = models("one_labeled")
    _, made = ask(request(workspace, plans, tmp_path / "round_1", items=40, strategy="random"))
    case = next(case for case in made.cases if len(made.windows_of(case)) > 1)
    file = made.folder / "labels" / f"{case}.nii.gz"
    label = read(file)
    first, second = made.windows_of(case)[:2]
    label[first.inside] = 1 - (label[first.inside] == 1)
    write(label, file, file)
    raw, reader = RawDataset.load(DATASET), RawDataset.load(DATASET).reader()
    dataset = (raw.description, ignore_of(raw), reader)
    hashes = made.initial_labels[case].windows
    answer = Answer(raw.cases[case], file, tuple(made.windows_of(case)), hashes, None, *dataset)
    assert read_answer(answer).windows[:2] == [(1.0, False), (0.0, True)]
    assert (read_answer(answer).label[second.inside] == 3).all()
    accepted = replace(answer, initial=None)
    assert read_answer(accepted).windows[:2] == [(1.0, False), (1.0, False)]
    assert np.array_equal(read_answer(accepted).label, label)


def test_a_file_that_covers_a_part_of_the_scan_leaves_the_rest_open(workspaces, tmp_path: Path) -> None:
    workspaces("2d")
    raw = RawDataset.load(DATASET)
    case = raw.cases["case_00"]
    part = sitk.GetImageFromArray(np.ones((4, 32, 32), np.uint8))
    part.CopyInformation(sitk.ReadImage(str(case.images[0]))[:, :, 2:6])
    sitk.WriteImage(part, str(tmp_path / "case_00.nii.gz"))
    windows = (Window("case_00", (0, 0, 0), (4, 32, 32)),)
    dataset = (raw.description, 3, raw.reader())
    answer = Answer(case, tmp_path / "case_00.nii.gz", windows, ("0",), None, *dataset)
    label = read_answer(answer).label
    assert read_answer(answer).windows == [(0.5, False)]
    assert (label[:2] == 3).all()
    assert (label[2:6] == 1).all()


def test_an_answer_adds_to_what_was_annotated_before(workspaces, tmp_path: Path) -> None:
    """A file of 3D Slicer has no label outside of its segments; earlier labels stay, and cost nothing again."""
    workspaces("2d")
    raw = RawDataset.load(DATASET)
    case = raw.cases["case_00"]
    image = sitk.ReadImage(str(case.images[0]))
    previous = np.full((8, 32, 32), 3, np.uint8)
    previous[:2], previous[1, 4:9, 4:9] = 0, 2
    write(previous, case.images[0], tmp_path / "previous.nii.gz")
    drawn = np.zeros((8, 32, 32), np.uint8)
    drawn[4, 10:20, 10:20] = 1
    segment = sitk.GetImageFromArray(drawn)
    segment.CopyInformation(image)
    for key, value in (("LabelValue", "1"), ("Layer", "0"), ("Name", "disc")):
        segment.SetMetaData(f"Segment0_{key}", value)
    file = tmp_path / "case_00.seg.nrrd"
    sitk.WriteImage(segment, str(file))
    windows = (Window("case_00", (1, 0, 0), (4, 32, 32)),)  # one of its slices is annotated already
    dataset = (raw.description, 3, raw.reader())
    answer = Answer(case, file, windows, ("0",), tmp_path / "previous.nii.gz", *dataset)
    about = write_answer(case, tmp_path / "made.nii.gz", raw.reader(), 3, answer, PATCH, 60.0)
    expected = previous.copy()
    expected[1:5] = drawn[1:5]
    assert np.array_equal(read(tmp_path / "made.nii.gz"), expected)
    assert about["voxels"] == 3 * 32 * 32
    assert about["foreground_voxels"] == 100
    assert about["minutes"] == 3


@pytest.mark.parametrize(("ending", "channels"), [(".nii.gz", 1), (".png", 1), (".png", 3)])
def test_2d_images(folders: Path, ending: str, channels: int) -> None:
    """A flat image has one slice for nnU-Net, and one of colours three channels; what comes back lies on it."""
    raw = folders / "raw" / "Dataset705_Flat"
    for number in range(4):
        shape = (20, 24, channels)[: 2 if channels == 1 else 3]
        array = np.random.default_rng(number).integers(0, 200, shape).astype(np.uint8)
        (raw / "imagesUn").mkdir(parents=True, exist_ok=True)
        image = sitk.GetImageFromArray(array, isVector=channels > 1)
        sitk.WriteImage(image, str(raw / "imagesUn" / f"c{number}_0000{ending}"))
    description = {
        "channel_names": {str(n): "x" for n in range(channels)},
        "labels": {"background": 0, "thing": 1},
        "numTraining": 0,
    }
    (raw / "dataset.json").write_text(json.dumps({**description, "file_ending": ending}), encoding="utf-8")
    out = folders / "round_1"
    flags = ("--what", "patch", "--size", "8x8", "--strategy", "random", "--items", "4")
    assert command("query", "705", *flags, "--out", str(out)) == 0
    made = load_round(out)
    for case in made.cases:
        file = out / "labels" / f"{case}{ending}"
        label = read(file)
        window = made.windows_of(case)[0]
        assert window.size == (1, 8, 8)
        label[window.inside[1:]] = 1
        sitk.WriteImage(sitk.GetImageFromArray(label), str(file))
    assert command("absorb", str(out), "--out", "Dataset706_Flat") == 0
    dataset = RawDataset.load("706")
    case = made.cases[0]
    label = read(dataset.cases[case].label)
    assert (label == 1).sum() == 64 * len(made.windows_of(case))
    assert (label != 1).sum() == (label == 2).sum()
    (out / "labels" / f"{case}{ending}").write_bytes(b"nothing")
    assert command("absorb", str(out), "--out", "Dataset707_Flat") == 2


def test_a_round_without_answer_is_refused(asked, capsys) -> None:
    workspace, _, made = asked
    assert command("absorb", str(made.folder), "--out", "Dataset700_Next") == 2
    assert "answers none of 5 queries" in capsys.readouterr().err
    assert not (workspace.root / "raw" / "Dataset700_Next").exists()
    assert command("absorb", str(made.folder), "--out", "Dataset700_Next", "--accept-unchanged") == 0


def spoilt(kind: str, label: np.ndarray, file: Path) -> None:
    image = sitk.GetImageFromArray(label)
    image.CopyInformation(sitk.ReadImage(str(file)))
    if kind == "shifted":
        image.SetOrigin((0.0, 0.0, 2.4))
    elif kind == "spacing":
        image.SetSpacing((1.0, 1.0, 2.0))
    elif kind == "foreign":
        label[0, 0, 0] = 9
        image = sitk.GetImageFromArray(label)
    sitk.WriteImage(image, str(file))
    if kind == "unreadable":
        file.write_bytes(b"nothing of a label")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("shifted", "draw on the image itself"),
        ("spacing", "has spacing"),
        ("foreign", "has the value 9, which is no class (the labels are 0, 1, 2, 3, of which 3 is the ignore label)"),
        ("unreadable", "cannot be read"),
    ],
)
def test_wrong_answers_are_refused(asked, capsys, kind: str, message: str) -> None:
    workspace, _, made = asked
    annotate(made, workspace, made.cases)
    file = made.folder / "labels" / f"{made.cases[0]}.nii.gz"
    spoilt(kind, read(file), file)
    assert command("absorb", str(made.folder), "--out", "Dataset700_Next") == 2
    line = capsys.readouterr().err
    assert message in line
    assert str(file) in line
    assert line.count("\n") == 1
    assert not list((workspace.root / "raw").glob("Dataset700*"))
    assert not list((workspace.root / "preprocessed").glob("Dataset700*"))


def test_two_answers_to_one_case_are_refused_but_not_one_beside_what_was_handed_out(asked, capsys) -> None:
    workspace, _, made = asked
    case = made.cases[0]
    handed = made.folder / "labels" / f"{case}.nii.gz"
    label = read(handed)
    for window in made.windows_of(case):
        label[window.inside] = 1
    write(label, handed, handed.with_name(f"{case}.nrrd"))
    assert command("absorb", str(made.folder), "--out", "Dataset700_Next") == 0
    assert set(load_split(workspace.root / "preprocessed" / "Dataset700_Next", "r1").info["queried"]) == {case}
    write(label, handed, handed)
    assert command("absorb", str(made.folder), "--out", "Dataset701_Next") == 2
    assert "two answers" in capsys.readouterr().err


@pytest.mark.slow
def test_a_second_round(asked, tmp_path: Path) -> None:
    """Annotated windows are not chosen again, the rest of their cases may be; the first round stays unchanged."""
    workspace, _, made = asked
    before = {file: file.read_bytes() for file in made.folder.rglob("*") if file.is_file()}
    truths = workspace.root / "raw" / DATASET / "labelsTr"
    absorb(AbsorbRequest(folder=made.folder, out="Dataset700_Next", oracle=truths), 1)
    changed = {file for file in before if file.read_bytes() != before[file]}
    assert {file.parent.name for file in changed} <= {"labels"}
    assert command("plan", "700", "--split", "r1", "-c", "2d", "--size", "tiny", "-np", "1") == 0
    flags = ("-p", "nnUNetPlans_r1_tiny", "--epochs", "1", "--iterations", "2", "-device", "cpu")
    assert command("train", "700", "2d", "0", "-tr", TRAINER, *flags) == 0
    plans = "nnUNetPlans_r1_tiny_num_epochs-1_num_iterations_per_epoch-2"
    model = TrainRequest(dataset="700", configuration="2d", fold="0", trainer=TRAINER, plans=plans)
    second = QueryRequest(
        dataset="700",
        configuration="2d",
        trainer=TRAINER,
        plans=plans,
        out=tmp_path / "round_2",
        strategy="random",
        items=60,
        **PATCHES,
    )
    query_round, more = ask(second)
    annotated = [query.window for query in made.queries]
    for query in more.queries:
        whole = np.zeros((8, 32, 32), bool)
        whole[query.window.inside] = True
        assert not any(whole[r.inside].any() for r in annotated if r.case == query.window.case)
    sparse = set(made.cases) & set(more.cases)
    assert sparse
    case = min(sparse)
    begun = read(more.folder / "labels" / f"{case}.nii.gz")
    for window in made.windows_of(case):  # what was annotated before is there
        assert np.array_equal(begun[window.inside], read(truths / f"{case}.nii.gz")[window.inside])
    absorb(AbsorbRequest(folder=more.folder, out="Dataset701_Next", oracle=truths), 1)
    raw = RawDataset.load("701")
    label = read(raw.cases[case].label)
    for window in [*made.windows_of(case), *more.windows_of(case)]:
        assert np.array_equal(label[window.inside], read(truths / f"{case}.nii.gz")[window.inside])
    assert load_pool(query_round)[0].progress == 0.25
    results = workspace.root / "rounds" / "Dataset700_Next" / f"{TRAINER}__{plans}__2d" / "fold_0"
    summary = json.loads((results / "validation" / "summary.json").read_text(encoding="utf-8"))
    model = TrainRequest(dataset="700", configuration="2d", fold="0", trainer=TRAINER, plans=plans)
    assert len(dice_so_far(raw, model, [0])) == 2  # the same again
    patched = {
        **json.loads((raw.folder / RECORD).read_text(encoding="utf-8")),
        "model": {"trainer": "Other", "configuration": "2d"},
    }
    (raw.folder / RECORD).write_text(json.dumps(patched), encoding="utf-8")
    assert dice_so_far(raw, model, [0]) == more.record.dice  # no curve goes through models of two trainers
    assert made.record.dice == ()  # the first model was not validated
    assert more.record.dice == (pytest.approx(summary["foreground_mean"]["Dice"]),)
    assert json.loads((raw.folder / "annotations.json").read_text(encoding="utf-8"))["dice"] == list(more.record.dice)


@pytest.mark.slow
def test_preprocessed_cases_are_linked(asked) -> None:
    workspace, _, made = asked
    truths = workspace.root / "raw" / DATASET / "labelsTr"
    planned = ("-c", "2d", "--size", "tiny", "-np", "1")
    absorb(AbsorbRequest(folder=made.folder, out="Dataset700_Next", name="a", oracle=truths), 1)
    assert command("plan", "700", "--split", "a", *planned) == 0
    model = TrainRequest(dataset="700", configuration="2d", fold="0", trainer=TRAINER, plans="nnUNetPlans_a_tiny")
    out = made.folder.with_name("again")
    again = QueryRequest(dataset="700", out=out, strategy="random", items=2, split="a", **PATCHES)
    assert model.folder.is_dir()
    _, more = ask(again)
    absorb(AbsorbRequest(folder=more.folder, out="Dataset701_Next", name="b", oracle=truths), 1)
    assert command("plan", "701", "--split", "b", *planned) == 0
    linked, made_anew = [], []
    for file in (workspace.root / "preprocessed" / "Dataset701_Next").glob("nnUNetLimited_*/*.pkl"):
        (linked if file.stat().st_nlink > 1 else made_anew).append(file.name.removesuffix(".pkl"))
    new = {case for case in more.cases if case in linked}
    assert not new  # their labels are others now
    assert len(linked) > len(made_anew)
    first, second = (RawDataset.load(name) for name in ("700", "701"))
    for case in set(linked) & set(second.labeled):
        assert first.cases[case].label.resolve() == second.cases[case].label.resolve()
