"""A call of absorb that was killed is finished by the next one; one that has ended is not done again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import DATASET, command, read
from processes import other_process
from rounds import write

from nnunet_limited.datasets import derived
from nnunet_limited.errors import LimitedError
from nnunet_limited.queries import absorb
from nnunet_limited.queries.record import load_round

OUT = "Dataset703_Cold"


class Killed(BaseException):
    """A process that ends without cleaning up."""


@pytest.fixture(scope="module")
def asked_once(workspaces, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return nnU-Net's folders with an unlabelled dataset, and a round of two scans whose labels are in ``truths``."""
    workspace, root = workspaces("2d"), tmp_path_factory.mktemp("cold")
    raw = root / "raw" / "Dataset702_Cold"
    (raw / "imagesUn").mkdir(parents=True)
    (root / "preprocessed").mkdir()
    source = workspace.root / "raw" / DATASET
    for number in range(4):
        shutil.copy(source / "imagesTr" / f"case_{number:02d}_0000.nii.gz", raw / "imagesUn")
    shutil.copy(source / "dataset.json", raw)
    shutil.copytree(source / "labelsTr", root / "truths")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("nnUNet_raw", str(root / "raw"))
        patch.setenv("nnUNet_preprocessed", str(root / "preprocessed"))
        assert command("query", "702", "--items", "2", "--out", str(root / "round")) == 0
        assert command("query", "702", "--items", "2", "--out", str(root / "round")) == 0  # it is complete
    return root


@pytest.fixture
def asked(asked_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy in which both scans are annotated."""
    root = Path(shutil.copytree(asked_once, tmp_path / "a"))
    monkeypatch.setenv("nnUNet_raw", str(root / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(root / "preprocessed"))
    for case in load_round(root / "round").cases:
        shutil.copy(root / "truths" / f"{case}.nii.gz", root / "round" / "labels")
    return root


def take(root: Path, *more: str) -> int:
    return command("absorb", str(root / "round"), "--out", OUT, *more)


def made(root: Path) -> dict[str, str]:
    """Return what is on disk of the new dataset."""
    files = [file for name in ("raw", "preprocessed") for file in (root / name).rglob("*") if file.is_file()]
    files = [file for file in files if file.suffix != ".lock" and "702" not in str(file.relative_to(root))]
    content = {str(file.relative_to(root)): file.read_bytes().replace(str(root).encode(), b"") for file in files}
    return {name: hashlib.sha256(value).hexdigest() for name, value in content.items()}


def before(owner: Any, name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Kill before a function is called."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        def kill(*_: Any, **__: Any) -> None:
            raise Killed

        monkeypatch.setattr(owner, name, kill)

    return patch


def after(owner: Any, name: str, calls: int = 1) -> Callable[[pytest.MonkeyPatch], None]:
    """Kill when a function has been called so often."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        do, count = getattr(owner, name), []

        def kill(*words: Any, **more: Any) -> None:
            do(*words, **more)
            count.append(1)
            if len(count) == calls:
                raise Killed

        monkeypatch.setattr(owner, name, kill)

    return patch


MOMENTS = {
    "labels are written": before(derived, "_description"),
    "nothing of the split is there": before(absorb, "_write_split"),
    "its mark is there": after(absorb, "replace_text"),
    "splits_final.json is there": after(absorb.write_split.__globals__["write_json"].__globals__["os"], "replace", 8),
    "the split is there": after(absorb, "write_split"),
    "the dataset is not moved": before(Path, "rename"),
    "the dataset is moved": after(Path, "rename"),
    "all is there": after(absorb, "write_view"),
}


def test_a_killed_call_is_finished_by_the_next_one(asked: Path, tmp_path: Path, monkeypatch) -> None:
    assert take(asked) == 0
    whole = made(asked)
    assert any("splits_r1.info.json" in name for name in whole)
    for moment, patch in MOMENTS.items():
        shutil.rmtree(asked / "raw" / OUT)
        shutil.rmtree(asked / "preprocessed" / OUT)
        with monkeypatch.context() as patched:
            patch(patched)
            patched.setattr(derived.shutil, "rmtree", lambda *_, **__: None)
            with pytest.raises(Killed):
                take(asked)
        there = (asked / "raw" / OUT).is_dir()
        assert not there or (asked / "preprocessed" / OUT / "splits_r1.info.json").is_file(), moment
        assert take(asked) == 0, moment
        assert made(asked) == whole, moment
    assert take(asked) == 0  # nothing is left to do
    assert made(asked) == whole


def test_another_round_or_answer_is_not_taken_for_it(asked: Path, capsys) -> None:
    assert take(asked) == 0
    whole = made(asked)
    assert take(asked, "--name", "other") == 2
    assert "was made from other answers to this round" in capsys.readouterr().err
    file = next((asked / "round" / "labels").iterdir())
    label = read(file)
    label[0, 0, 0] = 1 - label[0, 0, 0]
    write(label, file, file)
    assert take(asked) == 2
    assert "was made from other answers to this round" in capsys.readouterr().err
    queries = asked / "round" / "queries.json"
    content = json.loads(queries.read_text(encoding="utf-8"))
    queries.write_text(json.dumps({**content, "seed": 5}), encoding="utf-8")
    assert take(asked) == 2
    assert f"{OUT} exists; choose another number" in capsys.readouterr().err
    assert made(asked) == whole


def test_two_datasets_of_one_number_are_not_made_at_once(asked: Path, capsys) -> None:
    with other_process(asked / "raw" / OUT[:10]):
        assert take(asked) == 2
        assert "Dataset703 is in use by 'nnunet-limited plan 701" in capsys.readouterr().err
        with pytest.raises(LimitedError, match="Dataset703 is in use by"), derived.making("Dataset703_Other"):
            pass
    assert not (asked / "raw" / OUT).exists()
