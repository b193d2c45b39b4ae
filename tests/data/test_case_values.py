"""Numbers about preprocessed cases are computed once and again when the case has changed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from nnunet_limited.data.case_values import values_of_cases


def size_of(folder: Path, case: str) -> np.ndarray:
    """Return the size of the image; each call leaves a line behind."""
    with (folder / "calls").open("a") as calls:
        calls.write(f"{case}\n")
    return np.array([float((folder / f"{case}.b2nd").stat().st_size)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "cases"
    made.mkdir()
    for number, case in enumerate("abc", 1):
        (made / f"{case}.b2nd").write_bytes(b"x" * number)
        (made / f"{case}_seg.b2nd").write_bytes(b"")
    return made


def calls(folder: Path) -> list[str]:
    file = folder / "calls"
    lines = file.read_text().split() if file.is_file() else []
    file.unlink(missing_ok=True)
    return lines


def sizes(folder: Path, cases: str, pool_from: int = 10) -> list[float]:
    return [float(v[0]) for v in values_of_cases(size_of, folder, list(cases), "sizes", "Counting", pool_from)]


def test_cases_are_read_once(folder: Path) -> None:
    assert sizes(folder, "ba") == [2, 1]
    assert calls(folder) == ["b", "a"]
    assert sizes(folder, "abc") == [1, 2, 3]
    assert calls(folder) == ["c"]
    assert sizes(folder, "") == []
    assert sorted(file.name for file in (folder.parent / "cases_sizes").iterdir()) == ["a.npz", "b.npz", "c.npz"]


def test_changed_cases_are_read_again(folder: Path) -> None:
    sizes(folder, "abc")
    calls(folder)
    (folder / "b.b2nd").write_bytes(b"xxxxx")
    os.utime(folder / "c_seg.b2nd", (1, 1))  # older than before: a link to another file
    assert sizes(folder, "abc") == [1, 5, 3]
    assert calls(folder) == ["b", "c"]


def test_nothing_is_stored_where_nothing_can_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    assert sizes(folder, "ab") == [1, 2]
    assert sizes(folder, "ab") == [1, 2]
    assert calls(folder) == ["a", "b"] * 2
    assert not (folder.parent / "cases_sizes").exists()
