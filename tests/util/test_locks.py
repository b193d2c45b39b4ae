"""Locks: a second process learns who holds one, and that of a killed process is void."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import HOLD, other_process

from nnunet_limited.errors import LimitedError
from nnunet_limited.util import locks
from nnunet_limited.util.files import HOST, clear_abandoned
from nnunet_limited.util.locks import alone, alone_inside, holder_of, is_held, one_at_a_time


def test_who_holds_a_lock_is_named_and_a_killed_holder_does_not_count(tmp_path: Path, capsys) -> None:
    place = tmp_path / "data"
    with other_process(place) as process:
        expected = rf"{place} is in use by 'nnunet-limited plan 701 --split 'a b'' \(process {process.pid} on .*, since"
        with pytest.raises(LimitedError, match=expected), alone(place):
            pass
        process.kill()
        process.wait()
        with alone(place), alone(place):  # at once, and more than once in a process
            assert json.loads((tmp_path / ".data.lock.json").read_text())["process"] == os.getpid()
    assert not (tmp_path / ".data.lock.json").exists()
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs POSIX")
def test_one_that_waits_prints_for_whom(tmp_path: Path, capsys, monkeypatch) -> None:
    """The other one is stopped, as by Ctrl-Z."""
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    place = tmp_path / "data"
    for how, mine in (("one_at_a_time(place)", one_at_a_time(place)), ("alone(place)", alone(place, wait=True))):
        with other_process(place, how) as process:
            process.send_signal(signal.SIGSTOP)
            wait = locks.FileLock.acquire

            def acquire(lock, timeout=None, process=process, wait=wait):
                if timeout is None:  # it waits for good
                    process.kill()
                return wait(lock, timeout=timeout)

            monkeypatch.setattr(locks.FileLock, "acquire", acquire)
            with mine:
                pass
            monkeypatch.undo()
            monkeypatch.setattr(locks, "PATIENCE", 0.1)
        line = capsys.readouterr().err
        assert line.startswith(f"waiting for {place}, in use by 'nnunet-limited plan 701")
        assert line.count("\n") == 1


def test_kinds_of_locks(tmp_path: Path) -> None:
    with other_process(tmp_path / "data", "alone_inside(place, 'running')"):
        assert is_held(tmp_path / "data" / ".running.lock")
        with alone(tmp_path / "data"), alone(tmp_path / "data", "training"), alone_inside(tmp_path / "data", "x"):
            pass
        with pytest.raises(LimitedError, match="is in use by"), alone_inside(tmp_path / "data", "running"):
            pass
    assert not is_held(tmp_path / "data" / ".running.lock")
    assert not is_held(tmp_path / "nowhere" / ".running.lock")


@pytest.mark.parametrize("content", ["", "[", "[]", "{}", '{"command": "x"}', '{"process": 1, "host": "b"}'])
def test_a_record_of_the_holder_that_says_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / ".a.lock.json").write_text(content)
    assert holder_of(tmp_path / ".a.lock") == "another process"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_of_a_killed_holder_does_not_hold(tmp_path: Path) -> None:
    """As processes that load data do, which outlive a killed training for a while."""
    code = HOLD.format(place=str(tmp_path / "data"), how="alone(place)").replace("print", "os.fork() and print")
    command = [sys.executable, "-c", f"import os\n{code}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert is_held(tmp_path / ".data.lock")
    process.kill()
    process.wait()
    try:
        with alone(tmp_path / "data"):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


def test_what_no_process_owns_is_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = [f".a.json.{ended.pid}.tmp", f".a.{ended.pid}-{HOST}.tmp", f".c.nii.gz.{ended.pid}-{HOST}.tmp.nii.gz"]
    dead += [".b.json.77-00000000.tmp"]  # of another machine, and old
    kept = [f".a.json.{os.getpid()}-{HOST}.tmp", f".a.json.{ended.pid}-00000000.tmp"]
    kept += [".x.tmp", "a.1.tmp.txt", ".a.1.tm"]
    for name in (*dead, *kept):
        (tmp_path / name).touch()
    os.utime(tmp_path / dead[-1], (0, time.time() - 1e6))
    with one_at_a_time(tmp_path):
        assert sorted(file.name for file in tmp_path.iterdir()) == sorted(kept)
    clear_abandoned(tmp_path / "nowhere")
