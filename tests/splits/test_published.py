"""Published splits: who is labelled is what the file says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import DATASET, Variant, write_dataset

from nnunet_limited.cli.main import main
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.splits import load_split
from nnunet_limited.splits.published import make_published_split, published_fold

ORDER = [f"p{i:02d}_{frame}" for i in range(10) for frame in "ab"]
PATIENTS = {"train_order": ["other"], "train": ORDER, "val": ORDER[:2], "labelled_patients": {"2": ["p01", "p05"]}}


def test_the_first_of_the_order_are_labelled() -> None:
    fold = published_fold({"train_order": ORDER[::-1]}, "3", Path("f.json"))
    assert (fold.train, fold.val) == (("p08_b", "p09_a", "p09_b"), tuple(ORDER[:4]))
    assert set(fold.unlabeled) == set(ORDER) - set(fold.train) - set(fold.val)


def test_listed_patients_are_labelled() -> None:
    fold = published_fold(PATIENTS, "2", Path("f.json"))
    assert fold.train == ("p01_a", "p01_b", "p05_a", "p05_b")
    assert published_fold(PATIENTS, None, Path("f.json")).train == tuple(ORDER[2:])


@pytest.mark.parametrize(
    ("content", "labeled", "message"),
    [
        ({"train": []}, "1", "lists no cases"),
        ({"order": ORDER}, "1", "lists no cases"),
        (PATIENTS, "3", "labelled patients of 2; take one"),
        ({"train": ORDER}, "17", "has 16 cases"),
        ({"train": ORDER}, "10%", "has 16 cases"),
    ],
)
def test_what_the_file_does_not_know_is_refused(content: dict[str, Any], labeled: str, message: str) -> None:
    with pytest.raises(LimitedError, match=rf"f\.json.* {message}|f\.json {message}"):
        published_fold(content, labeled, Path("f.json"))


def test_a_published_split_is_one_like_any_other(folders: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Cases that the file does not list are in no part; stock trainers get the same fold with all labels."""
    write_dataset(folders / "raw", Variant(cases=8))
    order = [f"case_{number:02d}" for number in (3, 1, 5, 0, 2, 6)]
    file = folders / "published.json"
    file.write_text(json.dumps({"train_order": order, "val": ["case_07"]}), encoding="utf-8")
    words = ["nnunet-limited", "split", DATASET, "--name", "p2", "--labeled", "2", "--published", str(file)]

    def status(*more: str) -> Any:
        monkeypatch.setattr("sys.argv", [*words, *more])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    assert status("--folds", "2") == 2
    assert "--published and --folds 2 exclude each other" in capsys.readouterr().err
    assert status("--group-by", r"case_(\d+)") == 0
    assert load_split(folders / "preprocessed" / DATASET, "p2").info["group_by"] == r"case_(\d+)"
    shutil.rmtree(folders / "preprocessed" / DATASET)
    assert status("--group-by", "case_0[0-4]|case") == 2  # 5, 6 and 7 are one patient
    assert "trains on 'case_05' and validates on 'case_07', both of patient 'case'" in capsys.readouterr().err
    assert not (folders / "preprocessed" / DATASET).exists()
    assert status() == 0
    folder = folders / "preprocessed" / DATASET
    (fold,) = json.loads((folder / "splits_p2.json").read_text(encoding="utf-8"))
    assert fold == {"train": ["case_01", "case_03"], "val": ["case_07"], "unlabeled": sorted(order[2:])}
    assert json.loads((folder / "splits_final.json").read_text(encoding="utf-8")) == [
        {"train": sorted(order), "val": ["case_07"]}
    ]

    (folders / "raw" / DATASET / "labelsTr" / "case_03.nii.gz").unlink()
    with pytest.raises(LimitedError, match="uses the label of 'case_03'"):
        make_published_split(RawDataset.load(DATASET), "p", file, "2")
    file.write_text(json.dumps({"train_order": ["case_01", "case_99", "case_02"]}), encoding="utf-8")
    with pytest.raises(LimitedError, match="lists case 'case_99'"):
        make_published_split(RawDataset.load(DATASET), "p", file, "1")
