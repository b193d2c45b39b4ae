"""A round of queries on disk: what was asked, of which model, and the files that go to the annotators and come back.

``queries.json`` is written last; a folder without it is a round that was interrupted and can be gone on with.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_limited.errors import LimitedError
from nnunet_limited.queries.windows import Window
from nnunet_limited.util.files import read_object, replacing, write_json

RECORD, REQUEST = "queries.json", "request.json"
LABELS, IMAGES = "labels", "images"
ORIGIN = (
    *("dataset", "round", "rounds", "strategy", "seed", "items", "minutes", "granularity", "seconds"),
    *("split", "split_hash", "folds", "model", "dice"),
)
MAKE = "make a round with 'nnunet-limited query'"


@dataclass(frozen=True)
class Query:
    """A window to annotate: what the strategy went by, the minutes it is thought to take, and why in words."""

    window: Window
    score: float | None
    minutes: float | None
    why: str

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        case, start, size = self.window
        about = {"score": self.score, "minutes": self.minutes, "why": self.why}
        return {"case": case, "start": list(start), "size": list(size), **about}


@dataclass(frozen=True)
class Round:
    """The queries in ``folder``; ``origin`` tells of dataset, split, model and strategy.

    ``prefilled`` are, by case, the hashes of the label ``file`` that annotators start from and of its ``windows``.
    """

    folder: Path
    origin: dict[str, Any]
    queries: tuple[Query, ...]
    prefilled: dict[str, dict[str, Any]]

    @property
    def cases(self) -> list[str]:
        """Return the cases that are asked for, in the order of their first query."""
        return list(dict.fromkeys(query.window.case for query in self.queries))

    def of(self, case: str) -> list[Window]:
        """Return the windows asked for in a case."""
        return [query.window for query in self.queries if query.window.case == case]

    def write(self) -> None:
        """Write the table and then the record."""
        rows = [query.as_dict() for query in self.queries]
        with (
            replacing(self.folder / "queries.csv") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as stream,
        ):
            writer = csv.writer(stream)
            writer.writerow(["number", "case", "start", "size", "score", "minutes", "why"])
            for number, row in enumerate(rows, 1):
                place = ["x".join(map(str, row[key])) for key in ("start", "size")]
                writer.writerow([number, row["case"], *place, *(row[key] for key in ("score", "minutes", "why"))])
        write_json(self.folder / RECORD, {**self.origin, "prefilled": self.prefilled, "queries": rows})


def load_round(folder: Path) -> Round:
    """Read the round in ``folder``; raise LimitedError if it is none, or not a whole one."""
    if (folder / REQUEST).is_file() and not (folder / RECORD).is_file():
        raise LimitedError(
            f"{folder} holds a query that was interrupted; run 'nnunet-limited query' again to finish it"
        )
    content = read_object(folder / RECORD, "queries", MAKE)
    try:
        queries = tuple(
            Query(Window(q["case"], tuple(q["start"]), tuple(q["size"])), q["score"], q["minutes"], q["why"])
            for q in content.pop("queries")
        )
        prefilled = content.pop("prefilled")
        content = {**content, **{key: content[key] for key in ORIGIN}}
    except (KeyError, TypeError) as error:
        raise LimitedError(f"{folder / RECORD} is not as it was written ({error!r}); {MAKE}") from error
    return Round(folder, content, queries, prefilled)


def begin_round(folder: Path, origin: dict[str, Any]) -> None:
    """Make the folder of a round, or go on in one of the same ``origin``; refuse any other."""
    if (folder / RECORD).is_file():
        raise LimitedError(f"--out {folder} holds queries already; give another folder, or delete it to ask anew")
    if not (folder / REQUEST).is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise LimitedError(f"--out {folder} is there and holds no queries; give another folder")
        write_json(folder / REQUEST, origin)
        return
    before = read_object(folder / REQUEST, "request", "delete its folder")
    for key, value in origin.items():
        if before.get(key) != value:
            raise LimitedError(
                f"--out {folder} was begun with {key}={before.get(key)}, not {value}; give another folder or delete it"
            )


def window_hash(label: np.ndarray, window: Window) -> str:
    """Identify the values of a label image in a window."""
    return hashlib.sha256(np.ascontiguousarray(label[window.inside], np.int16).tobytes()).hexdigest()[:16]


def within(queries: Sequence[Query], minutes: float) -> list[Query]:
    """Return the first queries that together take no more than ``minutes``, but at least one."""
    kept: list[Query] = []
    total = 0.0
    for query in queries:
        total += query.minutes or 0.0
        if kept and total > minutes:
            break
        kept.append(query)
    return kept
