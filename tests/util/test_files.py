"""Files and folders that several processes work on."""

from __future__ import annotations

import codecs
import threading
from pathlib import Path

import pytest

from nnunet_limited.annotations.importers.tables import POINT_COLUMNS, read_table
from nnunet_limited.errors import LimitedError
from nnunet_limited.splits.request import SplitRequest
from nnunet_limited.studies.engine.study_file import StudyFile, read_study
from nnunet_limited.util.files import read_json
from nnunet_limited.util.locks import one_at_a_time


def test_one_at_a_time_waits_for_the_other(tmp_path: Path) -> None:
    seen, inside = [], threading.Event()

    def second() -> None:
        inside.wait()
        with one_at_a_time(tmp_path / "shared"):
            seen.append("second")

    other = threading.Thread(target=second)
    other.start()
    with one_at_a_time(tmp_path / "shared"):
        inside.set()
        other.join(0.3)
        assert other.is_alive()
        seen.append("first")
    other.join()
    assert seen == ["first", "second"]
    assert (tmp_path / ".shared.lock").stat().st_mode & 0o777 == 0o666  # others of a group can take it too


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"a": 1}'.encode("utf-16"), "is not UTF-8 text"),
        ('{"ä": 1}'.encode("latin-1"), "is not UTF-8 text"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "key 'b' stands twice"),
        (b"[" * 200_000, "too many brackets"),
        (b"{'a': 1}", "is not readable JSON"),
    ],
)
def test_json_that_would_be_understood_otherwise_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(LimitedError, match=reason):
        read_json(tmp_path / "a.json", "file", "write it again")


def test_a_byte_order_mark_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(codecs.BOM_UTF8 + b'{"a": 1}')
    assert read_json(tmp_path / "a.json", "file", "write it again") == {"a": 1}
    (tmp_path / "cases.txt").write_bytes(codecs.BOM_UTF8 + b"a\r\nb\r\n")
    request = SplitRequest(name="x", labeled_cases=tmp_path / "cases.txt")  # type: ignore[arg-type]
    assert request.labeled_cases == ("a", "b")
    (tmp_path / "a.csv").write_bytes(codecs.BOM_UTF8 + b"case,class,x,y,z\na,1,1,2,3\n")
    assert read_table(tmp_path / "a.csv", POINT_COLUMNS)[0]["case"] == "a"
    (tmp_path / "study.yaml").write_bytes(codecs.BOM_UTF8 + b"name: mine\n")
    assert read_study(tmp_path / "study.yaml", StudyFile).name == "mine"
