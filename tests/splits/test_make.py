"""Splits: folds, nesting, groups, classes, protocols."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_limited.datasets.raw import Case, RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.splits import SplitRequest, load_host_split, load_split
from nnunet_limited.splits.make import make_split, write_split

LABELS = {"background": 0, "a": 1, "b": 2}


def dataset(labeled: int = 20, unlabeled: int = 0, names=None) -> RawDataset:
    names = names or [f"case_{i:03d}" for i in range(labeled)]
    cases = {n: Case(n, (Path(f"{n}_0000.nii.gz"),), Path(f"{n}.nii.gz")) for n in names}
    cases |= {f"un_{i}": Case(f"un_{i}", (Path("x"),), None) for i in range(unlabeled)}
    return RawDataset("Dataset001_X", Path("raw"), {"labels": LABELS, "channel_names": {"0": "MRI"}}, cases)


def both(case: str) -> set[int]:
    return {0, 1, 2}


def make(tmp_path: Path, data: RawDataset, classes=both, **request):
    return make_split(data, tmp_path, SplitRequest(name="s", **request), classes)


def test_benchmark_folds_are_the_hosts_and_hide_the_rest(tmp_path: Path) -> None:
    data = dataset(20, 3)
    split, partition = make(tmp_path, data, labeled="4", protocol="benchmark")
    host = generate_crossval_split(data.labeled, seed=12345, n_splits=5)
    assert partition == [sorted(map(str, fold["val"])) for fold in host]
    for fold, part in zip(split.folds, partition, strict=True):
        assert fold.val == tuple(part)
        assert len(fold.train) == 4
        assert sorted([*fold.train, *fold.val, *fold.unlabeled]) == sorted(data.cases)
    assert len(split.never_hidden) in (4, 5)  # planning has about as many labels to see as training


@pytest.mark.parametrize("protocol", ["benchmark", "deployment"])
def test_subsets_are_nested_for_one_seed_and_differ_between_seeds(tmp_path: Path, protocol) -> None:
    data = dataset(40)
    splits = [make(tmp_path, data, labeled=str(n), protocol=protocol)[0] for n in (5, 10, 20)]
    for small, large in itertools.pairwise(splits):
        for a, b in zip(small.folds, large.folds, strict=False):
            assert set(a.train) < set(b.train)
            assert set(a.val) <= set(b.val)
    other = make(tmp_path, data, labeled="10", protocol=protocol, seed=1)[0]
    assert other.labeled != splits[1].labeled
    assert make(tmp_path, data, labeled="10", protocol=protocol)[0].hash == splits[1].hash


def test_deployment_validates_on_labelled_cases_only(tmp_path: Path) -> None:
    split, _ = make(tmp_path, dataset(10, 30))
    assert len(split.folds) == 5
    for fold in split.folds:
        assert (len(fold.train), len(fold.val), len(fold.unlabeled)) == (8, 2, 30)


@pytest.mark.parametrize(("labeled", "folds"), [(1, 1), (2, 2), (4, 4), (7, 5)])
def test_fewer_labelled_cases_than_folds(tmp_path: Path, labeled: int, folds: int) -> None:
    split, partition = make(tmp_path, dataset(labeled, 5), folds=5)
    assert len(split.folds) == folds
    if labeled > 1:
        assert all(not set(fold.train) & set(fold.val) for fold in split.folds)
    write_split(tmp_path, split, partition)
    assert all(
        fold["train"] and fold["val"]
        for fold in json.loads((tmp_path / "splits_final.json").read_text(encoding="utf-8"))
    )


def test_deployment_of_few_among_many_labelled(tmp_path: Path) -> None:
    split, _ = make(tmp_path, dataset(30), labeled="3", protocol="deployment")
    assert len(split.folds) == 3
    for fold in split.folds:
        assert (len(fold.train), len(fold.val), len(fold.unlabeled)) == (2, 1, 27)


def test_percentage_rounds_up_and_groups_stay_together(tmp_path: Path) -> None:
    names = [f"patient{p:02d}_frame{f}" for p in range(10) for f in (1, 2)]
    split, _ = make(tmp_path, dataset(names=names), labeled="30%", group_by=r"patient\d+")
    for fold in split.folds:
        assert len(fold.train) == 6  # 30 % of the 8 patients that the fold does not validate on
        for part in (fold.train, fold.val, fold.unlabeled):
            assert all(c.replace("frame1", "frame2") in part for c in part if "frame1" in c)


def test_every_class_is_labelled_where_possible(tmp_path: Path) -> None:
    data = dataset(20)
    for seed in range(5):
        split, _ = make(
            tmp_path, data, lambda c: {0, 2} if c == "case_013" else {0, 1}, labeled="2", seed=seed, cover="classes"
        )
        for fold in split.folds:
            assert "case_013" in fold.train or "case_013" in fold.val


def test_labels_are_read_only_until_every_class_is_there(tmp_path: Path) -> None:
    read = []
    make(tmp_path, dataset(20), lambda c: read.append(c) or {0, 1, 2}, labeled="4", cover="classes")
    assert 1 <= len(set(read)) <= 2


def test_explicit_lists_are_honoured(tmp_path: Path) -> None:
    chosen = tuple(f"case_{i:03d}" for i in range(6))
    split, _ = make(tmp_path, dataset(20), labeled_cases=chosen, test_cases=("case_019", "case_018"))
    assert set(split.labeled) == set(chosen)
    everything = {c for fold in split.folds for c in (*fold.train, *fold.val, *fold.unlabeled)}
    assert not everything & {"case_018", "case_019"}


def test_one_partition_for_all_splits(tmp_path: Path) -> None:
    data = dataset(20)
    first, partition = make(tmp_path, data, labeled="4", folds=4)
    write_split(tmp_path, first, partition)
    second, _ = make(tmp_path, data, labeled="8", seed=3)
    assert [fold.val for fold in second.folds] == [fold.val for fold in first.folds]
    with pytest.raises(LimitedError, match="--folds 5"):
        make(tmp_path, data, labeled="8", folds=5)
    final = json.loads((tmp_path / "splits_final.json").read_text(encoding="utf-8"))
    assert all(len(fold["train"]) == 15 for fold in final)


def test_a_stock_partition_that_tears_patients_apart_is_refused(tmp_path: Path) -> None:
    names = [f"patient{p:02d}_frame{f}" for p in range(10) for f in (1, 2)]
    data = dataset(names=names)
    write_split(tmp_path, *make(tmp_path, data, labeled="4"))
    with pytest.raises(LimitedError, match="separates cases of group"):
        make(tmp_path, data, labeled="3", group_by=r"patient\d+")


def test_round_trip_and_tampering(tmp_path: Path) -> None:
    folder = tmp_path / "Dataset001_X"
    split, partition = make(folder, dataset(20), labeled="4")
    write_split(folder, split, partition)
    assert load_split(folder, "s") == split
    file = folder / "splits_s.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content[0]["train"].append(content[0]["unlabeled"].pop())
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(LimitedError, match="was changed after it was made"):
        load_split(folder, "s")


def test_hand_written_split(tmp_path: Path) -> None:
    file = tmp_path / "splits_final.json"
    file.write_text(
        json.dumps([{"train": ["a"], "val": ["b"], "unlabeled": ["c"]}, {"train": ["b"], "val": ["a"]}]),
        encoding="utf-8",
    )
    split = load_host_split(tmp_path, ["u"])
    assert split.folds[0].unlabeled == ("c",)
    assert split.folds[1].unlabeled == ("u",)
    file.write_text(json.dumps([{"train": ["a"], "val": ["b"], "unlabeled": ["b"]}]), encoding="utf-8")
    with pytest.raises(LimitedError, match="'b' is in 'unlabeled' and in 'val'"):
        load_host_split(tmp_path, [])


def test_fold_all_trains_on_what_no_fold_hides(tmp_path: Path) -> None:
    split, _ = make(tmp_path, dataset(20), labeled="4", protocol="benchmark")
    fold = split.fold("all")
    assert fold.train == fold.val == tuple(split.never_hidden)
    assert not set(fold.unlabeled) & set(fold.train)
    assert len(fold.train) + len(fold.unlabeled) == 20
