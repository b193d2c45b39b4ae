"""Rounds of queries: scored on the scan, handed over, answered, absorbed, and asked again."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from helpers import DATASET, FROM_START, VARIANTS, Workspace, command, make_workspace, read, spoil

from nnunet_limited.annotations.view import ignore_of
from nnunet_limited.data.preprocessing import preprocess
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.dataset import RawDataset
from nnunet_limited.pseudo_labels.model import Predictor
from nnunet_limited.queries import cold_start
from nnunet_limited.queries.absorb import AbsorbRequest, Answer, absorb, read_answer, write_answer
from nnunet_limited.queries.ask import SCORES, Asker
from nnunet_limited.queries.regions import Granularity, Grid
from nnunet_limited.queries.request import Field, QueryRequest, round_of
from nnunet_limited.queries.rounds import Query, Region, load_round, within
from nnunet_limited.queries.strategy import find_strategy, strategies
from nnunet_limited.splits import Fold, load_split
from nnunet_limited.trainers.active import sampling
from nnunet_limited.trainers.launch import TrainRequest

TRAINER = "LimitedSupervisedTrainer"
PATCH = Granularity("patch", size=(4, 8, 8))
ROUND_FILES = ("queries.csv", "queries.json", "request.json")
MODELS = ("2d", "regions", "3d", "transposed")


def write(array: np.ndarray, like: Path, file: Path) -> None:
    image = sitk.GetImageFromArray(array)
    image.CopyInformation(sitk.ReadImage(str(like)))
    sitk.WriteImage(image, str(file))


def resampled(root: Path) -> Workspace:
    """Make a workspace whose network sees another resolution than the scans have."""
    workspace = make_workspace(root, VARIANTS["3d"])
    file = workspace.preprocessed / f"{workspace.plans}.json"
    plans = json.loads(file.read_text())
    configuration = plans["configurations"]["3d_fullres"]
    configuration["spacing"] = [0.8, 1.3, 1.3]
    configuration["data_identifier"] += "_other"
    file.write_text(json.dumps(plans))
    split, raw = load_split(workspace.preprocessed, "few"), RawDataset.load(DATASET)
    preprocess(plans, "3d_fullres", raw, {*split.labeled, *split.validation}, split.unlabeled, 1)
    return workspace


@pytest.fixture(scope="session")
def models(workspaces, tmp_path_factory):
    """Return a function that gives a workspace of a variant with fold 0 trained for a few steps, and its plans."""
    made = {}

    def get(variant: str) -> tuple[Workspace, str]:
        if variant not in made:
            if variant == "transposed":  # spacing is largest along the last axis, which the host then puts first
                transposed = replace(VARIANTS["3d"], shape=(24, 24, 10), spacing=(4.0, 1.0, 1.0))
                workspace = make_workspace(tmp_path_factory.mktemp(variant), transposed)
            elif variant == "resampled":
                workspace = resampled(tmp_path_factory.mktemp(variant))
            else:
                workspace = workspaces(variant)
            workspace.activate("rounds")
            plans = workspace.configure("rounds", **FROM_START, num_iterations_per_epoch=10)
            for fold in range(2 if variant == "deployment" else 1):
                workspace.trainer(TRAINER, plans, fold).run_training()
            made[variant] = workspace, plans
        workspace, plans = made[variant]
        return workspace.activate("rounds"), plans

    return get


def request(workspace: Workspace, plans: str, out: Path, **changes) -> QueryRequest:
    model = TrainRequest(DATASET, workspace.variant.configuration, "0", TRAINER, plans)
    given = {"items": 3, "granularity": PATCH, "model": model, "folds": (0,), "number": 1, **changes}
    return QueryRequest(DATASET, out, **given)


def ask(asked: QueryRequest):
    asker = Asker(asked)
    asker.score("cpu", list)
    return asker, asker.hand_over(asker.choose(), "cpu", list)


# ---- scoring ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", MODELS)
def test_scores_of_regions_are_those_of_the_voxels(models, tmp_path: Path, variant: str) -> None:
    """The network's grid is that of the scan here but for a border that the host cuts off and the order of axes."""
    workspace, plans = models(variant)
    asker, _ = ask(request(workspace, plans, tmp_path / "round", strategy="disagreement"))
    case = asker.field.open[0]
    scorer = asker._scorer("cpu")
    image, _ = scorer.load(case)
    members = torch.stack(list(scorer.predictor.probabilities(image)))
    assert len(members) == (4 if variant in ("2d", "regions") else 8)  # mirrored in every combination of axes
    mean = members.mean(0).numpy()
    if variant == "regions":
        every = -(mean * np.log(mean) + (1 - mean) * np.log(1 - mean)).sum(0)
    else:
        every = -(mean * np.log(mean)).sum(0)
    backward = scorer.host.plans_manager.transpose_backward
    assert (list(backward) != [0, 1, 2]) == (variant == "transposed")
    entropy = every.transpose(backward)
    shape = read(workspace.root / "raw" / DATASET / "imagesTr" / f"{case}_0000.nii.gz").shape
    assert entropy.shape == shape
    stored = np.load(tmp_path / "round" / SCORES / f"{case}.npz")
    windows = PATCH.windows(shape, (1, 1, 1), case)
    for n, region in enumerate(windows.regions(case)):
        assert np.isclose(stored["score_entropy"][n], entropy[region.inside].mean(), rtol=1e-4)
    label = scorer.on_scan(case)[0]
    values = sorted(asker.raw.foreground_values)
    counted = stored["foreground"].sum(0)  # middles tile the image
    assert np.allclose(counted, [(label == value).sum() for value in values])
    assert (stored["score_bald"] >= 0).all()
    assert (stored["score_disagreement"] <= 1).all()


def test_scores_of_resampled_data(models, tmp_path: Path) -> None:
    """Against the map brought to the scan voxel by voxel, which is coarser: its voxels are not those of the scan."""
    workspace, plans = models("resampled")
    asker, made = ask(request(workspace, plans, tmp_path / "round"))
    case = asker.field.open[0]
    scorer = asker._scorer("cpu")
    image, properties = scorer.load(case)
    assert image.shape[1:] == (10, 25, 25)
    label, entropy = scorer.on_scan(case)
    assert label.shape == entropy.shape == (8, 32, 32)
    stored = np.load(tmp_path / "round" / SCORES / f"{case}.npz")
    windows = PATCH.windows((8, 32, 32), (1, 1, 1), case)
    expected = [entropy[region.inside].mean() for region in windows.regions(case)]
    assert np.allclose(stored["score_entropy"], expected, rtol=0.05)
    shown = (scorer.predict(image, properties).label > 0).sum()
    assert np.isclose(stored["foreground"].sum(), shown * (8 * 32 * 32) / (10 * 25 * 25), rtol=1e-3)
    assert len(made.queries) == 3


def test_an_ensemble_of_folds(models, tmp_path: Path) -> None:
    """Every fold predicts once; what one of them validates on is not asked for, whichever learns it."""
    workspace, plans = models("deployment")
    asker, made = ask(request(workspace, plans, tmp_path / "round", folds=(0, 1), granularity=Granularity(), items=2))
    split = load_split(workspace.preprocessed, "few")
    assert set(asker.field.pool) == set(split.unlabeled)
    case = made.cases[0]
    scorer = asker._scorer("cpu")
    members = list(scorer.predictor.probabilities(scorer.load(case)[0]))
    assert len(members) == 2
    assert not torch.equal(members[0], members[1])
    mean = torch.stack(members).mean(0)
    expected = torch.special.entr(mean).sum(0).mean()
    assert np.isclose(np.load(tmp_path / "round" / SCORES / f"{case}.npz")["score_entropy"][0], expected, rtol=1e-4)
    assert sorted(made.origin["model"]["checkpoints"]) == ["0", "1"]
    truths = workspace.root / "raw" / DATASET / "labelsTr"
    try:
        absorb(AbsorbRequest(made.folder, "Dataset708_Next", oracle=truths), 1)
        later = load_split(workspace.root / "preprocessed" / "Dataset708_Next", "r1")
        assert [fold.val for fold in later.folds] == [fold.val for fold in split.folds[:2]]
        assert all(set(made.cases) <= set(fold.train) for fold in later.folds)
    finally:
        for name in ("raw", "preprocessed"):
            shutil.rmtree(workspace.root / name / "Dataset708_Next", ignore_errors=True)


def test_an_oracle_tells_foreground_aware_random_where_the_foreground_is(models, tmp_path: Path) -> None:
    """Nothing is predicted and nothing written for people; without it, the foreground is that of the prediction."""
    workspace, plans = models("2d")
    truths = workspace.root / "raw" / DATASET / "labelsTr"
    asked = request(workspace, plans, tmp_path / "told", strategy="random_fg66", oracle=truths)
    asker, made = ask(asked)
    case = asker.field.open[0]
    truth = read(truths / f"{case}.nii.gz")
    stored = np.load(tmp_path / "told" / SCORES / f"{case}.npz")
    assert np.allclose(stored["foreground"].sum(0), [(truth == value).sum() for value in (1, 2)])
    assert "score_entropy" not in stored
    assert sorted(file.name for file in made.folder.iterdir()) == [SCORES, "labels", *ROUND_FILES]
    untold, _ = ask(replace(asked, out=tmp_path / "untold", oracle=None))
    label = untold._scorer("cpu").on_scan(case)[0]
    stored = np.load(tmp_path / "untold" / SCORES / f"{case}.npz")
    assert np.allclose(stored["foreground"].sum(0), [(label == value).sum() for value in (1, 2)])


def test_minutes_are_those_of_the_outlines(models, tmp_path: Path) -> None:
    workspace, plans = models("2d")
    whole = Granularity("patch", size=(8, 32, 32))
    asker, _ = ask(request(workspace, plans, tmp_path / "round", granularity=whole, seconds=60.0))
    case = asker.field.open[0]
    label = asker._scorer("cpu").on_scan(case)[0]
    drawn = sum(int((label[z] == value).any()) for z in range(8) for value in (1, 2))
    assert np.load(tmp_path / "round" / SCORES / f"{case}.npz")["minutes"][0] == max(8, drawn)


@pytest.mark.parametrize("variant", ["2d", "3d", "regions"])
@pytest.mark.parametrize("name", ["core_set", "badge", "cdal", "kmeans_bald", "typiclust"])
def test_strategies_on_features_of_a_model(models, tmp_path: Path, variant: str, name: str) -> None:
    workspace, plans = models(variant)
    asker, made = ask(request(workspace, plans, tmp_path / "round", strategy=name))
    assert len(made.queries) == 3
    pool, _ = asker.pool()
    features = pool.features[find_strategy(name).features]
    assert features.std(0).max() > 0
    known = pool.known[find_strategy(name).features]
    assert known.shape[1] == features.shape[1]
    assert len(known)  # the labelled cases
    if name == "cdal":
        classes = 2 if variant == "regions" else 3
        rows = features.reshape(-1, classes, classes)
        assert features.shape[1] == classes**2
        if variant != "regions":
            assert np.allclose(rows.sum(2)[rows.any(2)], 1, atol=1e-4)


def test_features_of_the_encoder_are_its_own(models, tmp_path: Path) -> None:
    workspace, plans = models("3d")
    whole = Granularity()
    asker, _ = ask(request(workspace, plans, tmp_path / "round", strategy="core_set", granularity=whole, items=1))
    scorer, case = asker._scorer("cpu"), asker.field.open[0]
    image, _ = scorer.load(case)
    size = scorer.host.configuration_manager.patch_size
    assert list(image.shape[1:]) == list(size)  # one tile
    network = scorer.host.network.eval()
    network.load_state_dict(scorer.predictor.members[-1])
    with torch.no_grad():
        expected = network.encoder(torch.from_numpy(image)[None])[-2].mean((0, 2, 3, 4))
    stored = np.load(tmp_path / "round" / SCORES / f"{case}.npz")
    assert np.allclose(stored["features_encoder"][0], expected.numpy(), rtol=1e-3, atol=1e-5)


def test_what_may_be_asked_for(workspaces) -> None:
    """What every fold hides, and what every fold learns from in part; never what one of them validates on."""
    workspaces("2d")
    raw = RawDataset.load(DATASET)
    a, b, c, d, e, f = (f"case_{number:02d}" for number in range(6))
    folds = [Fold((a, b), (c,), (d, e, f)), Fold((a, c), (b,), (d, e)), Fold((a, b, c), (f,), (d, e))]
    field = Field.of(raw, folds, lambda case: np.zeros(1))
    assert field.open == (d, e)
    assert field.sparse == ()  # there is no ignore label
    assert field.known == (a, b, c)
    with_ignore = replace(raw, dataset_json={**raw.dataset_json, "labels": {"background": 0, "x": 1, "ignore": 2}})
    sparse = Field.of(with_ignore, folds, lambda case: np.array([0, 2]))
    assert sparse.sparse == (a,)  # b and c are validated on
    assert sparse.pool == [a, d, e]
    assert Field.of(raw, [Fold((a,), (b,), (c,)), Fold((a, c), (b,), (d, c))], None).known == (a,)  # c is hidden once


# ---- handing over ----------------------------------------------------------------------------------------------------


def test_what_annotators_get(models, tmp_path: Path) -> None:
    workspace, plans = models("2d")
    asker, made = ask(request(workspace, plans, tmp_path / "round"))
    predictor = Predictor(workspace.root / "rounds" / DATASET / f"{TRAINER}__{plans}__2d", [0], "cpu")
    fold = load_split(workspace.preprocessed, "few").fold(0)
    assert set(made.cases) <= set(fold.unlabeled)
    for case in made.cases:
        given = workspace.root / "raw" / DATASET / "imagesTr" / f"{case}_0000.nii.gz"
        assert np.array_equal(read(made.folder / "images" / given.name), read(given))
        label = read(made.folder / "labels" / f"{case}.nii.gz")
        image, _ = asker._scorer("cpu").load(case)
        expected = torch.stack(list(predictor.probabilities(image))).mean(0).argmax(0).numpy()
        inside = np.zeros(label.shape, bool)
        for region in made.of(case):
            inside[region.inside] = True
        assert (label[~inside] == 3).all()
        assert np.array_equal(label[inside], expected[inside])
    assert load_round(made.folder) == made
    assert (made.folder / "montage.png").stat().st_size > 1000
    table = (made.folder / "queries.csv").read_text().splitlines()
    assert len(table) == 4


@pytest.mark.parametrize("how", ["garbage", "deleted"])
def test_hidden_labels_change_nothing(models, tmp_path: Path, how: str) -> None:
    workspace, plans = models("2d")
    asked = request(workspace, plans, tmp_path / "before")
    ask(asked)
    hidden = list(load_split(workspace.preprocessed, "few").fold(0).unlabeled)
    labels = workspace.root / "raw" / DATASET
    shutil.copytree(labels, tmp_path / "kept")
    try:
        spoil(workspace, hidden, how)
        ask(replace(asked, out=tmp_path / "after"))
        _, after = ask(replace(asked, out=tmp_path / "cold", strategy="typiclust", model=None, split="few",
                               granularity=Granularity()))  # fmt: skip
        assert sorted(after.cases) == sorted(hidden)
    finally:
        shutil.rmtree(labels)
        shutil.move(tmp_path / "kept", labels)
    for file in sorted((tmp_path / "before").rglob("*.*")):
        if file.is_file() and file.suffix not in (".lock",):
            assert file.read_bytes() == (tmp_path / "after" / file.relative_to(tmp_path / "before")).read_bytes(), file


def test_an_interrupted_query_goes_on(models, tmp_path: Path, monkeypatch) -> None:
    workspace, plans = models("2d")
    whole = ask(request(workspace, plans, tmp_path / "whole"))[1]
    asked = request(workspace, plans, tmp_path / "round")
    asker = Asker(asked)

    def stop(cases: list[str]):
        yield from cases[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asker.score("cpu", stop)
    done = {file: file.stat().st_mtime_ns for file in (tmp_path / "round" / SCORES).glob("*.npz")}
    assert len(done) == 2
    with pytest.raises(LimitedError, match="interrupted"):
        load_round(tmp_path / "round")
    with pytest.raises(LimitedError, match="begun with seed=0, not 1"):
        Asker(replace(asked, seed=1))
    _, made = ask(asked)
    assert {file: file.stat().st_mtime_ns for file in done} == done
    assert made.queries == whole.queries
    with pytest.raises(LimitedError, match="holds queries already"):
        Asker(asked)


def test_a_budget_of_minutes(models, tmp_path: Path) -> None:
    workspace, plans = models("2d")
    _, made = ask(request(workspace, plans, tmp_path / "round", items=None, minutes=25.0))
    spent = sum(query.minutes for query in made.queries)
    assert 10 < spent <= 25
    queries = [Query(Region("c", (n,), (1,)), None, minutes, "") for n, minutes in enumerate((5.0, 9.0, 2.0))]
    assert within(queries, 14.0) == queries[:2]
    assert within(queries, 13.9) == queries[:1]
    assert within(queries, 1.0) == queries[:1]  # at least one


def test_the_page_of_a_round_works_in_a_browser(models, tmp_path: Path, browser) -> None:
    """No console error, every picture drawn and told in words, each query reached by keyboard, narrow and in print."""
    from selenium.webdriver.common.keys import Keys

    workspace, plans = models("2d")
    _, made = ask(request(workspace, plans, tmp_path / "round", items=4))
    browser.get((made.folder / "index.html").as_uri())
    assert browser.get_log("browser") == []
    sections = browser.find_elements("css selector", "section")
    assert len(sections) == 4
    for section, query in zip(sections, made.queries, strict=True):
        picture = section.find_element("tag name", "img")
        assert int(picture.get_property("naturalWidth")) > 300
        assert query.region.case in picture.get_attribute("alt")
        x, y, z = query.region.start[::-1]
        assert f"voxels {x}, {y}, {z} to" in section.text
        browser.switch_to.active_element.send_keys(Keys.TAB)
        assert browser.switch_to.active_element == section
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    )
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    assert len(browser.execute_cdp_cmd("Page.printToPDF", {})["data"]) > 10_000


# ---- answers ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(models, tmp_path: Path):
    """Return a workspace, its plans and a round of five patches, and take back all that is absorbed."""
    workspace, plans = models("one_labeled")
    _, made = ask(request(workspace, plans, tmp_path / "round_1", items=5, strategy="random_stratified"))
    yield workspace, plans, made
    for name in ("raw", "preprocessed", "rounds"):
        for folder in (workspace.root / name).glob("Dataset7*"):
            shutil.rmtree(folder)


def annotate(made, workspace: Workspace, cases: list[str]) -> None:
    """Answer the queries of some cases as someone would who knows the truth."""
    for case in cases:
        file = made.folder / "labels" / f"{case}.nii.gz"
        label, truth = read(file), read(workspace.root / "raw" / DATASET / "labelsTr" / f"{case}.nii.gz")
        for region in made.of(case):
            label[region.inside] = truth[region.inside]
        write(label, file, file)


def test_answers_become_the_next_dataset_and_split(asked, capsys) -> None:
    workspace, _, made = asked
    annotate(made, workspace, made.cases)
    assert command("absorb", str(made.folder), "--out", "Dataset700_Next") == 0
    assert "done" in capsys.readouterr().out
    raw, first = RawDataset.load("700"), load_split(workspace.preprocessed, "few").fold(0)
    split = load_split(workspace.root / "preprocessed" / "Dataset700_Next", "r1")
    assert len(split.folds) == 1
    assert set(split.folds[0].train) == {*first.train, *made.cases}
    assert split.folds[0].val == first.val  # never one that was asked for
    assert set(split.folds[0].unlabeled) == set(first.unlabeled) - set(made.cases)
    assert split.info["queried"] == made.cases
    stock = json.loads((workspace.root / "preprocessed" / "Dataset700_Next" / "splits_final.json").read_text())
    assert stock == [{"train": list(split.folds[0].train), "val": list(split.folds[0].val)}]
    assert set(raw.without_label) == set(first.unlabeled) - set(made.cases)  # hidden labels are not there
    assert ignore_of(raw) == raw.dataset_json["labels"]["ignore"] == 3
    truths = workspace.root / "raw" / DATASET / "labelsTr"
    for case in made.cases:
        label, truth = read(raw.cases[case].label), read(truths / f"{case}.nii.gz")
        known = label != 3
        assert known.sum() == sum(np.prod(region.size) for region in made.of(case))
        assert (label[known] == truth[known]).all()
        assert raw.cases[case].truth is None
    record = json.loads((raw.folder / "annotations.json").read_text())
    assert [query["annotated"] for query in record["queries"]] == [1.0] * 5
    assert sum(about["voxels"] for about in record["cases"].values()) == 5 * 4 * 8 * 8
    assert round_of("700") == 2
    assert round_of(DATASET) == 1


def test_partial_answers(asked, capsys) -> None:
    workspace, _, made = asked
    cases = made.cases
    annotate(made, workspace, cases[:2])
    half = made.folder / "labels" / f"{cases[1]}.nii.gz"
    label = read(half)
    region = made.of(cases[1])[0]
    label[region.inside][:2] = 3  # two of four slices are not done
    write(label, half, half)
    (made.folder / "labels" / f"{cases[2]}.nii.gz").unlink()
    assert command("absorb", str(made.folder), "--out", "Dataset700_Next", "--name", "some") == 0
    told = capsys.readouterr().out
    assert "50 % annotated" in told
    assert "not answered" in told
    assert "as handed out" in told
    assert "--accept-unchanged" in told
    split = load_split(workspace.root / "preprocessed" / "Dataset700_Next", "some")
    assert set(split.info["queried"]) == set(cases[:2])
    assert cases[2] in split.folds[0].unlabeled


def test_what_was_not_changed_is_no_answer(models, tmp_path: Path) -> None:
    """Of two regions of one case one is corrected; the other is what the model predicts, and nobody said so."""
    workspace, plans = models("one_labeled")
    _, made = ask(request(workspace, plans, tmp_path / "round_1", items=40, strategy="random"))
    case = next(case for case in made.cases if len(made.of(case)) > 1)
    file = made.folder / "labels" / f"{case}.nii.gz"
    label = read(file)
    first, second = made.of(case)[:2]
    label[first.inside] = 1 - (label[first.inside] == 1)
    write(label, file, file)
    raw, reader = RawDataset.load(DATASET), RawDataset.load(DATASET).reader()
    known = (raw.dataset_json["labels"], ignore_of(raw), reader, ".nii.gz")
    hashes = tuple(made.prefilled[case]["regions"])
    answer = Answer(raw.cases[case], file, tuple(made.of(case)), hashes, None, *known)
    got, shares, _ = read_answer(answer)
    assert shares[:2] == [(1.0, False), (0.0, True)]
    assert (got[second.inside] == 3).all()
    accepted, shares, _ = read_answer(replace(answer, handed=None))
    assert shares[:2] == [(1.0, False), (1.0, False)]
    assert np.array_equal(accepted, label)


def test_a_file_that_covers_a_part_of_the_scan_says_nothing_of_the_rest(workspaces, tmp_path: Path) -> None:
    workspaces("2d")
    raw = RawDataset.load(DATASET)
    case = raw.cases["case_00"]
    part = sitk.GetImageFromArray(np.ones((4, 32, 32), np.uint8))
    part.CopyInformation(sitk.ReadImage(str(case.images[0]))[:, :, 2:6])
    sitk.WriteImage(part, str(tmp_path / "case_00.nii.gz"))
    regions = (Region("case_00", (0, 0, 0), (4, 32, 32)),)
    known = (raw.dataset_json["labels"], 3, raw.reader(), ".nii.gz")
    label, shares, _ = read_answer(Answer(case, tmp_path / "case_00.nii.gz", regions, ("0",), None, *known))
    assert shares == [(0.5, False)]
    assert (label[:2] == 3).all()
    assert (label[2:6] == 1).all()


def test_an_answer_adds_to_what_was_annotated_before(workspaces, tmp_path: Path) -> None:
    """A file of 3D Slicer says nothing outside of its segments; earlier labels stay, and cost nothing again."""
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
    regions = (Region("case_00", (1, 0, 0), (4, 32, 32)),)  # one of its slices is annotated already
    known = (raw.dataset_json["labels"], 3, raw.reader(), ".nii.gz")
    answer = Answer(case, file, regions, ("0",), tmp_path / "previous.nii.gz", *known)
    about = write_answer(case, tmp_path / "made.nii.gz", raw.reader(), 3, answer, PATCH, 60.0)
    expected = previous.copy()
    expected[1:5] = drawn[1:5]
    assert np.array_equal(read(tmp_path / "made.nii.gz"), expected)
    assert about["voxels"] == 3 * 32 * 32
    assert about["foreground_voxels"] == 100
    assert about["minutes"] == 3


@pytest.mark.parametrize("ending", [".nii.gz", ".png"])
def test_2d_images(folders: Path, ending: str) -> None:
    """A flat image has one slice for nnU-Net; what comes back lies on it."""
    raw = folders / "raw" / "Dataset705_Flat"
    for number in range(4):
        array = np.random.default_rng(number).integers(0, 200, (20, 24)).astype(np.uint8)
        (raw / "imagesUn").mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(array), str(raw / "imagesUn" / f"c{number}_0000{ending}"))
    description = {"channel_names": {"0": "x"}, "labels": {"background": 0, "thing": 1}, "numTraining": 0}
    (raw / "dataset.json").write_text(json.dumps({**description, "file_ending": ending}))
    out = folders / "round_1"
    flags = ("--what", "patch", "--size", "8x8", "--strategy", "random", "--items", "4")
    assert command("query", "705", *flags, "--out", str(out)) == 0
    made = load_round(out)
    for case in made.cases:
        file = out / "labels" / f"{case}{ending}"
        label = read(file)
        region = made.of(case)[0]
        assert region.size == (1, 8, 8)
        label[region.inside[1:]] = 1
        sitk.WriteImage(sitk.GetImageFromArray(label), str(file))
    assert command("absorb", str(out), "--out", "Dataset706_Flat") == 0
    dataset = RawDataset.load("706")
    case = made.cases[0]
    label = read(dataset.cases[case].label)
    assert (label == 1).sum() == 64 * len(made.of(case))
    assert (label != 1).sum() == (label == 2).sum()
    (out / "labels" / f"{case}{ending}").write_bytes(b"nothing")
    assert command("absorb", str(out), "--out", "Dataset707_Flat") == 2


def test_patients_who_are_validated_on_are_not_asked_for(workspaces) -> None:
    workspaces("2d")
    raw = RawDataset.load(DATASET)
    folds = [Fold(("case_00",), ("case_01",), ("case_02", "case_03", "case_04"))]
    assert Field.of(raw, folds, lambda case: np.zeros(1)).open == ("case_02", "case_03", "case_04")
    raw = replace(raw, cases={name: raw.cases[case] for name, case in (
        ("a1", "case_00"), ("a2", "case_01"), ("b1", "case_02"), ("b2", "case_03"), ("c1", "case_04")
    )})  # fmt: skip
    folds = [Fold(("b1",), ("a1",), ("a2", "b2", "c1"))]
    assert Field.of(raw, folds, lambda case: np.zeros(1), "[abc]").open == ("b2", "c1")


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


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("shifted", "draw on the image itself"),
        ("spacing", "has spacing"),
        ("foreign", "has the value 9, which is no class (known are 0, 1, 2, 3, of which 3 says nothing)"),
        ("unreadable", "cannot be read"),
    ],
)
def test_wrong_answers_are_refused(asked, capsys, kind: str, told: str) -> None:
    workspace, _, made = asked
    annotate(made, workspace, made.cases)
    file = made.folder / "labels" / f"{made.cases[0]}.nii.gz"
    spoilt(kind, read(file), file)
    assert command("absorb", str(made.folder), "--out", "Dataset700_Next") == 2
    line = capsys.readouterr().err
    assert told in line
    assert str(file) in line
    assert line.count("\n") == 1
    assert not list((workspace.root / "raw").glob("*700*"))
    assert not list((workspace.root / "preprocessed").glob("*700*"))


def test_two_answers_to_one_case_are_refused_but_not_one_beside_what_was_handed_out(asked, capsys) -> None:
    workspace, _, made = asked
    case = made.cases[0]
    handed = made.folder / "labels" / f"{case}.nii.gz"
    label = read(handed)
    for region in made.of(case):
        label[region.inside] = 1
    write(label, handed, handed.with_name(f"{case}.nrrd"))
    assert command("absorb", str(made.folder), "--out", "Dataset700_Next") == 0
    assert set(load_split(workspace.root / "preprocessed" / "Dataset700_Next", "r1").info["queried"]) == {case}
    write(label, handed, handed)
    assert command("absorb", str(made.folder), "--out", "Dataset701_Next") == 2
    assert "two answers" in capsys.readouterr().err


def test_a_second_round(asked, tmp_path: Path) -> None:
    """What was annotated is not asked for again, the rest of its cases may be; the first round stays as it was."""
    workspace, _, made = asked
    before = {file: file.read_bytes() for file in made.folder.rglob("*") if file.is_file()}
    truths = workspace.root / "raw" / DATASET / "labelsTr"
    absorb(AbsorbRequest(made.folder, "Dataset700_Next", oracle=truths), 1)
    changed = {file for file in before if file.read_bytes() != before[file]}
    assert {file.parent.name for file in changed} <= {"labels"}
    assert command("plan", "700", "--split", "r1", "-c", "2d", "--size", "tiny", "-np", "1") == 0
    flags = ("-p", "nnUNetPlans_r1_tiny", "--epochs", "1", "--iterations", "2", "-device", "cpu")
    assert command("train", "700", "2d", "0", "-tr", TRAINER, *flags) == 0
    plans = "nnUNetPlans_r1_tiny_num_epochs-1_num_iterations_per_epoch-2"
    model = TrainRequest("700", "2d", "0", TRAINER, plans)
    second = QueryRequest("700", tmp_path / "round_2", "random", 60, None, PATCH, model=model, number=2)
    asker, more = ask(second)
    annotated = [query.region for query in made.queries]
    for query in more.queries:
        whole = np.zeros((8, 32, 32), bool)
        whole[query.region.inside] = True
        assert not any(whole[r.inside].any() for r in annotated if r.case == query.region.case)
    sparse = set(made.cases) & set(more.cases)
    assert sparse
    case = min(sparse)
    begun = read(more.folder / "labels" / f"{case}.nii.gz")
    for region in made.of(case):  # what was annotated before is there
        assert np.array_equal(begun[region.inside], read(truths / f"{case}.nii.gz")[region.inside])
    absorb(AbsorbRequest(more.folder, "Dataset701_Next", oracle=truths), 1)
    raw = RawDataset.load("701")
    label = read(raw.cases[case].label)
    for region in [*made.of(case), *more.of(case)]:
        assert np.array_equal(label[region.inside], read(truths / f"{case}.nii.gz")[region.inside])
    assert asker.pool()[0].progress == 0.25
    results = workspace.root / "rounds" / "Dataset700_Next" / f"{TRAINER}__{plans}__2d" / "fold_0"
    summary = json.loads((results / "validation" / "summary.json").read_text())
    assert made.origin["dice"] == []  # of the first model nothing is known, it was not validated
    assert more.origin["dice"] == [pytest.approx(summary["foreground_mean"]["Dice"])]
    assert json.loads((raw.folder / "annotations.json").read_text())["dice"] == more.origin["dice"]


def test_a_view_takes_over_what_is_preprocessed(asked) -> None:
    workspace, _, made = asked
    truths = workspace.root / "raw" / DATASET / "labelsTr"
    planned = ("-c", "2d", "--size", "tiny", "-np", "1")
    absorb(AbsorbRequest(made.folder, "Dataset700_Next", "a", oracle=truths), 1)
    assert command("plan", "700", "--split", "a", *planned) == 0
    model = TrainRequest("700", "2d", "0", TRAINER, "nnUNetPlans_a_tiny")
    again = QueryRequest("700", made.folder.with_name("again"), "random", 2, None, PATCH, split="a", number=2)
    assert model.folder.is_dir()
    _, more = ask(again)
    absorb(AbsorbRequest(more.folder, "Dataset701_Next", "b", oracle=truths), 1)
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


# ---- cold start ------------------------------------------------------------------------------------------------------


def test_a_cold_start(workspaces, tmp_path: Path) -> None:
    """Two kinds of scans; TypiClust asks for one of each. Then the first split is made over what came back."""
    workspace = workspaces("2d")
    raw = tmp_path / "raw" / "Dataset702_Cold"
    (raw / "imagesUn").mkdir(parents=True)
    for number in range(8):
        source = workspace.root / "raw" / DATASET / "imagesTr" / f"case_{number:02d}_0000.nii.gz"
        array = read(source) + (5000 if number >= 4 else 0)
        write(array, source, raw / "imagesUn" / source.name)
    (raw / "dataset.json").write_text((workspace.root / "raw" / DATASET / "dataset.json").read_text())
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            (tmp_path / name).mkdir(exist_ok=True)
            patch.setenv(f"nnUNet_{name}", str(tmp_path / name))
        out = tmp_path / "round_1"
        assert command("query", "702", "--items", "2", "--out", str(out)) == 0
        made = load_round(out)
        assert made.origin["strategy"] == "typiclust"
        assert len({int(case[-2:]) // 4 for case in made.cases}) == 2
        assert (read(out / "labels" / f"{made.cases[0]}.nii.gz") == 0).all()
        truths = workspace.root / "raw" / DATASET / "labelsTr"
        assert command("absorb", str(out), "--out", "Dataset703_Cold", "--oracle", str(truths)) == 0
        split = load_split(tmp_path / "preprocessed" / "Dataset703_Cold", "r1")
        assert len(split.folds) == 2
        assert split.labeled == sorted(made.cases)
        assert "ignore" not in RawDataset.load("703").dataset_json["labels"]  # every voxel is annotated


def test_descriptions_of_scans(workspaces, tmp_path: Path) -> None:
    workspace = workspaces("two_channels")
    raw = RawDataset.load(DATASET)
    shape, spacing, about = cold_start.describe(raw.cases["case_00"], raw.reader())
    assert (shape, spacing) == ((8, 32, 32), (1.0, 1.0, 1.0))
    assert len(about) == 3 + 3 + 2 * (7 + 64)
    image = read(workspace.root / "raw" / DATASET / "imagesTr" / "case_00_0000.nii.gz")
    assert np.allclose(about[6:13], np.percentile(image, cold_start.PERCENTILES))
    assert cold_start.components(np.random.default_rng(0).random((5, 99))).shape == (5, 5)
    np.savez(tmp_path / "f.npz", a=np.ones(3), b=np.zeros(3), c=np.ones(4))
    assert cold_start.given_features(tmp_path / "f.npz", ["b", "a"]).tolist() == [[0, 0, 0], [1, 1, 1]]
    with pytest.raises(LimitedError, match="'c' has 4 numbers, 'a' 3"):
        cold_start.given_features(tmp_path / "f.npz", ["a", "c"])
    with pytest.raises(LimitedError, match="no array named 'd'"):
        cold_start.given_features(tmp_path / "f.npz", ["a", "d"])


# ---- parts -----------------------------------------------------------------------------------------------------------


def test_a_map_spread_on_its_scan() -> None:
    spread = Grid((1, 0), (5, 6)).spread(np.array([[1, 2, 3], [4, 5, 6]]), (7, 6))
    expected = np.zeros((7, 6))
    expected[1:5] = np.kron([[1, 2, 3], [4, 5, 6]], np.ones((2, 2)))
    assert np.array_equal(spread, expected)


def test_cases_of_the_last_round_are_drawn_more_often() -> None:
    chance = sampling(["a", "b", "c", "d", "e"], ["b"], 0.5)
    assert np.allclose(chance, [0.125, 0.5, 0.125, 0.125, 0.125])
    assert sampling(["a", "b"], ["b"], 0.5) is None  # it is half anyway
    assert sampling(["a", "b"], [], 0.5) is None
    assert sampling(["a", "b"], ["a", "b"], 0.9) is None


def test_every_strategy_has_a_source() -> None:
    own = {"random", "random_stratified", "entropy", "expected_entropy"}
    for name, strategy in strategies().items():
        assert strategy.__doc__
        assert (
            name in own
            or any(str(year) in strategy.__doc__ for year in (1992, 1994, 2001, *range(2011, 2027)))
            or ("arXiv" in strategy.__doc__)
        )
