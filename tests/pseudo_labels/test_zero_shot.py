"""A promptable model is tried on labelled cases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import DATASET, command, read
from shapes import TINY_SAM

from nnunet_limited.datasets.raw import RawDataset


def test_zero_shot_shows_what_a_model_can_do(workspaces, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    workspaces("regions")
    words = ("zero-shot", DATASET, f"sam:{TINY_SAM}", "--out", str(tmp_path / "out"), "--every", "2", "-device", "cpu")
    assert command(*words, "--cases", "2", "--json") == 0
    printed = json.loads(capfd.readouterr().out)
    box = {row["class"]: row for row in printed["rows"] if row["prompt"] == "box"}
    assert set(box) == {"whole", "core"}
    assert 0.8 < box["whole"]["dice"] <= box["whole"]["largest"] <= 1
    assert (tmp_path / "out" / "table.csv").read_text(encoding="utf-8").count("\n") == 1 + len(printed["rows"])
    files = sorted((tmp_path / "out" / "cases").iterdir())
    one = json.loads(files[0].read_text(encoding="utf-8"))
    label = read(RawDataset.load(DATASET).cases[one["case"]].label)
    assert one["images"] == len(np.flatnonzero((label > 0).any((1, 2)))[::2])
    assert len(list((tmp_path / "out" / "pictures").glob("*.png"))) == len(files) == 2
    times = [file.stat().st_mtime_ns for file in files]
    assert command(*words, "--cases", "3") == 0  # two are there
    assert [file.stat().st_mtime_ns for file in files] == times
    assert len(list((tmp_path / "out" / "cases").iterdir())) == 3
