"""Files and folders that several processes work on."""

from __future__ import annotations

import threading
from pathlib import Path

from nnunet_limited.util.files import one_at_a_time


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
