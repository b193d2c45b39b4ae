"""What every query strategy keeps to, those of other packages included."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pools import whole_cases

from nnunet_limited.errors import LimitedError
from nnunet_limited.losses.label_space import ClassLabels
from nnunet_limited.queries.aggregation import Prediction, summarize
from nnunet_limited.queries.pool import Pool
from nnunet_limited.queries.request import STRATEGY_NAMES
from nnunet_limited.queries.strategies import base, registry
from nnunet_limited.queries.strategies.base import Strategy
from nnunet_limited.queries.strategies.ranking import TopScore
from nnunet_limited.queries.strategies.registry import find_strategy, strategies
from nnunet_limited.queries.uncertainty import VOXEL_SCORES, average, entropy
from nnunet_limited.queries.windows import MapExtent, WindowGrid
from nnunet_limited.testing import FEATURE_SIZES, check_strategy, example_pool

NAMES = list(strategies())

CLASSES = ClassLabels(((0,), (1,)))


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
    with pytest.raises(LimitedError, match="no case, slice or patch is left"):
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


def test_every_strategy_has_a_source() -> None:
    own = {"random", "random_stratified", "entropy", "expected_entropy"}
    for name, strategy in strategies().items():
        assert strategy.__doc__
        assert (
            name in own
            or any(str(year) in strategy.__doc__ for year in (1992, 1994, 2001, *range(2011, 2027)))
            or ("arXiv" in strategy.__doc__)
        )


def test_the_help_names_every_strategy() -> None:
    assert list(STRATEGY_NAMES) == NAMES
