"""Each query strategy against what its paper says, by brute force where that is possible."""

import itertools
from collections import Counter

import numpy as np
import pytest
from pools import patches, share_a_voxel, whole_cases

from nnunet_limited.losses.label_space import ClassLabels
from nnunet_limited.queries.pool import Pool
from nnunet_limited.queries.strategies.diversity import signature_distance
from nnunet_limited.queries.strategies.registry import find_strategy
from nnunet_limited.queries.windows import Window
from nnunet_limited.testing import example_pool

CLASSES = ClassLabels(((0,), (1,)))


@pytest.mark.parametrize("name", ["entropy", "expected_entropy", "bald", "margin", "least_confidence", "disagreement"])
def test_top_scores_against_brute_force(name):
    """Of all greedy orders without overlap, that of the largest scores; on whole cases it is the best set."""
    pool = example_pool(patches(2))
    expected, utilities = [], pool.scores[name]
    for index in np.argsort(-utilities):
        if len(expected) < 6 and not any(share_a_voxel(pool.windows[index], pool.windows[i]) for i in expected):
            expected.append(int(index))
    assert find_strategy(name).query(pool, 6, 0) == expected
    cases = example_pool(whole_cases(8))
    best = max(itertools.combinations(range(8), 3), key=lambda some: cases.scores[name][list(some)].sum())
    assert set(find_strategy(name).query(cases, 3, 0)) == set(best)


@pytest.mark.parametrize(("name", "score"), [("power_entropy", "entropy"), ("power_bald", "bald")])
def test_power_noise_draws_in_proportion_to_the_score(name, score):
    values = np.array([0.1, 0.2, 0.3, 0.4])
    pool = example_pool(whole_cases(4), scores={score: values})
    first = Counter(find_strategy(name).query(pool, 1, seed)[0] for seed in range(4000))
    assert np.allclose([first[n] / 4000 for n in range(4)], values, atol=0.03)


@pytest.mark.parametrize(("name", "score"), [("softrank_entropy", "entropy"), ("softrank_bald", "bald")])
def test_softrank_draws_in_proportion_to_one_over_the_rank(name, score):
    pool = example_pool(whole_cases(4), scores={score: np.array([0.1, 90.0, 0.3, 0.4])})
    first = Counter(find_strategy(name).query(pool, 1, seed)[0] for seed in range(4000))
    weights = 1 / np.array([4, 1, 3, 2])
    assert np.allclose([first[n] / 4000 for n in range(4)], weights / weights.sum(), atol=0.03)


def test_clasp_pe_gives_two_thirds_to_the_classes_in_equal_parts():
    n = 40
    by_class = np.full((n, 3), 1e-9)
    for value in range(3):  # ten candidates of each class; the last ten for entropy alone
        by_class[10 * value : 10 * value + 10, value] = 1
    entropy = np.full(n, 1e-9)
    entropy[30:] = 1
    pool = example_pool(whole_cases(n), scores={"entropy": entropy}, class_scores=by_class, progress=1.0)
    for budget, classes, plain in ((10, [2, 2, 2], 4), (12, [2, 2, 3], 5), (1, [0, 0, 0], 1)):
        chosen = np.array(find_strategy("clasp_pe").query(pool, budget, 3))
        assert sorted(int(((chosen // 10) == value).sum()) for value in range(3)) == classes
        assert (chosen >= 30).sum() == plain


def test_clasp_pe_noise_fades():
    values = np.linspace(0.1, 1, 30)
    for progress, exponent in ((0.0, 1), (0.5, 10), (1.0, 100)):
        pool = example_pool(
            whole_cases(30), scores={"entropy": values}, class_scores=values[:, None], progress=progress
        )
        first = Counter(find_strategy("clasp_pe").query(pool, 1, seed)[0] for seed in range(1500))
        chance = values**exponent / (values**exponent).sum()
        assert np.isclose(first[29] / 1500, chance[29], atol=0.04)


def test_random_is_fair_to_cases_and_to_windows():
    windows = [*patches(1), *whole_cases(2)[1:]]  # many windows of one case, one of another
    chosen = Counter(find_strategy("random").query(example_pool(windows), 1, seed)[0] for seed in range(3000))
    assert np.isclose(chosen[len(windows) - 1] / 3000, 0.5, atol=0.03)
    within = np.array([chosen[n] for n in range(len(windows) - 1)]) / 1500
    assert np.abs(within - 1 / (len(windows) - 1)).max() < 0.03


def test_stratified_random_takes_from_all_cases():
    pool = example_pool(patches(5))
    for budget in (5, 12):
        chosen = find_strategy("random_stratified").query(pool, budget, 4)
        counts = Counter(pool.windows[index].case for index in chosen)
        assert len(counts) == 5
        assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize(("name", "share"), [("random_fg66", 2 / 3), ("random_fg33", 1 / 3)])
def test_foreground_aware_random(name, share):
    """One window of ten shows class 0, another the border of class 2; half of the turns on foreground go to each."""
    foreground, border = np.zeros((10, 3)), np.zeros((10, 3))
    foreground[2, 0], border[7, 2] = 30, 5
    windows = [Window("one", (n, 0, 0), (1, 4, 4)) for n in range(10)]
    pool = example_pool(windows, foreground=foreground, border=border)
    chosen = Counter(find_strategy(name).query(pool, 1, seed)[0] for seed in range(3000))
    for index in (2, 7):
        assert np.isclose(chosen[index] / 3000, share / 2 + (1 - share) / 10, atol=0.03)


def test_foreground_aware_random_is_fair_to_classes():
    foreground = np.zeros((3, 3))
    foreground[0, 0], foreground[1, 1], foreground[2, 1] = 1000, 1, 3
    windows = [Window("one", (n, 0, 0), (1, 4, 4)) for n in range(3)]
    pool = example_pool(windows, foreground=foreground, border=foreground)
    chosen = Counter(find_strategy("random_fg66").query(pool, 1, seed)[0] for seed in range(3000))
    expected = [2 / 3 * part + 1 / 9 for part in (1 / 2, 1 / 8, 3 / 8)]
    assert np.allclose([chosen[n] / 3000 for n in range(3)], expected, atol=0.03)


def test_core_set_against_brute_force():
    rng = np.random.default_rng(5)
    points, known = rng.random((15, 2)), rng.random((3, 2))
    pool = example_pool(whole_cases(15), features={"encoder": points}, annotated_features={"encoder": known})
    scale, expected = points.std(0), []
    for _ in range(5):
        centres = np.concatenate([known, points[expected]]) / scale
        nearest = np.linalg.norm(points[:, None] / scale - centres[None], axis=2).min(1)
        expected.append(int(nearest.argmax()))
    assert find_strategy("core_set").query(pool, 5, 0) == expected


def test_typiclust_takes_the_middle_of_each_cluster_without_annotation():
    rng = np.random.default_rng(2)
    middles = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], float)
    points = np.concatenate([middle + rng.normal(0, 0.5, (30, 2)) for middle in middles])
    pool = example_pool(whole_cases(120), features={"encoder": points}, annotated_features={"encoder": middles[:1]})
    chosen = find_strategy("typiclust").query(pool, 3, 0)
    assert {index // 30 for index in chosen} == {1, 2, 3}
    assert all(np.linalg.norm(points[index] - middles[index // 30]) < 0.5 for index in chosen)


def test_kmeans_bald_takes_the_most_uncertain_of_each_cluster():
    points = np.repeat(np.array([[0.0, 0], [10, 0], [0, 10]]), 10, axis=0) + np.random.default_rng(0).random((30, 2))
    bald = np.linspace(0.5, 1, 30)
    pool = example_pool(whole_cases(30), scores={"bald": bald}, features={"encoder": points}, annotated_features={})
    assert set(find_strategy("kmeans_bald").query(pool, 3, 0)) == {9, 19, 29}
    assert find_strategy("kmeans_bald").query(pool, 1, 0) == [29]
    far = np.concatenate([points[:29], [[500.0, 500]]])  # the least uncertain one
    pool = example_pool(
        whole_cases(30), scores={"bald": np.linspace(1, 0.5, 30)}, features={"encoder": far}, annotated_features={}
    )
    assert 29 not in find_strategy("kmeans_bald").query(pool, 2, 0)  # only the best ten times as many are clustered


def test_badge_takes_the_longest_then_the_far_ones():
    gradients = np.array([[0.0, 0], [5, 0], [5.001, 0], [0, 4], [0, 4.001]])
    pool = example_pool(whole_cases(5), features={"gradient": gradients})
    assert find_strategy("badge").query(pool, 1, 0) == [2]
    second = Counter(find_strategy("badge").query(pool, 2, seed)[1] for seed in range(2000))
    distance = ((gradients - gradients[2]) ** 2).sum(1)
    assert np.allclose([second[n] / 2000 for n in range(5)], distance / distance.sum(), atol=0.04)


def test_cdal_takes_the_farthest_signature():
    sure, confused = np.array([0.9, 0.1, 0.1, 0.9]), np.array([0.6, 0.4, 0.4, 0.6])
    pool = example_pool(
        whole_cases(3),
        features={"signature": np.stack([sure, confused, sure])},
        annotated_features={"signature": sure[None]},
    )
    assert find_strategy("cdal").query(pool, 1, 0) == [1]


def test_distance_of_signatures():
    p, q = np.array([0.9, 0.1, 0, 0]), np.array([0.6, 0.4, 0.2, 0.8])
    expected = 0.3 * np.log(0.9 / 0.6) - 0.3 * np.log(0.1 / 0.4)  # the second class is in one of them only
    assert np.isclose(signature_distance(p[None], q)[0], expected, atol=1e-4)
    assert signature_distance(np.zeros((1, 4)), q)[0] > 10  # nothing in common, so that it does not hide the others


@pytest.mark.parametrize("name", ["core_set", "typiclust"])
@pytest.mark.parametrize("count", [12, 30, 100])
def test_one_of_each_group(name: str, count: int) -> None:
    """Four groups of cases that differ in a few of many features: four picks are one of each, whatever the seed."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        group = np.arange(count) % 4
        features = rng.normal(0, 10, (4, 140))[group] + rng.normal(0, 1, (count, 140))
        windows = [Window(f"case_{n:03d}", (0, 0, 0), (4, 4, 4)) for n in range(count)]
        pool = Pool(windows, features={"encoder": features}, annotated_features={"encoder": features[:0]})
        assert len(set(group[find_strategy(name).query(pool, 4, seed)])) == 4
