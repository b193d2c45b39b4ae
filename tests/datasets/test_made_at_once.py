"""Two commands at once, and files that vanish: a split or a dataset is that of one command, and whole."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from helpers import DATASET, VARIANTS, command, read, write_dataset
from processes import other_process
from rounds import write

from nnunet_limited.datasets import derived
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.splits import SplitRequest, load_split
from nnunet_limited.splits.make import create_split

OUT = "Dataset761_Sparse"
COMMANDS = {
    "sparsify": ["sparsify", DATASET, "--kind", "points"],
    "import": ["import-labels", DATASET, "--labels", "{raw}/drawn", "--unlabeled", "255"],
}


@pytest.fixture
def raw(folders: Path) -> Path:
    folder = write_dataset(folders / "raw", VARIANTS["2d"])
    shutil.rmtree(folder / "labelsBoxes")
    shutil.copytree(folder / "labelsTr", folder / "drawn")
    file = folder / "drawn" / "case_00.nii.gz"
    label = read(file)
    label[0] = 255
    write(label, file, file)
    return folder


def words(name: str, raw: Path) -> list[str]:
    return [word.replace("{raw}", str(raw)) for word in COMMANDS[name]]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_dataset_that_another_command_makes(name: str, raw: Path, capsys) -> None:
    with other_process(raw.with_name(OUT[:10])):
        for out in (OUT, OUT.replace("Sparse", "Other")):
            assert command(*words(name, raw), "--out", out) == 2
            assert f"{OUT[:10]} is in use by 'nnunet-limited plan 701" in capsys.readouterr().err
    assert [folder.name for folder in sorted(raw.parent.iterdir()) if folder.is_dir()] == [DATASET]
    assert command(*words(name, raw), "--out", OUT) == 0
    assert command(*words(name, raw), "--out", OUT.replace("Sparse", "Other")) == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_a_dataset_that_lacks_a_label_does_not_appear(name: str, raw: Path, capsys, monkeypatch) -> None:
    run_all = derived.run_all

    def lose(function: Any, tasks: Any, *more: Any) -> Any:
        found = run_all(function, tasks, *more)
        tasks[-1][1].unlink()
        return found

    monkeypatch.setattr(derived, "run_all", lose)
    assert command(*words(name, raw), "--out", OUT) == 2
    assert "case_07.nii.gz is missing, which was written a moment ago" in capsys.readouterr().err
    assert [folder.name for folder in sorted(raw.parent.iterdir()) if folder.is_dir()] == [DATASET]


def test_what_a_killed_command_left_is_not_in_the_dataset(raw: Path) -> None:
    scratch = raw.with_name(f".{OUT}.tmp")
    (scratch / "labelsSparse").mkdir(parents=True)
    (scratch / "labelsSparse" / "other.nii.gz").touch()
    assert command(*words("sparsify", raw), "--out", OUT) == 0
    assert not scratch.exists()
    assert not (raw.with_name(OUT) / "labelsSparse" / "other.nii.gz").exists()


def test_a_split_waits_for_another_one_and_has_its_partition(raw: Path, folders: Path, monkeypatch) -> None:
    preprocessed, lines = folders / "preprocessed" / DATASET, []
    request = SplitRequest(name="b", seed=3, labeled="2", folds=2)
    with other_process(preprocessed, "alone(place, 'splits')") as process:
        monkeypatch.setattr("nnunet_limited.util.locks.print", lambda line, **_: lines.append(line), raising=False)
        second = threading.Thread(target=create_split, args=(RawDataset.load(DATASET), request))
        second.start()
        second.join(3)
        assert second.is_alive()
        cases = sorted(RawDataset.load(DATASET).cases)
        partition = [{"train": cases[2:], "val": cases[:2]}, {"train": cases[:2], "val": cases[2:]}]
        preprocessed.mkdir()
        (preprocessed / "splits_final.json").write_text(json.dumps(partition), encoding="utf-8")
        process.kill()
        second.join(20)
    assert [sorted(fold.val) for fold in load_split(preprocessed, "b").folds] == [cases[:2], cases[2:]]
    assert len(lines) == 1
    assert lines[0].startswith(f"waiting for {preprocessed}, in use by 'nnunet-limited plan 701 --split 'a b''")


def test_a_file_that_ends_early_is_no_interruption(raw: Path, capsys, monkeypatch) -> None:
    def read(*_: Any) -> None:
        raise EOFError("Ran out of input")

    monkeypatch.setattr("nnunet_limited.datasets.raw.RawDataset.load", read)
    monkeypatch.setattr(sys, "argv", ["nnunet-limited", "split", DATASET, "--name", "a"])
    from nnunet_limited.cli.main import main

    with pytest.raises(EOFError, match="Ran out of input"):
        main()
    assert "interrupted" not in capsys.readouterr().err


def test_a_full_disk_is_one_line_wherever_it_is_met(raw: Path, capsys, monkeypatch) -> None:
    def read(*_: Any) -> None:
        raise OSError(28, "No space left on device", "/some/file")

    monkeypatch.setattr("nnunet_limited.datasets.raw.RawDataset.load", read)
    assert command("split", DATASET, "--name", "a") == 2
    assert capsys.readouterr().err.startswith("error: /some/file cannot be written (No space left on device); free")
