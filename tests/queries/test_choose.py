"""The budget of a query."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rounds import ask, request

from nnunet_limited.queries.choose import rank_for_minutes, within
from nnunet_limited.queries.pool import Pool
from nnunet_limited.queries.record import Query
from nnunet_limited.queries.strategies.registry import find_strategy
from nnunet_limited.queries.windows import Window


@pytest.mark.slow
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
