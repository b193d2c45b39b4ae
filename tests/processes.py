"""Other processes that hold locks while a test looks on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOLD = """
import sys, time
from pathlib import Path
from nnunet_limited.planners.readers import reading
from nnunet_limited.util.locks import alone, alone_inside, one_at_a_time
sys.argv = ["/x/nnunet_limited/__main__.py", "plan", "701", "--split", "a b"]
place = Path({place!r})
with {how}:
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def other_process(place: Path, how: str = "alone(place)") -> Iterator[subprocess.Popen[str]]:
    """Let another process, which calls itself a plan, hold a lock."""
    code = HOLD.format(place=str(place), how=how)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()
