"""Children end with a parent that is killed, and their children too."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_limited.util.children import as_run, is_running, start_of, tied

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs signals of POSIX")
MODULE = "nnunet_limited.util.children"
SLEEP = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
INNER = f"import subprocess, sys; from {MODULE} import tied; subprocess.run(tied([sys.executable, '-c', {SLEEP!r}]))"
# Each starts a process that prints its id, and waits.
PARENTS = {
    "child": f"subprocess.run(tied([sys.executable, '-c', {SLEEP!r}]))",
    "program": "subprocess.run(tied(['sh', '-c', 'echo $$; exec sleep 60']))",
    "child of a child": f"subprocess.run(tied([sys.executable, '-c', {INNER!r}]))",
    "fork": f"tie_forks(); os.fork() or exec({SLEEP!r}); os.wait()",
    "job of a study": (
        "subprocess.run(['sh', '-c', 'sleep 60 & exec \"$@\"', 'sh', sys.executable, '-c', 'from "
        f"nnunet_limited.util.children import end_with_run; end_with_run(); {SLEEP}'], env=as_run(os.environ))"
    ),
    "watched": f"children.sys.platform = 'other'; sys.exit(subprocess.run(tied([sys.executable, '-c', {SLEEP!r}])))",
}


def ended(process: int, seconds: float = 10.0) -> bool:
    """Return whether a process ends, or is a zombie, within some seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        if not is_running(process) or state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", PARENTS)
def test_a_child_ends_with_a_parent_that_is_killed(kind: str) -> None:
    code = "import os, subprocess, sys; from nnunet_limited.util import children\n"
    code += f"from nnunet_limited.util.children import as_run, tie_forks, tied\n{PARENTS[kind]}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert child != parent.pid
        assert is_running(child)
        parent.kill()
        parent.wait()
        assert ended(child)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "pool.py"
    script.write_text(
        encoding="utf-8",
        data="import os, time\nfrom nnunet_limited.util.parallel import run_all\n"
        "def work(n):\n    print(os.getpid(), flush=True)\n    time.sleep(60)\n"
        "if __name__ == '__main__':\n    run_all(work, [(0,), (1,)], 2, 'Working')\n",
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(parent.stdout.readline()) for _ in range(2)]
        parent.kill()
        parent.wait()
        assert all(map(ended, workers))


def test_status_and_output_of_a_child_are_those_of_the_command() -> None:
    done = subprocess.run(
        tied([sys.executable, "-c", "print('x'); raise SystemExit(3)"]), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (3, "x\n")
    absent = subprocess.run(tied(["no-such-program"]), capture_output=True, text=True)
    assert absent.returncode == 127
    assert absent.stderr == "no-such-program: No such file or directory\n"
    killed = subprocess.run(tied(["sh", "-c", "kill -TERM $$"]), check=False)
    assert killed.returncode == -signal.SIGTERM


@pytest.mark.parametrize(
    "change",
    [
        lambda run: "",
        lambda run: "elsewhere " + run.split(" ", 1)[1],  # a job of a cluster
        lambda run: run.split(" ")[0],
        lambda run: f"{run.split(' ')[0]} x y",
    ],
)
def test_a_job_that_belongs_to_no_run_here_goes_its_way(change: Callable[[str], str]) -> None:
    variables = as_run(os.environ)
    variables["NNUNET_LIMITED_RUN"] = change(variables["NNUNET_LIMITED_RUN"])
    code = (
        "from nnunet_limited.util.children import end_with_run; end_with_run(); import time; time.sleep(1.5); print(1)"
    )
    assert subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True).stdout == b"1\n"


def test_a_later_process_of_the_same_number_is_another_one() -> None:
    variables = {**os.environ, "NNUNET_LIMITED_RUN": f"{os.uname().nodename} {os.getpid()} 1"}
    code = "from nnunet_limited.util.children import end_with_run; end_with_run(); import time; time.sleep(20)"
    if start_of(os.getpid()):
        assert subprocess.run([sys.executable, "-c", code], env=variables).returncode == -signal.SIGKILL
