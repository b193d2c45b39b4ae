"""Scores, windows and strategies: a template that every strategy passes, and each checked against what it should do."""

import itertools
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nnunet_limited.errors import LimitedError
from nnunet_limited.losses.label_space import ClassLabels
from nnunet_limited.queries.aggregation import Prediction, summarize
from nnunet_limited.queries.pool import Pool
from nnunet_limited.queries.strategies import base, registry
from nnunet_limited.queries.strategies.base import Strategy
from nnunet_limited.queries.strategies.diversity import signature_distance
from nnunet_limited.queries.strategies.ranking import TopScore
from nnunet_limited.queries.strategies.registry import find_strategy, strategies
from nnunet_limited.queries.uncertainty import VOXEL_SCORES, average, entropy
from nnunet_limited.queries.windows import Granularity, MapExtent, Window, WindowGrid
from nnunet_limited.testing import FEATURE_SIZES, check_strategy, example_pool

NAMES = list(strategies())

CLASSES = ClassLabels(((0,), (1,)))


def patches(cases=4, shape=(6, 24, 24), size=(3, 8, 8)):
    return [
        window
        for number in range(cases)
        for window in Granularity("patch", size=size).window_grid(shape, (1, 1, 1), "").windows(f"case_{number}")
    ]


def whole_cases(count):
    return [Window(f"case_{number:03d}", (0, 0, 0), (6, 24, 24)) for number in range(count)]


def share_a_voxel(a, b):
    sets = [set(itertools.product(*(range(s, s + n) for s, n in zip(r.start, r.size, strict=True)))) for r in (a, b)]
    return a.case == b.case and bool(sets[0] & sets[1])


# ---- the template ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_strategy(name):
    check_strategy(strategies()[name])


class Careless(Strategy):
    """The first windows, whether they overlap or not."""

    needs_model = False

    def choose(self, choice, budget, rng):
        for index in range(budget):
            choice.take(index, np.zeros(len(choice.pool)))


class Unsteady(Strategy):
    """Another window each time."""

    def choose(self, choice, budget, rng):
        utilities = np.random.random(len(choice.pool))
        while len(choice.indices) < budget and choice.free.any():
            choice.take_best(utilities)


class Tampering(TopScore):
    """The most uncertain windows; it writes into the pool."""

    score = "entropy"

    def choose(self, choice, budget, rng):
        choice.pool.foreground[0] = 9
        super().choose(choice, budget, rng)


class Nameless(Strategy):
    """A strategy without a name."""

    def choose(self, choice, budget, rng):
        raise NotImplementedError


class Endless(Strategy):
    """A window with an infinite utility."""

    def choose(self, choice, budget, rng):
        while len(choice.indices) < budget and choice.free.any():
            choice.take_best(np.full(len(choice.pool), np.inf))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Careless, "overlaps"),
        (Unsteady, "same seed"),
        (Tampering, "changes the pool"),
        (Endless, "finite utility"),
        (Nameless, "needs a name"),
    ],
)
def test_the_check_finds_what_is_wrong(broken, message, monkeypatch):
    if message != "needs a name":
        monkeypatch.setattr(broken, "name", "broken")
    with pytest.raises(AssertionError, match=message):
        check_strategy(broken)


def test_a_strategy_on_a_score_of_its_own(monkeypatch):
    """A new score is a function of the ensemble, a strategy on it one class; nothing else knows of them."""
    monkeypatch.setattr(base, "STRATEGIES", dict(base.STRATEGIES))
    monkeypatch.setattr(registry, "STRATEGIES", base.STRATEGIES)
    monkeypatch.setitem(VOXEL_SCORES, "gini", lambda ensemble: (ensemble.mean * (1 - ensemble.mean)).sum(0))

    class Gini(TopScore):
        """Gini impurity of the mean prediction."""

        name, score = "gini", "gini"

    check_strategy(Gini)
    assert isinstance(find_strategy("gini"), Gini)
    members = torch.stack([torch.tensor([[0.5, 0.9, 1.0, 0.0], [0.5, 0.1, 0.0, 1.0]])] * 2)
    extent, grid = MapExtent((0.0,), (4.0,)), WindowGrid((np.array([0, 2]),), (2,))
    prediction = Prediction(average(members, CLASSES), np.array([0, 0, 0, 1]), (), extent)
    scores = summarize(prediction, grid, [1], 0, 60.0, signature=False)
    assert np.allclose(scores.scores["gini"], [(0.5 + 0.18) / 2, 0])
    assert np.allclose(scores.class_scores[:, 0], [(0.5 * np.log(2) + 0.1 * entropy(members[0], CLASSES)[1]) / 2, 0])
    pool = Pool(grid.windows("case"), scores.scores)
    assert find_strategy("gini").query(pool, 1, 0) == [0]


@pytest.mark.parametrize("name", NAMES)
def test_seeds_differ_or_scores_decide(name):
    pool = example_pool(whole_cases(40))
    chosen = {tuple(find_strategy(name).query(pool, 5, seed)) for seed in range(8)}
    decided = name in (
        "entropy",
        "expected_entropy",
        "bald",
        "margin",
        "least_confidence",
        "disagreement",
        "core_set",
        "cdal",
    )
    assert (len(chosen) == 1) == decided


@pytest.mark.parametrize("name", NAMES)
def test_small_pools(name):
    one = example_pool(whole_cases(1))
    assert find_strategy(name).query(one, 1, 0) == [0]
    few = example_pool(whole_cases(3))
    assert sorted(find_strategy(name).query(few, 10, 0)) == [0, 1, 2]  # a budget larger than the pool
    without_annotation = example_pool(whole_cases(6), annotated=0)
    assert len(set(find_strategy(name).query(without_annotation, 4, 0))) == 4


@pytest.mark.parametrize("name", NAMES)
def test_ties(name):
    pool = example_pool(whole_cases(12))
    same = {key: np.ones_like(value) for key, value in pool.scores.items()}
    alike = {key: np.ones_like(value) for key, value in pool.features.items()}
    pool = example_pool(whole_cases(12), scores=same, features=alike, class_scores=np.ones((12, 3)))
    pool = replace(
        pool,
        foreground=np.ones((12, 3)),
        border=np.zeros((12, 3)),
        annotated_features={k: v[:2] for k, v in alike.items()},
    )
    first = Counter(find_strategy(name).query(pool, 4, seed)[0] for seed in range(60))
    assert len(first) > 6  # none of the equal ones is preferred
    assert len(set(find_strategy(name).query(pool, 12, 0))) == 12


@pytest.mark.parametrize("name", NAMES)
def test_zero_scores(name):
    pool = example_pool(whole_cases(5))
    nothing = {key: np.zeros_like(value) for key, value in pool.scores.items()}
    pool = example_pool(whole_cases(5), scores=nothing, class_scores=np.zeros((5, 3)), foreground=np.zeros((5, 3)))
    pool = replace(pool, border=np.zeros((5, 3)), features={key: np.zeros((5, f)) for key, f in FEATURE_SIZES.items()})
    assert len(set(find_strategy(name).query(pool, 3, 0))) == 3


@pytest.mark.parametrize("name", NAMES)
def test_refused(name):
    pool = example_pool(whole_cases(3))
    with pytest.raises(LimitedError, match="budget 0"):
        find_strategy(name).query(pool, 0, 0)
    blocked = example_pool(whole_cases(3), blocked=whole_cases(3))
    with pytest.raises(LimitedError, match="no window is left"):
        find_strategy(name).query(blocked, 1, 0)
    strategy = find_strategy(name)
    if strategy.needs_model or strategy.needs_foreground or strategy.features:
        with pytest.raises(LimitedError, match="this strategy needs"):
            find_strategy(name).query(Pool(whole_cases(3)), 1, 0)


@pytest.mark.parametrize("what", ["scores", "features", "class_scores", "foreground", "border"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_pool_refuses_what_is_no_number(what, value):
    pool = example_pool(whole_cases(3))
    broken = getattr(pool, what)
    array = broken if isinstance(broken, np.ndarray) else next(iter(broken.values()))
    array[1] = value
    with pytest.raises(LimitedError, match=r"case_001.*not finite"):
        example_pool(whole_cases(3), **{what: broken})


def test_a_pool_refuses_arrays_of_another_length():
    with pytest.raises(LimitedError, match="2 rows for 3 windows"):
        example_pool(whole_cases(3), scores={"entropy": np.ones(2)})


def test_an_unknown_strategy_is_refused():
    with pytest.raises(LimitedError, match="'entropi' is none of badge, bald"):
        find_strategy("entropi")


# ---- each strategy ---------------------------------------------------------------------------------------------------


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


def test_a_strategy_of_another_package(monkeypatch):
    random = type(find_strategy("random"))

    def load():
        class Mine(random):
            name = "mine"

    found = {"nnunet_limited.query_strategies": [SimpleNamespace(load=load)]}
    monkeypatch.setattr(registry, "entry_points", lambda group: found[group])
    monkeypatch.setattr(base, "STRATEGIES", dict(base.STRATEGIES))
    monkeypatch.setattr(registry, "STRATEGIES", base.STRATEGIES)
    registry._load.cache_clear()
    assert find_strategy("mine").name == "mine"
    assert "mine" not in NAMES
    registry._load.cache_clear()


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


def test_every_strategy_has_a_source() -> None:
    own = {"random", "random_stratified", "entropy", "expected_entropy"}
    for name, strategy in strategies().items():
        assert strategy.__doc__
        assert (
            name in own
            or any(str(year) in strategy.__doc__ for year in (1992, 1994, 2001, *range(2011, 2027)))
            or ("arXiv" in strategy.__doc__)
        )
