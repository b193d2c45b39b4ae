"""Files and folders that stand where something is to be written: one line that names the place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wrong_input import CROSSVAL, NAME, PLANS, RUN, TRAIN, Row, World
from wrong_input_grids import SPARSIFY, VIEW
from wrong_input_names import SPLIT
from wrong_input_queries import ABSORB, COLD, a_round

CANNOT = "cannot be written"
CONFIGURE = f"configure {PLANS} -d 990 --name long --set num_epochs=9"
RESULTS = f"results/{NAME}/{RUN}"


def folder(*names: str) -> Callable[[World], Any]:
    """Put a folder, with something in it, where a file is to be."""

    def spoil(world: World) -> None:
        for name in names:
            (world.root / name).unlink(missing_ok=True)  # a lock that was taken before
            world.text(f"{name}/x", b"")

    return spoil


def file(*names: str) -> Callable[[World], Any]:
    """Put a file where a folder is to be."""

    def spoil(world: World) -> None:
        for name in names:
            found = world.root / name
            if found.is_dir():
                found.rename(found.with_name(f"moved_{found.name}"))
            world.text(name, b"")

    return spoil


TABLE: list[Row] = [
    ("split is a folder", SPLIT, (f"splits_x.json {CANNOT}",), folder(f"preprocessed/{NAME}/splits_x.json")),
    ("lock of splits is a folder", SPLIT, (NAME, CANNOT), folder(f"preprocessed/.{NAME}.splits.lock")),
    ("folder of plans is a file", SPLIT, (NAME, CANNOT), file(f"preprocessed/{NAME}")),
    (
        "folder of fingerprints is a file",
        CONFIGURE,
        ("fingerprints", CANNOT),
        file(f"preprocessed/{NAME}/fingerprints/{PLANS}_long"),
    ),
    ("results are a file", TRAIN, (NAME, CANNOT), file(f"results/{NAME}")),
    ("results of the trainer are a file", TRAIN, (RUN, CANNOT), file(RESULTS)),
    ("lock of the fold is a folder", TRAIN, ("fold_0", CANNOT), folder(f"{RESULTS}/.fold_0.training.lock")),
    ("lock of crossval is a folder", f"{CROSSVAL} --folds 0", ("fold_0", CANNOT), folder(f"{RESULTS}/.fold_0.lock")),
    ("lock of a dataset is a folder", SPARSIFY, (VIEW[:10], CANNOT), folder(f"raw/.{VIEW[:10]}.lock")),
    ("scratch of a dataset is a file", SPARSIFY, (VIEW, CANNOT), file(f"raw/.{VIEW}.tmp")),
    ("folder of runs is a file", f"{CROSSVAL} --folds 0", (RUN, CANNOT), file(RESULTS)),
    ("fold is a file", f"{CROSSVAL} --folds 0", ("fold_0",), file(f"{RESULTS}/fold_0")),
    ("fold to train is a file", TRAIN, ("fold_0",), file(f"{RESULTS}/fold_0")),
    ("round is a file", COLD, ("results/round",), file("results/round")),
    ("lock of a round is a folder", COLD, ("results/round", CANNOT), folder("results/.round.lock")),
    (
        "lock of absorb is a folder",
        ABSORB,
        ("Dataset700", CANNOT),
        lambda w: (a_round(w), folder("raw/.Dataset700.lock")(w)),
    ),
    ("study is a file", "study plan {root}/s.yaml --out {root}/results/st", ("results/st",), file("results/st")),
]
