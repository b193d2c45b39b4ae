"""Rounds of queries: scored on the scan, what may be asked for, and what annotators get."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import DATASET, read, spoil
from rounds import MODELS, PATCH, ROUND_FILES, TRAINER, ask, request

from nnunet_limited.cli.query import _next_commands
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.queries.absorb import absorb
from nnunet_limited.queries.case_pool import CasePool
from nnunet_limited.queries.choose import load_pool, rank_for_minutes, within
from nnunet_limited.queries.model_scores import ModelScorer
from nnunet_limited.queries.pool import Pool
from nnunet_limited.queries.query_round import SCORES, open_round
from nnunet_limited.queries.record import Query, load_round
from nnunet_limited.queries.request import AbsorbRequest
from nnunet_limited.queries.score import score_cases
from nnunet_limited.queries.strategies.registry import find_strategy, strategies
from nnunet_limited.queries.windows import MapExtent, Window
from nnunet_limited.runs.predict import Predictor
from nnunet_limited.splits import Fold, load_split
from nnunet_limited.trainers.two_stage.active import sampling

# ---- scoring ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", MODELS)
def test_scores_of_regions_are_those_of_the_voxels(models, tmp_path: Path, variant: str) -> None:
    """The network's grid is that of the scan here but for a border that the host cuts off and the order of axes."""
    workspace, plans = models(variant)
    query_round, _ = ask(request(workspace, plans, tmp_path / "round", strategy="disagreement"))
    case = query_round.cases.unlabeled[0]
    scorer = ModelScorer(query_round, "cpu")
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
    windows = PATCH.window_grid(shape, (1, 1, 1), case)
    for n, window in enumerate(windows.windows(case)):
        assert np.isclose(stored["score_entropy"][n], entropy[window.inside].mean(), rtol=1e-4)
    label = scorer.on_scan(case)[0]
    values = sorted(query_round.raw.description.foreground_values)
    counted = stored["foreground"].sum(0)  # middles tile the image
    assert np.allclose(counted, [(label == value).sum() for value in values])
    assert (stored["score_bald"] >= 0).all()
    assert (stored["score_disagreement"] <= 1).all()


def test_scores_of_resampled_data(models, tmp_path: Path) -> None:
    """Against the map brought to the scan voxel by voxel, which is coarser: its voxels are not those of the scan."""
    workspace, plans = models("resampled")
    query_round, made = ask(request(workspace, plans, tmp_path / "round"))
    case = query_round.cases.unlabeled[0]
    scorer = ModelScorer(query_round, "cpu")
    image, properties = scorer.load(case)
    assert image.shape[1:] == (10, 25, 25)
    label, entropy = scorer.on_scan(case)
    assert label.shape == entropy.shape == (8, 32, 32)
    stored = np.load(tmp_path / "round" / SCORES / f"{case}.npz")
    windows = PATCH.window_grid((8, 32, 32), (1, 1, 1), case)
    expected = [entropy[window.inside].mean() for window in windows.windows(case)]
    assert np.allclose(stored["score_entropy"], expected, rtol=0.07)
    assert np.corrcoef(stored["score_entropy"], expected)[0, 1] > 0.985  # one voxel aside it is 0.974 at most
    shown = (scorer.predict(image, properties).label > 0).sum()
    assert np.isclose(stored["foreground"].sum(), shown * (8 * 32 * 32) / (10 * 25 * 25), rtol=1e-3)
    assert len(made.queries) == 3


def test_an_ensemble_of_folds(models, tmp_path: Path) -> None:
    """Every fold predicts once; what one of them validates on is not asked for, whichever learns it."""
    workspace, plans = models("deployment")
    query_round, made = ask(
        request(workspace, plans, tmp_path / "round", folds=(0, 1), what="case", size=None, items=2)
    )
    split = load_split(workspace.preprocessed, "few")
    assert set(query_round.cases.candidates) == set(split.unlabeled)
    case = made.cases[0]
    scorer = ModelScorer(query_round, "cpu")
    members = list(scorer.predictor.probabilities(scorer.load(case)[0]))
    assert len(members) == 2
    assert not torch.equal(members[0], members[1])
    mean = torch.stack(members).mean(0)
    expected = torch.special.entr(mean).sum(0).mean()
    assert np.isclose(np.load(tmp_path / "round" / SCORES / f"{case}.npz")["score_entropy"][0], expected, rtol=1e-4)
    assert sorted(made.record.model.checkpoints) == ["0", "1"]
    truths = workspace.root / "raw" / DATASET / "labelsTr"
    try:
        absorb(AbsorbRequest(folder=made.folder, out="Dataset708_Next", oracle=truths), 1)
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
    asked = request(workspace, plans, tmp_path / "oracle", strategy="random_fg66", oracle=truths)
    query_round, made = ask(asked)
    case = query_round.cases.unlabeled[0]
    truth = read(truths / f"{case}.nii.gz")
    stored = np.load(tmp_path / "oracle" / SCORES / f"{case}.npz")
    assert np.allclose(stored["foreground"].sum(0), [(truth == value).sum() for value in (1, 2)])
    assert "score_entropy" not in stored
    assert sorted(file.name for file in made.folder.iterdir()) == [SCORES, "labels", *ROUND_FILES]
    by_model, _ = ask(asked.changed(out=tmp_path / "model", oracle=None))
    label = ModelScorer(by_model, "cpu").on_scan(case)[0]
    stored = np.load(tmp_path / "model" / SCORES / f"{case}.npz")
    assert np.allclose(stored["foreground"].sum(0), [(label == value).sum() for value in (1, 2)])


def test_minutes_are_those_of_the_outlines(models, tmp_path: Path) -> None:
    workspace, plans = models("2d")
    query_round, _ = ask(request(workspace, plans, tmp_path / "round", size=(8, 32, 32), seconds=60.0))
    case = query_round.cases.unlabeled[0]
    label = ModelScorer(query_round, "cpu").on_scan(case)[0]
    drawn = sum(max(1, sum(int((label[z] == value).any()) for value in (1, 2))) for z in range(8))
    assert np.load(tmp_path / "round" / SCORES / f"{case}.npz")["minutes"][0] == drawn


@pytest.mark.parametrize("variant", ["2d", "3d", "regions"])
@pytest.mark.parametrize("name", ["core_set", "badge", "cdal", "kmeans_bald", "typiclust"])
def test_strategies_on_features_of_a_model(models, tmp_path: Path, variant: str, name: str) -> None:
    workspace, plans = models(variant)
    query_round, made = ask(request(workspace, plans, tmp_path / "round", strategy=name))
    assert len(made.queries) == 3
    pool, _ = load_pool(query_round)
    features = pool.features[find_strategy(name).features]
    assert features.std(0).max() > 0
    annotated = pool.annotated_features[find_strategy(name).features]
    assert annotated.shape[1] == features.shape[1]
    assert len(annotated)  # the labelled cases
    if name == "cdal":
        classes = 2 if variant == "regions" else 3
        rows = features.reshape(-1, classes, classes)
        assert features.shape[1] == classes**2
        if variant != "regions":
            assert np.allclose(rows.sum(2)[rows.any(2)], 1, atol=1e-4)


def test_features_of_the_encoder_are_its_own(models, tmp_path: Path) -> None:
    workspace, plans = models("3d")
    query_round, _ = ask(
        request(workspace, plans, tmp_path / "round", strategy="core_set", what="case", size=None, items=1)
    )
    scorer, case = ModelScorer(query_round, "cpu"), query_round.cases.unlabeled[0]
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
    pool = CasePool.of(raw, folds, lambda case: np.zeros(1))
    assert pool.unlabeled == (d, e)
    assert pool.sparse == ()  # there is no ignore label
    assert pool.annotated == (a, b, c)
    with_ignore = replace(raw, dataset_json={**raw.dataset_json, "labels": {"background": 0, "x": 1, "ignore": 2}})
    sparse = CasePool.of(with_ignore, folds, lambda case: np.array([0, 2]))
    assert sparse.sparse == (a,)  # b and c are validated on
    assert sparse.candidates == [a, d, e]
    assert CasePool.of(raw, [Fold((a,), (b,), (c,)), Fold((a, c), (b,), (d, c))], None).annotated == (
        a,
    )  # c is hidden once


# ---- handing over ----------------------------------------------------------------------------------------------------


def test_what_annotators_get(models, tmp_path: Path) -> None:
    workspace, plans = models("2d")
    query_round, made = ask(request(workspace, plans, tmp_path / "round"))
    predictor = Predictor(workspace.root / "rounds" / DATASET / f"{TRAINER}__{plans}__2d", [0], "cpu")
    fold = load_split(workspace.preprocessed, "few").fold(0)
    assert set(made.cases) <= set(fold.unlabeled)
    for case in made.cases:
        given = workspace.root / "raw" / DATASET / "imagesTr" / f"{case}_0000.nii.gz"
        assert np.array_equal(read(made.folder / "images" / given.name), read(given))
        label = read(made.folder / "labels" / f"{case}.nii.gz")
        image, _ = ModelScorer(query_round, "cpu").load(case)
        expected = torch.stack(list(predictor.probabilities(image))).mean(0).argmax(0).numpy()
        inside = np.zeros(label.shape, bool)
        for window in made.windows_of(case):
            inside[window.inside] = True
        assert (label[~inside] == 3).all()
        assert np.array_equal(label[inside], expected[inside])
    assert load_round(made.folder) == made
    assert (made.folder / "montage.png").stat().st_size > 1000
    table = (made.folder / "queries.csv").read_text(encoding="utf-8").splitlines()
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
        ask(asked.changed(out=tmp_path / "after"))
        _, after = ask(asked.changed(out=tmp_path / "cold", strategy="typiclust", configuration=None,
                               trainer=None, plans=None, split="few", what="case", size=None))  # fmt: skip
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
    query_round = open_round(asked)

    def stop(cases: list[str]):
        yield from cases[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_cases(query_round, "cpu", stop)
    done = {file: file.stat().st_mtime_ns for file in (tmp_path / "round" / SCORES).glob("*.npz")}
    assert len(done) == 2
    with pytest.raises(LimitedError, match="interrupted"):
        load_round(tmp_path / "round")
    with pytest.raises(LimitedError, match="started with seed=0, not 1"):
        open_round(asked.changed(seed=1))
    _, made = ask(asked)
    assert {file: file.stat().st_mtime_ns for file in done} == done
    assert made.queries == whole.queries
    with pytest.raises(LimitedError, match="holds queries already"):
        open_round(asked)


def test_a_budget_of_minutes(models, tmp_path: Path) -> None:
    workspace, plans = models("2d")
    _, made = ask(request(workspace, plans, tmp_path / "round", items=None, minutes=25.0))
    spent = sum(query.minutes for query in made.queries)
    assert 10 < spent <= 25
    queries = [Query(Window("c", (n,), (1,)), None, minutes, "") for n, minutes in enumerate((5.0, 9.0, 2.0))]
    assert within(queries, 14.0) == queries[:2]
    windows = tuple(Window(f"case_{n}", (0, 0, 0), (8, 32, 32)) for n in range(40))
    pool = Pool(windows, {"entropy": -np.arange(40.0)})  # highest in the short ones, of 2 minutes beside 20
    minutes = np.where(np.arange(40) < 18, 2.0, 20.0)
    ranked = rank_for_minutes(find_strategy("entropy"), pool, minutes, 60.0, 0)
    assert [index for index, _ in ranked[:19]] == [*range(19)]
    assert sum(minutes[index] for index, _ in ranked) >= 60
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
        assert query.window.case in picture.get_attribute("alt")
        x, y, z = query.window.start[::-1]
        assert f"voxels {x}, {y}, {z} to" in section.text
        browser.switch_to.active_element.send_keys(Keys.TAB)
        assert browser.switch_to.active_element == section
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    )
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    assert len(browser.execute_cdp_cmd("Page.printToPDF", {})["data"]) > 10_000


# ---- parts -----------------------------------------------------------------------------------------------------------


def test_a_map_spread_on_its_scan() -> None:
    spread = MapExtent((1, 0), (5, 6)).spread(np.array([[1, 2, 3], [4, 5, 6]]), (7, 6))
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


def test_what_to_type_next(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The query goes on as it began, with a trainer that can learn what there is."""
    record = {
        "dataset": DATASET,
        "model": {"configuration": "2d", "plans": "p"},
        "round": 1,
        "rounds": 4,
        "split": "r1",
    }
    record |= {"granularity": ["patch", None, [4, 8, 8]], "items": 3, "strategy": "bald", "seconds": 20.0, "seed": 5}
    for unlabeled, trainer in ((("b",), "LimitedActiveTrainer"), ((), "LimitedSparseTrainer")):
        folds = (Fold(("a",), ("c",), ("b",)), Fold(("a",), ("c",), unlabeled))
        monkeypatch.setattr("nnunet_limited.splits.load_split", lambda *_, folds=folds: SimpleNamespace(folds=folds))
        _, train, query = _next_commands("Dataset700_Next", record)
        assert f" -tr {trainer} " in train
        assert f" -tr {trainer} " in query
        assert "--items 3 --strategy bald --seconds 20 --seed 5 --rounds 4 --out round_2" in query
    assert "--strategy" not in _next_commands("Dataset700_Next", {**record, "model": None})[-1]
