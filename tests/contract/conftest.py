"""The world of the contract: no hidden label can be read, and none is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from helpers import Workspace
from hidden_labels import Watch, traps
from worlds import planned


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Workspace]:
    """Return a function that gives each variant's workspace, hidden labels and all."""
    return planned(tmp_path_factory, hide=False)


@pytest.fixture(scope="session")
def _spoiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Callable[[str], Workspace], dict[str, Watch]]:
    get, watches = planned(tmp_path_factory, hide=True), {}

    def watched(variant: str) -> Workspace:
        workspace = get(variant)
        if variant not in watches:
            watches[variant] = Watch(traps(workspace))
        return workspace

    return watched, watches


@pytest.fixture
def workspaces(_spoiled) -> Iterator[Callable[[str], Workspace]]:
    """Return a function that gives each variant's workspace with its hidden labels spoiled before it was planned.

    A test that opens what is in their place fails, in whichever process.
    """
    get, watches = _spoiled
    yield get
    opened = [str(file) for watch in watches.values() for file in watch.opened()]
    assert not opened, f"hidden labels were opened: {opened}"
