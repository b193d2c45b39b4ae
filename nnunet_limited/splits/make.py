"""Make a split: one fold partition per dataset, nested labelled subsets, groups kept together."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.annotations.grid import check_whole
from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.host.folders import preprocessed_folder
from nnunet_limited.host.images import OVERWRITE, read_label
from nnunet_limited.host.planning import crossval_folds
from nnunet_limited.splits.check import Fold, Split, info_file, parse_folds, split_file, split_name
from nnunet_limited.splits.groups import Groups, check_pattern, compiled, grouped, members, refuse_torn, within
from nnunet_limited.splits.published import make_published_split, published_partition
from nnunet_limited.splits.request import SplitRequest
from nnunet_limited.util.files import read_json, write_json
from nnunet_limited.util.locks import alone

PARTITION_SEED = 12345  # nnU-Net's own, so that the partition equals the one stock nnU-Net would make


def create_split(dataset: RawDataset, request: SplitRequest, replace: bool = False) -> tuple[Split, list[Path]]:
    """Make the split that is asked for and write it; return it and the files written."""
    if OVERWRITE in dataset.dataset_json:
        dataset.reader()  # it must be able to read an image, of which 'plan' would complain
    with alone(preprocessed_folder(dataset.name), "splits", wait=True):  # the first one makes the partition of all
        return _create_split(dataset, request, replace)


def _create_split(dataset: RawDataset, request: SplitRequest, replace: bool) -> tuple[Split, list[Path]]:
    folder, stock = preprocessed_folder(dataset.name), None
    if request.published is None:
        split, partition = make_split(dataset, folder, request, class_reader(dataset))
        known = partition_file(dataset, folder)
        stock = read_json(known, "split", "repair it") if known.is_file() else None
    else:
        if request.seed:
            raise LimitedError(
                f"--seed {request.seed} has no effect with --published, whose file fixes the labelled cases; remove it"
            )
        for name in ("folds", "protocol", "labeled_from", "labeled_cases", "test_cases", "cover"):
            value = getattr(request, name)
            if value and value != "none":  # a published order covers no classes anyway
                text = ",".join(value) if isinstance(value, tuple) else value
                option = f"--{name.replace('_', '-')} {text}"
                raise LimitedError(f"--published and {option} exclude each other; remove one of them")
        split = make_published_split(dataset, request.name, request.published, request.labeled, request.group_by)
        partition, stock = [list(split.folds[0].val)], published_partition(split)
    dataset.check_labels(sorted({*split.labeled, *split.validation}))
    return split, write_split(folder, split, partition, replace, stock)


def make_split(
    dataset: RawDataset, folder: Path, request: SplitRequest, classes_of: Callable[[str], set[int]]
) -> tuple[Split, list[list[str]]]:
    """Return the split and the dataset's fold partition (validation cases per fold).

    ``folder`` is the preprocessed dataset folder; an existing ``splits_final.json`` there, or else that of the raw
    dataset, fixes the partition.
    ``classes_of(case)`` returns the values in a case's label; it is called only to cover classes, and only until every
    class is covered.
    """
    split_name(request.name)
    check_known(dataset, request.test_cases, "--test-cases")
    check_pattern(list(dataset.cases), request.group_by)
    everyone = grouped(list(dataset.cases), request.group_by)
    refuse_torn(everyone, request.test_cases, "--test-cases")
    everyone = within(everyone, dataset.cases.keys() - {*request.test_cases})
    groups = within(everyone, {*dataset.labeled})
    if not groups and dataset.labeled:
        raise LimitedError(f"--test-cases lists every labelled case of {dataset.folder}; remove some from the list")
    if not groups:
        raise LimitedError(f"{dataset.folder} has no labelled case; put at least one label file into labelsTr")
    protocol = protocol_of(dataset, request, groups)
    cover = request.cover or ("none" if protocol == "benchmark" else "classes")
    partition = fold_partition(partition_file(dataset, folder), groups, request.folds)
    order = seeded_order(partition, groups, request.seed)
    select = selection(dataset, request, groups, classes_of if cover == "classes" else None)
    folds = make_folds(protocol, partition, order, groups, select, everyone)
    if protocol == "deployment" and len(folds) == 1 and len(chosen := select(order)) > 1:
        # All labelled cases are in one part of the partition of all; they are validated in parts of their own.
        own = fold_partition(None, {name: groups[name] for name in chosen}, request.folds)
        folds = make_folds(protocol, own, order, groups, select, everyone)
    split = Split(request.name, dataset.name, tuple(folds), {})
    parse_folds([vars(fold) for fold in folds], split_file(folder, request.name))
    info: dict[str, Any] = {"dataset": dataset.name, "protocol": protocol, "labeled": request.labeled}
    info |= {"labeled_from": request.labeled_from, "cover": cover}
    info |= {"labeled_cases": list(request.labeled_cases), "test_cases": sorted(request.test_cases)}
    info |= {"group_by": request.group_by, "seed": request.seed, "hash": split.hash}
    return Split(split.name, split.dataset, split.folds, info), partition


def protocol_of(dataset: RawDataset, request: SplitRequest, groups: Groups) -> str:
    """Return the protocol that is asked for, or the one that suits the labelled ``groups`` of the dataset."""
    if request.protocol == "benchmark" and len(groups) == 1:
        unit = "patient" if request.group_by else "case"
        besides = " besides --test-cases" if request.test_cases else ""
        raise LimitedError(
            f"--protocol benchmark validates on other cases than it trains on, but {dataset.folder} has one labelled "
            f"{unit} only{besides}, {next(iter(groups))!r}; remove the option to train and validate on it, or add some"
        )
    return request.protocol or ("deployment" if dataset.without_label or len(groups) == 1 else "benchmark")


def selection(
    dataset: RawDataset, request: SplitRequest, groups: Groups, classes_of: Callable[[str], set[int]] | None
) -> Callable[[Sequence[str]], list[str]]:
    """Return a function that takes the groups that may be labelled, in order, and returns those that are.

    Classes are covered where ``classes_of`` is given. It raises LimitedError if no group is left to label.
    """
    listed = explicit_groups(dataset, request, groups) if request.labeled_cases else None
    drawn = groups_from(dataset, request, groups) if request.labeled_from is not None else None
    classes, unreadable = dataset.description.foreground_values, {}
    unit = "group" if request.group_by else "case"

    def classes_in(group: str, read: Callable[[str], set[int]]) -> set[int]:
        found: set[int] = set()
        for case in groups[group]:
            try:
                found |= read(case)
            except LimitedError as error:  # it matters only if the case is to be labelled
                unreadable[case] = error
        return found

    def select(candidates: Sequence[str]) -> list[str]:
        allowed = listed if listed is not None else drawn
        order = [group for group in candidates if allowed is None or group in allowed]
        if not order:
            option = "--labeled-cases" if listed is not None else f"--labeled-from {request.labeled_from}"
            raise LimitedError(
                f"all cases of {option} are validation cases of one fold, which then has no labelled case left to "
                "train on; add a case of another fold, or use --protocol deployment"
            )
        count = len(order) if listed is not None else wanted(request.labeled, len(order))
        if count > len(order):
            matching = f" that match --labeled-from {request.labeled_from}" if drawn is not None else ""
            there = "there is only 1" if len(order) == 1 else f"there are only {len(order)}"
            found = f"labelled {unit}{'s' * (len(order) > 1)}{matching}"
            raise LimitedError(f"--labeled {request.labeled}: {there} {found}; ask for fewer")
        if classes_of is not None and count < len(order):
            order = covering(order, classes, partial(classes_in, read=classes_of))
        chosen = order[:count]
        for case in members(chosen, groups):
            if case in unreadable:
                raise unreadable[case]
        return chosen

    return select


def make_folds(
    protocol: str,
    partition: list[list[str]],
    order: Sequence[str],
    groups: Groups,
    select: Callable[[Sequence[str]], list[str]],
    everyone: Groups,
) -> list[Fold]:
    """Return the folds of a protocol.

    ``groups`` are those of the labelled cases, ``everyone`` has all cases. ``benchmark``: over all labelled cases; the
    labels of training cases that are not selected are hidden. ``deployment``: over the selected cases; all others are
    unlabelled in each. A single group is trained and validated on. The unlabelled cases of a group that is only
    validated on are left out of the fold.
    """
    if protocol == "benchmark":
        allowed = [[group for group in order if not set(groups[group]) & set(part)] for part in partition]
        pairs = [(members(select(some), groups), tuple(part)) for some, part in zip(allowed, partition, strict=True)]
        return [_fold(train, val, everyone, set()) for train, val in pairs]
    labeled = members(select(order), groups)
    folds = []
    for part in partition:
        val = tuple(case for case in part if case in labeled)
        train = tuple(case for case in labeled if case not in val) if len(labeled) > len(val) else labeled
        if val:
            folds.append(_fold(train, val, everyone, {*labeled}))
    return folds


def _fold(train: tuple[str, ...], val: tuple[str, ...], everyone: Groups, labeled: set[str]) -> Fold:
    """Return a fold whose unlabelled cases are all others but the ``labeled`` ones and those of validated groups."""
    outside = [group for group in everyone.values() if {*train} & {*group} or not {*val} & {*group}]
    return Fold(train, val, tuple(sorted({case for group in outside for case in group} - {*train, *val} - labeled)))


def partition_file(dataset: RawDataset, folder: Path) -> Path:
    """Return the file of the fold partition: before there is one in ``folder``, that of the raw dataset if it has one.

    nnU-Net's planner copies it.
    """
    theirs, ours = dataset.folder / "splits_final.json", folder / "splits_final.json"
    return theirs if theirs.is_file() and not ours.exists() else ours


def write_split(
    folder: Path, split: Split, partition: list[list[str]], replace: bool = False, stock: Any = None
) -> list[Path]:
    """Write the split with its sidecar, and ``splits_final.json`` if there is none; return the files written.

    ``splits_final.json`` holds ``stock`` or, by default, the same folds with every label there is, for stock trainers.
    """
    file, sidecar, final = (split_file(folder, split.name), info_file(folder, split.name), folder / "splits_final.json")
    content = [{key: list(value) for key, value in vars(fold).items()} for fold in split.folds]
    if file.is_file() and not replace and read_json(file, "split", "delete it") != content:
        raise LimitedError(
            f"{file} exists with other content; choose another --name, or pass --replace to overwrite it "
            "(plans and results made from it are then refused)"
        )
    written = [file, sidecar]
    if not final.is_file():
        labeled = {case for part in partition for case in part}
        made = [{"train": sorted(labeled - set(part)) or list(part), "val": part} for part in partition]
        write_json(final, stock or made)
        written.append(final)
    sidecar.unlink(missing_ok=True)  # a kill between the two writes leaves a valid split without a description
    write_json(file, content)
    write_json(sidecar, split.info)
    return written


def check_known(dataset: RawDataset, cases: Iterable[str], option: str) -> None:
    """Refuse a case list that names a case the dataset does not have."""
    for case in cases:
        if case not in dataset.cases:
            raise LimitedError(f"{option} names case {case!r}, which {dataset.folder} does not have; correct the list")


def fold_partition(final: Path | None, groups: Groups, folds: int | None) -> list[list[str]]:
    """Return the validation cases of each fold: those of the file ``final``, if there is one, else a new partition."""
    if folds is not None and folds < 2:
        raise LimitedError(f"--folds {folds} is too few; use at least 2")
    count = min(folds or 5, len(groups))
    if final is None or not final.is_file():
        if count == 1:
            return [sorted(case for cases in groups.values() for case in cases)]
        made = crossval_folds(sorted(groups), PARTITION_SEED, count)
        return [sorted(case for group in fold for case in groups[group]) for fold in made]

    remedy = "delete it if nothing was trained with it yet"
    existing = parse_folds(read_json(final, "split", "delete it"), final, ())
    partition = [sorted(fold.val) for fold in existing]
    if folds is not None and len(partition) != count:
        raise LimitedError(f"--folds {folds}, but {final} has {len(partition)} folds; use that many, or {remedy}")
    place = {case: number for number, part in enumerate(partition) for case in part}
    if sum(map(len, partition)) != len(place) or set(place) != {case for cases in groups.values() for case in cases}:
        differing = sorted(set(place) ^ {case for cases in groups.values() for case in cases})
        raise LimitedError(
            f"{final} does not validate each labelled case exactly once (look at "
            f"{differing[0] if differing else 'repeated cases'}); correct it, or {remedy}"
        )
    for group, cases in groups.items():
        if len({place[case] for case in cases}) > 1:
            raise LimitedError(f"{final} separates cases of group {group!r} ({', '.join(cases)}); {remedy}")
    return partition


def seeded_order(partition: list[list[str]], groups: Groups, seed: int) -> list[str]:
    """Return all groups in a seeded order that takes one from each fold in turn.

    Labelled subsets are prefixes of it, so they are nested, and every fold loses about as many to its validation.
    """
    random = np.random.RandomState(seed)
    piles = []
    for part in partition:
        members = [group for group in sorted(groups) if groups[group][0] in set(part)]
        piles.append([members[i] for i in random.permutation(len(members))])
    piles = [piles[i] for i in random.permutation(len(piles))]
    return [pile[turn] for turn in range(max(map(len, piles))) for pile in piles if turn < len(pile)]


def covering(order: Sequence[str], classes: set[int], classes_of: Callable[[str], set[int]]) -> list[str]:
    """Move to the front of ``order`` the groups that first bring a class, reading labels only until all are there."""
    missing, front = set(classes), []
    for group in order:
        if not missing:
            break
        new = classes_of(group) & missing
        if new:
            front.append(group)
            missing -= new
    return front + [group for group in order if group not in front]


def wanted(labeled: str | None, available: int) -> int:
    """Return the number of labelled groups that ``"8"`` or ``"10%"`` asks for; all of them for None."""
    if labeled is None:
        return available
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", labeled.strip())
    if match is None or (not match[2] and "." in match[1]):
        raise LimitedError(f"--labeled {labeled!r} is neither a number nor a percentage; write 8 or 10%")
    count = math.ceil(float(match[1]) / 100 * available - 1e-9) if match[2] else int(match[1])
    if count < 1 or (match[2] and float(match[1]) > 100):
        raise LimitedError(f"--labeled {labeled} gives {count} of {available} labelled cases; ask for 1 to {available}")
    return count


def explicit_groups(dataset: RawDataset, request: SplitRequest, groups: Groups) -> set[str]:
    """Return the groups that ``--labeled-cases`` names, which must be whole."""
    if request.labeled is not None:
        raise LimitedError("--labeled and --labeled-cases exclude each other; give one of them")
    if request.cover == "classes":
        raise LimitedError("--cover classes has no effect with --labeled-cases, which names every case; remove it")
    check_known(dataset, request.labeled_cases, "--labeled-cases")
    listed = set(request.labeled_cases)
    for case in request.labeled_cases:
        if dataset.cases[case].label is None:
            raise LimitedError(f"--labeled-cases names {case!r}, which has no label file; annotate or remove it")
        if case in request.test_cases:
            raise LimitedError(f"case {case!r} is in --labeled-cases and in --test-cases; remove it from one of them")
    refuse_torn(groups, listed, "--labeled-cases")
    return {group for group, cases in groups.items() if set(cases) <= listed}


def groups_from(dataset: RawDataset, request: SplitRequest, groups: Groups) -> set[str]:
    """Return the groups all of whose cases have names that ``--labeled-from`` matches."""
    option = f"--labeled-from {request.labeled_from}"
    if request.labeled_cases:
        raise LimitedError(f"{option} and --labeled-cases exclude each other; give one of them")
    expression = compiled(str(request.labeled_from), "--labeled-from")
    used = [case for case in dataset.cases if case not in set(request.test_cases)]
    if len(used) > 1 and all(map(expression.search, used)):
        raise LimitedError(
            f"{option} matches every case of {dataset.folder}, not those of one site or scanner only; write an "
            "expression that fewer names match, e.g. '^siteA_', or remove it"
        )
    found = {group for group, cases in groups.items() if all(map(expression.search, cases))}
    if not found:
        unit = "group as a whole" if request.group_by else "case"
        name = min(min(cases) for cases in groups.values())
        raise LimitedError(
            f"{option} matches no labelled {unit}, e.g. not case {name!r}; write a regular expression that finds "
            "the site or scanner in case names"
        )
    return found


def class_reader(dataset: RawDataset) -> Callable[[str], set[int]]:
    """Return a function that returns the values in a case's label file, opening each file at most once."""
    reader = cache(dataset.reader)

    @cache
    def classes_of(case: str) -> set[int]:
        label = dataset.cases[case].label
        assert label is not None
        values, _ = read_label(reader()(), label)
        return set(check_whole(label, values).astype(int).tolist())

    return classes_of
