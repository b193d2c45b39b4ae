"""Splits of patients and sites: groups stay together, labelled cases of one site, and which labels are read."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from helpers import DATASET, Variant, command, write_dataset
from test_make import dataset, make

from nnunet_limited.datasets.raw import Case, RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.splits import SplitRequest, load_split
from nnunet_limited.splits.make import create_split, write_split

SITES = [f"{site}{patient:02d}_{scan}" for site in "AB" for patient in range(10) for scan in "12"]


def unreadable(*bad: str):
    """Return a reader of labels that counts what it reads and fails for some cases."""

    def classes_of(case: str) -> set[int]:
        read.append(case)
        if case in bad or "*" in bad:
            raise LimitedError(f"label {case} cannot be read; repair or remove it")
        return {0, 1} if case != "case_013" else {0, 1, 2}

    read: list[str] = []
    return classes_of, read


def with_unlabelled(data: RawDataset, *names: str) -> RawDataset:
    cases = {**data.cases, **{name: Case(name, (Path("x"),), None) for name in names}}
    return RawDataset(data.name, data.folder, data.dataset_json, cases)


@pytest.mark.parametrize("request_", [{"protocol": "benchmark"}, {}, {"cover": "none", "protocol": "deployment"}])
def test_labels_of_a_benchmark_are_not_read(tmp_path: Path, request_) -> None:
    classes_of, read = unreadable("*")
    first = make(tmp_path, dataset(20), classes_of, labeled="2", **request_)[0]
    assert not read
    assert first.info["cover"] == "none"
    rare = make(tmp_path, dataset(20), lambda c: {2} if c == "case_013" else {1}, labeled="2", **request_)[0]
    assert rare.hash == first.hash  # the labels of hidden cases decide nothing


@pytest.mark.parametrize(
    ("request_", "reads"), [({"labeled": "2"}, True), ({}, False), ({"labeled": "100%"}, False)], ids=str
)
def test_classes_are_covered_under_deployment_where_there_is_a_choice(tmp_path: Path, request_, reads) -> None:
    classes_of, read = unreadable()
    split = make(tmp_path, dataset(20, 3), classes_of, **request_)[0]
    assert split.info["cover"] == "classes"
    assert bool(read) == reads
    assert "case_013" in split.labeled


@pytest.mark.parametrize("protocol", ["benchmark", "deployment"])
def test_an_unreadable_hidden_label_stops_no_split(tmp_path: Path, protocol: str) -> None:
    request = {"labeled": "4", "cover": "classes", "protocol": protocol, "seed": 1}
    good, (classes_of, read) = make(tmp_path, dataset(20), unreadable()[0], **request)[0], unreadable()
    make(tmp_path, dataset(20), classes_of, **request)
    hidden = sorted({*read} - {*good.labeled})
    assert hidden  # class 2 is in one case only, so labels of others are read in vain
    assert make(tmp_path, dataset(20), unreadable(*hidden)[0], **request)[0].hash == good.hash
    with pytest.raises(LimitedError, match=r"label case_.* cannot be read; repair"):
        make(tmp_path, dataset(20), unreadable("*")[0], **request)


@pytest.mark.parametrize("names", [["x"], ["p1_a", "p1_b", "p1_c"]])
@pytest.mark.parametrize("others", [(), ("p2_a", "p3_a")])
def test_one_labelled_case_or_patient_is_trained_and_validated_on(tmp_path: Path, names, others) -> None:
    group_by = None if names == ["x"] else r"p\d|x"
    data = with_unlabelled(dataset(names=names), *others)
    if group_by and not others:
        with pytest.raises(LimitedError, match=r"matches all 3 cases as one group.*remove it if all are of one"):
            make(tmp_path, data, group_by=group_by)
        return
    split, partition = make(tmp_path, data, group_by=group_by, folds=5)
    (fold,) = split.folds
    assert fold.train == fold.val == tuple(names)
    assert fold.unlabeled == others
    write_split(tmp_path, split, partition)
    with pytest.raises(LimitedError, match=r"--protocol benchmark .*one labelled (case|patient) only.*remove the opt"):
        make(tmp_path, data, group_by=group_by, protocol="benchmark")


def test_one_case_beside_test_cases(tmp_path: Path) -> None:
    request = {"test_cases": ("b", "c"), "labeled_cases": ("a",)}
    (fold,) = make(tmp_path, dataset(names=["a", "b", "c"]), **request)[0].folds
    assert (fold.train, fold.val, fold.unlabeled) == (("a",), ("a",), ())


@pytest.mark.parametrize("protocol", ["benchmark", "deployment"])
def test_unlabelled_scans_of_a_validated_patient_are_in_no_part(tmp_path: Path, protocol: str) -> None:
    labeled = [f"p{patient}_a" for patient in range(6)]
    data = with_unlabelled(dataset(names=labeled), *(f"p{patient}_b" for patient in range(8)))
    split = make(tmp_path, data, group_by=r"p\d", protocol=protocol, labeled="2", folds=3)[0]
    for fold in split.folds:
        validated = {case[:2] for case in fold.val}
        assert not validated & {case[:2] for case in (*fold.train, *fold.unlabeled)}
        assert {"p6_b", "p7_b"} <= {*fold.unlabeled}
        assert all(f"{case[:2]}_b" in fold.unlabeled for case in fold.train)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"group_by": r"p\d", "test_cases": ("p1_a",)}, "--test-cases separates cases of group 'p1'; add 'p1_b'"),
        ({"group_by": r"p\d_a"}, "--group-by 'p\\\\d_a' does not match case 'p0_b'; widen"),
        ({"labeled_from": "("}, "--labeled-from '(' is not a regular expression"),
        ({"labeled_from": "q"}, "--labeled-from q matches no labelled case, e.g. not case 'p0_a'; write"),
        ({"labeled_from": "_a", "group_by": r"p\d"}, "--labeled-from _a matches no labelled group as a whole"),
        ({"labeled_from": "p*"}, "--labeled-from p* matches every case of raw"),
        ({"labeled_from": "p1", "labeled_cases": ("p0_a",)}, "--labeled-from p1 and --labeled-cases exclude"),
        ({"labeled_from": "p1", "labeled": "3"}, "--labeled 3: there is only 1 labelled case that match"),
        ({"labeled_from": "p1", "labeled": "3", "group_by": r"p\d", "protocol": "deployment"}, "only 1 labelled g"),
        ({"labeled_from": "p1", "group_by": r"p\d"}, "all cases of --labeled-from p1 are validation cases of one fold"),
        ({"labeled_cases": ("p0_a",)}, "all cases of --labeled-cases are validation cases of one fold"),
        ({"labeled_cases": ("p0_a",), "cover": "classes"}, "--cover classes has no effect with --labeled-cases"),
    ],
    ids=str,
)
def test_what_tears_patients_or_sites_is_refused(tmp_path: Path, request_, message: str) -> None:
    data = dataset(names=[f"p{patient}_{scan}" for patient in range(4) for scan in "ab"])
    with pytest.raises(LimitedError, match=re.escape(message)):
        make(tmp_path, data, folds=4, **request_)


@pytest.mark.parametrize("group_by", [None, r"[AB]\d+"])
@pytest.mark.parametrize("protocol", ["benchmark", "deployment"])
def test_labelled_cases_of_one_site(tmp_path: Path, protocol: str, group_by) -> None:
    """They are nested in each other, as without a site; what is validated on is as without it in a benchmark."""
    request = {"labeled_from": "^B", "protocol": protocol, "group_by": group_by, "cover": "none"}
    few, more = (make(tmp_path, dataset(names=SITES), labeled=n, **request)[0] for n in ("3", "50%"))
    assert len(few.folds) == len(more.folds) or protocol == "deployment"
    assert {case[0] for case in more.labeled} == {"B"}
    assert {case[0] for case in more.unlabeled} == {"A", "B"}
    assert {*few.labeled} < {*more.labeled}
    if protocol == "benchmark":
        plain = make(tmp_path, dataset(names=SITES), group_by=group_by)[0]
        assert [fold.val for fold in more.folds] == [fold.val for fold in plain.folds]
        assert all(len(fold.train) == (6 if group_by else 3) for fold in few.folds)
    else:
        assert {case[0] for case in more.validation} == {"B"}


def test_classes_are_covered_within_a_site(tmp_path: Path) -> None:
    data = dataset(names=SITES)
    classes_of = {"A00_1": {2}, "B07_2": {2}}
    split = make(tmp_path, data, lambda c: classes_of.get(c, {1}), labeled="2", labeled_from="B", cover="classes")[0]
    assert all("B07_2" in (*fold.train, *fold.val) for fold in split.folds)


def test_cases_of_one_part_of_the_partition_are_validated_in_parts_of_their_own(tmp_path: Path) -> None:
    data = dataset(20)
    plain, partition = make(tmp_path, data)
    write_split(tmp_path, plain, partition)
    one = tuple(partition[2])
    split, same = make(tmp_path, data, labeled_cases=one, protocol="deployment")
    assert same == partition
    assert len(split.folds) == len(one) == 4
    assert sorted(case for fold in split.folds for case in fold.val) == sorted(one)
    assert all(not {*fold.train} & {*fold.val} for fold in split.folds)


@pytest.mark.parametrize("option", [{"cover": "classes"}, {"labeled_from": "a"}])
def test_a_published_order_decides_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    request = SplitRequest(name="s", published=tmp_path / "no.json", **option)
    with pytest.raises(LimitedError, match=r"--published and --(cover classes|labeled-from a) exclude each other"):
        create_split(dataset(6), request)
    with pytest.raises(LimitedError, match=r"no\.json does not exist"):
        create_split(dataset(6), SplitRequest(name="s", published=tmp_path / "no.json", cover="none"))


@pytest.mark.parametrize(("unlabeled", "group_by"), [(0, None), (3, None), (3, r"p\d")])
def test_one_labelled_scan_or_patient_is_enough(folders: Path, capsys, unlabeled: int, group_by) -> None:
    """As after import-labels of one scan, and with all labelled scans of one patient."""
    labeled = 1 if group_by is None else 2
    raw = write_dataset(folders / "raw", Variant(cases=labeled + unlabeled))
    shutil.rmtree(raw / "labelsBoxes")
    if unlabeled:
        (raw / "imagesUn").mkdir()
    for number in range(labeled + unlabeled):
        name = f"case_{number:02d}"
        image, label = raw / f"imagesTr/{name}_0000.nii.gz", raw / f"labelsTr/{name}.nii.gz"
        if number >= labeled:
            label.unlink()
            image.rename(raw / f"imagesUn/p{number}_0000.nii.gz")
        elif group_by is not None:
            image.rename(image.with_name(f"p9_{image.name}"))
            label.rename(label.with_name(f"p9_{label.name}"))
    words = ["--group-by", group_by] if group_by else []
    assert command("split", DATASET, "--name", "s", *words) == 0
    printed = capsys.readouterr().out
    assert f"The only labelled {'patient' if group_by else 'case'} is used for training and validation" in printed
    (fold,) = load_split(folders / "preprocessed" / DATASET, "s").folds
    assert fold.train == fold.val
    assert len(fold.unlabeled) == unlabeled


@pytest.mark.parametrize("spoilt", [b"", b"no label", b"\x1f\x8b\x08\x00half a file"])
def test_hidden_labels_may_be_of_any_content(folders: Path, capsys, spoilt: bytes) -> None:
    raw = write_dataset(folders / "raw", Variant(cases=8))
    words = ["split", DATASET, "--labeled", "2", "--folds", "3", "--seed", "4"]
    assert command(*words, "--name", "a") == 0
    folder = folders / "preprocessed" / DATASET
    first = load_split(folder, "a")
    for case in {*first.unlabeled} - {*first.labeled}:
        (raw / f"labelsTr/{case}.nii.gz").write_bytes(spoilt)
    assert command(*words, "--name", "b") == 0
    assert load_split(folder, "b").hash == first.hash
    assert "error" not in capsys.readouterr().err
