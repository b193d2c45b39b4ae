"""Scores of windows from a trained model: on the scan, resampled, of ensembles, and its features."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import DATASET, read
from rounds import MODELS, PATCH, ROUND_FILES, ask, request

from nnunet_limited.queries.absorb import absorb
from nnunet_limited.queries.choose import load_pool
from nnunet_limited.queries.query_round import SCORES
from nnunet_limited.queries.request import AbsorbRequest
from nnunet_limited.queries.score import ModelScorer
from nnunet_limited.queries.strategies.registry import find_strategy
from nnunet_limited.splits import load_split


@pytest.mark.slow
@pytest.mark.parametrize("variant", MODELS)
def test_scores_of_windows_are_those_of_the_voxels(models, tmp_path: Path, variant: str) -> None:
    """The network's grid is that of the scan here but for a border that nnU-Net cuts off and the order of axes."""
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_an_oracle_shows_the_foreground_to_foreground_aware_random(models, tmp_path: Path) -> None:
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


@pytest.mark.slow
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


@pytest.mark.slow
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
