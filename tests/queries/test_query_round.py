"""A query that was interrupted is continued."""

from __future__ import annotations

from pathlib import Path

import pytest
from rounds import ask, request

from nnunet_limited.errors import LimitedError
from nnunet_limited.queries.query_round import SCORES, open_round
from nnunet_limited.queries.record import load_round
from nnunet_limited.queries.score import score_cases


@pytest.mark.slow
def test_an_interrupted_query_is_continued(models, tmp_path: Path, monkeypatch) -> None:
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
