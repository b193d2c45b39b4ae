"""Read a split file, ours or hand-written, and refuse what would train silently wrong."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_limited.errors import LimitedError
from nnunet_limited.util.files import content_hash, read_json, read_object
from nnunet_limited.util.names import check_name

MAKE_ONE = "make one with 'nnunet-limited split'"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]|_(?!_))*")


@dataclass(frozen=True)
class Fold:
    """The cases of one fold: ``train`` is labelled, ``val`` is validated on, ``unlabeled`` has no visible label."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    unlabeled: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """A list of folds with its name, the dataset it belongs to, and how it was made (``info``, may be empty)."""

    name: str
    dataset: str
    folds: tuple[Fold, ...]
    info: dict[str, Any]

    @property
    def hash(self) -> str:
        """Identify the content: which case is what in which fold of which dataset."""
        return content_hash([self.dataset, [[sorted(f.train), sorted(f.val), sorted(f.unlabeled)] for f in self.folds]])

    @property
    def labeled(self) -> list[str]:
        """Cases whose label training may see in any fold."""
        return sorted({case for fold in self.folds for case in fold.train})

    @property
    def validation(self) -> list[str]:
        """Cases that some fold validates on."""
        return sorted({case for fold in self.folds for case in fold.val})

    @property
    def unlabeled(self) -> list[str]:
        """Cases that some fold uses without a label."""
        return sorted({case for fold in self.folds for case in fold.unlabeled})

    @property
    def never_hidden(self) -> list[str]:
        """Labelled cases that no fold hides; planning reads only these labels, ``fold all`` trains on them."""
        hidden = set(self.unlabeled)
        return [case for case in self.labeled if case not in hidden]

    def fold(self, fold: int | str) -> Fold:
        """Return fold number ``fold``, or for ``"all"`` every never hidden case as train and val."""
        if fold == "all":
            labeled = tuple(self.never_hidden)
            if not labeled:
                raise LimitedError(
                    f"fold all: every case of split {self.name!r} is unlabelled in some fold, so none is left to train "
                    "on; train the numbered folds"
                )
            return Fold(labeled, labeled, tuple(self.unlabeled))
        if not isinstance(fold, int) or not 0 <= fold < len(self.folds):
            raise LimitedError(f"fold {fold} does not exist; split {self.name!r} has folds 0 to {len(self.folds) - 1}")
        return self.folds[fold]


def split_name(name: str) -> str:
    """Return ``name`` if it may name a split, plans or a configuration variant (nnU-Net cuts names at ``__``)."""
    if not _NAME.fullmatch(name) or name == "final" or name.endswith(".info"):
        raise LimitedError(
            f"name {name!r} cannot be used; use letters, digits, '-', '.' and single '_', not 'final' or '.info'"
        )
    return name


def split_file(folder: Path, name: str) -> Path:
    """Return the file of the split ``name`` in the preprocessed dataset ``folder``."""
    return folder / f"splits_{split_name(name)}.json"


def info_file(folder: Path, name: str) -> Path:
    """Return the file that records how the split ``name`` was made."""
    return folder / f"splits_{split_name(name)}.info.json"


def parse_folds(content: Any, file: Path, default_unlabeled: Sequence[str] | None = None) -> tuple[Fold, ...]:
    """Turn the content of ``file`` into folds; ``default_unlabeled`` stands in for a missing ``unlabeled`` key."""
    if not isinstance(content, list) or not content or not all(isinstance(fold, dict) for fold in content):
        raise LimitedError(
            f"{file} must be a list of folds {{'train': …, 'val': …, 'unlabeled': …}}, not {content!r:.60}; {MAKE_ONE}"
        )
    folds = []
    for number, entry in enumerate(content):
        where = f"{file}, fold {number}"
        parts = {}
        for key in ("train", "val", "unlabeled"):
            value = entry.get(key, default_unlabeled if key == "unlabeled" else None)
            if value is None:
                raise LimitedError(f"{where} has no key {key!r}; add the list of cases")
            if not isinstance(value, (list, tuple)) or not all(isinstance(case, str) for case in value):
                raise LimitedError(f"{where}: {key!r} must list case names, not {value!r:.60}; write ['case_1', …]")
            for case in value:
                check_name(case, f"{where}, {key!r}: case")
            repeated = {case for case in value if list(value).count(case) > 1} if len(set(value)) < len(value) else None
            if repeated:
                raise LimitedError(f"{where}: case {min(repeated)!r} is listed twice in {key!r}; remove one")
            parts[key] = tuple(value)
        fold = Fold(**parts)
        for key in ("train", "val"):
            both = sorted(set(fold.unlabeled) & set(parts[key]))
            if both:
                raise LimitedError(f"{where}: case {both[0]!r} is in 'unlabeled' and in {key!r}; remove it from one")
        if not fold.train:
            raise LimitedError(f"{where} has 0 labelled cases in 'train'; name at least one")
        if not fold.val:
            raise LimitedError(f"{where} has no case in 'val'; name at least one")
        folds.append(fold)
    return tuple(folds)


def load_split(folder: Path, name: str) -> Split:
    """Load the named split of the preprocessed dataset ``folder`` and check it against its sidecar, if any."""
    file = split_file(folder, name)
    folds = parse_folds(read_json(file, "split", MAKE_ONE), file)
    sidecar = info_file(folder, name)
    info = read_object(sidecar, "split description", MAKE_ONE) if sidecar.is_file() else {}
    split = Split(name, folder.name, folds, info)
    if info.get("dataset", folder.name) != folder.name:
        raise LimitedError(f"{file} was made for {info['dataset']}, not for {folder.name}; {MAKE_ONE} for this dataset")
    if info.get("hash", split.hash) != split.hash:
        raise LimitedError(
            f"{file} was changed after it was made (hash {split.hash}, {sidecar.name} has {info['hash']}); "
            f"make it again under a new name, or delete {sidecar.name} if the change is meant"
        )
    return split


def load_host_split(folder: Path, unlabeled_images: Sequence[str]) -> Split:
    """Load ``splits_final.json`` for plain host plans.

    Folds without the key ``unlabeled`` take ``unlabeled_images`` (the cases of ``imagesUn/``).
    """
    file = folder / "splits_final.json"
    content = read_json(file, "split", f"{MAKE_ONE} and plan with it, or write it with a key 'unlabeled'")
    return Split("final", folder.name, parse_folds(content, file, list(unlabeled_images)), {})
