"""Splits of published comparisons: the papers list the labelled cases."""

from pathlib import Path
from typing import Any, TypeGuard

from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.splits.check import Fold, Split, parse_folds, split_name
from nnunet_limited.splits.groups import check_pattern, grouped
from nnunet_limited.util.files import file_hash, read_object

FORMAT = "give a JSON object with 'train', a list of cases in the published order, and perhaps 'val'"


def make_published_split(
    dataset: RawDataset, name: str, file: Path, labeled: str | None, group_by: str | None = None
) -> Split:
    """Return the one fold of a published split.

    ``train`` (or ``train_order``) lists cases, of which the first ``labeled`` are labelled, or those of the patients
    that ``labelled_patients`` lists for that number; None labels them all. ``val`` lists the validation cases; where
    none are published, they are the last fifth of the order, which no table labels. Cases of the dataset that are not
    listed are left out. ``group_by`` changes no fold: it is checked and recorded.

    Raises LimitedError for a file of another form, for cases that the dataset does not have or has no label of, for
    a number of labelled cases that the file does not know, and for a patient (by ``group_by``) in two parts of it.
    """
    split_name(name)
    fold = published_fold(read_object(file, "published split", FORMAT), labeled, file)
    for case in (*fold.train, *fold.val, *fold.unlabeled):
        if case not in dataset.cases:
            raise LimitedError(f"{file} lists case {case!r}, which {dataset.folder} does not have; correct one of them")
    for case in (*fold.train, *fold.val):
        if dataset.cases[case].label is None:
            raise LimitedError(f"{file} uses the label of {case!r}, which {dataset.folder} does not have; add it")
    _refuse_torn(dataset, fold, group_by, file, labeled)
    info: dict[str, Any] = {"dataset": dataset.name, "protocol": "published", "labeled": labeled}
    info |= {"published": file_hash(file), "group_by": group_by}
    split = Split(name, dataset.name, (fold,), info)
    parse_folds([vars(fold)], file)
    return Split(name, dataset.name, (fold,), {**info, "hash": split.hash})


def _refuse_torn(dataset: RawDataset, fold: Fold, group_by: str | None, file: Path, labeled: str | None) -> None:
    """Refuse a fold that separates the cases of a patient."""
    if group_by is None:
        return
    check_pattern(list(dataset.cases), group_by)
    for name, cases in grouped(list(dataset.cases), group_by).items():
        train, val, hidden = (sorted({*cases} & {*part}) for part in (fold.train, fold.val, fold.unlabeled))
        if val and (train or hidden):
            raise LimitedError(
                f"{file} trains on {(train + hidden)[0]!r} and validates on {val[0]!r}, both of patient {name!r} by "
                f"--group-by {group_by}; correct one of them"
            )
        if train and hidden:
            raise LimitedError(
                f"--labeled {labeled}: in {file} {train[0]!r} would be labelled and {hidden[0]!r} would not, both of "
                f"patient {name!r} by --group-by {group_by}; give a number that keeps them together, or remove "
                "--group-by"
            )


def published_fold(content: dict[str, Any], labeled: str | None, file: Path) -> Fold:
    """Return the fold of a published split; see :func:`make_published_split`."""
    order = content.get("train") or content.get("train_order")
    if not _is_list(order) or len(order) < 2:
        raise LimitedError(f"{file} lists no cases to train on; {FORMAT}")
    val = content.get("val") or order[-max(1, len(order) // 5) :]
    if not _is_list(val):
        raise LimitedError(f"{file}: 'val' is {val!r:.60}; write a list of cases, or remove it")
    training = [case for case in order if case not in set(val)]
    patients = content.get("labelled_patients", {})
    if not isinstance(patients, dict) or not all(map(_is_list, patients.values())):
        raise LimitedError(f"{file}: 'labelled_patients' is {patients!r:.60}; write a list of patients for each number")
    if labeled is None:
        train = training
    elif labeled in patients:
        train = [case for case in training if any(case.startswith(f"{patient}_") for patient in patients[labeled])]
    elif patients:
        raise LimitedError(f"--labeled {labeled}: {file} lists labelled patients of {', '.join(patients)}; take one")
    elif not labeled.isdecimal() or not 1 <= int(labeled) <= len(training):
        raise LimitedError(f"--labeled {labeled}: {file} has {len(training)} cases to train on; give 1 to that many")
    else:
        train = training[: int(labeled)]
    hidden = [case for case in training if case not in set(train)]
    return Fold(tuple(sorted(train)), tuple(sorted(val)), tuple(sorted(hidden)))


def published_partition(split: Split) -> list[dict[str, list[str]]]:
    """Return ``splits_final.json`` of a published split, with all labels of its training cases."""
    fold = split.folds[0]
    return [{"train": sorted((*fold.train, *fold.unlabeled)), "val": list(fold.val)}]


def _is_list(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
