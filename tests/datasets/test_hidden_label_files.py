"""Labels of cases that no fold may see: whatever lies in their place stops no command that need not know them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import DATASET, Variant, write_dataset

from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import preprocessed_folder
from nnunet_limited.planners.fingerprint import inspect_dataset
from nnunet_limited.splits import Split, SplitRequest
from nnunet_limited.splits.make import create_split
from nnunet_limited.util.provenance import DigestCache

ENDING = ".nii.gz"
PLACES: dict[str, Callable[[Path], object]] = {
    "nothing": lambda file: None,
    "garbage": lambda file: file.write_bytes(b"no label"),
    "0 bytes": Path.touch,
    "a dangling link": lambda file: file.symlink_to("gone.nii.gz"),
    "a link to itself": lambda file: file.symlink_to(file.name),
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,  # opening it would never end
}


def made(name: str) -> Split:
    """Make a split of two labelled cases without reading labels, over one that is there."""
    request = SplitRequest(name=name, labeled="2", protocol="deployment", cover="none")
    return create_split(RawDataset.load(DATASET), request, replace=True)[0]


def caches() -> tuple[Path, DigestCache]:
    folder = preprocessed_folder(DATASET)
    return folder / "inspections.json", DigestCache(folder / "digests.json")


def listed(folder: Path) -> None:
    """List the cases in dataset.json, as a view does."""
    file = folder / "dataset.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    names = sorted(label.name.removesuffix(ENDING) for label in (folder / "labelsTr").iterdir())
    content["dataset"] = {
        case: {"images": [f"imagesTr/{case}_0000{ENDING}"], "label": f"labelsTr/{case}{ENDING}"} for case in names
    }
    file.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("in_description", [False, True])
def test_what_lies_in_place_of_a_hidden_label_stops_nothing(
    folders: Path, monkeypatch: pytest.MonkeyPatch, place: str, in_description: bool
) -> None:
    write_dataset(folders / "raw", Variant(cases=5))
    raw = folders / "raw" / DATASET
    if in_description:
        listed(raw)
    split = made("s")
    hidden = [raw / f"labelsTr/{case}{ENDING}" for case in split.unlabeled]
    assert len(hidden) == 3
    assert not {*split.unlabeled} & {*split.labeled, *split.validation}
    for file in hidden:
        file.unlink()
        PLACES[place](file)
    inspections, unusable = inspect_dataset(RawDataset.load(DATASET), split, 1, *caches())
    assert len(inspections) == 5
    assert not unusable
    if in_description or place != "nothing":  # else two cases of the dataset have a label, and all of them are drawn
        assert made("t").folds == split.folds


@pytest.mark.parametrize("place", [place for place in PLACES if place not in ("garbage", "0 bytes", "nothing")])
def test_a_label_that_is_used_must_be_a_file(folders: Path, place: str) -> None:
    write_dataset(folders / "raw", Variant(cases=5))
    split = made("s")
    file = folders / "raw" / DATASET / f"labelsTr/{split.folds[0].val[0]}{ENDING}"
    file.unlink()
    PLACES[place](file)
    before = sorted(folders.rglob("*"))
    with pytest.raises(LimitedError, match=rf"label .*{file.name} is a .*; (correct it|replace it by the file)"):
        made("t")
    assert sorted(folders.rglob("*")) == before
    dataset = RawDataset.load(DATASET)
    with pytest.raises(LimitedError, match=rf"{file.name} is a .*labelled in split 's'"):
        inspect_dataset(dataset, split, 1, *caches())
