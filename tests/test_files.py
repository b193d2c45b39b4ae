"""Files and folders that several processes work on."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from nnunet_limited.util.files import one_at_a_time


def test_one_at_a_time_waits_for_the_other(tmp_path: Path) -> None:
    seen = []

    def work(name: str) -> None:
        with one_at_a_time(tmp_path / "shared"):
            seen.append(name)
            time.sleep(0.2)
            seen.append(name)

    workers = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert "".join(seen) in ("aabb", "bbaa")
    assert (tmp_path / ".shared.lock").stat().st_mode & 0o777 == 0o666  # others of a group can take it too
