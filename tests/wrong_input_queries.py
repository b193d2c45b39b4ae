"""Wrong input to ``query`` and ``absorb``."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from wrong_input import CASES, NAME, PLANS, RUN, TEACHER, Row, World, nothing
from wrong_input_pseudo import trained

from nnunet_limited.splits import load_split

COLD = "query 990 --split few -f 0 --items 1 --out {root}/results/round"
QUERY = f"query 990 2d -tr {TEACHER} -p {PLANS} -f 0 --items 1 --out {{root}}/results/round -device cpu"
ABSORB = "absorb {root}/results/round --out Dataset700_Next"
PATCHES = f"{QUERY} --what patch"


def a_round(world: World, **changes: Any) -> None:
    """Let there be a round that asks for one case of an unlabelled dataset."""
    query = {"case": CASES[0], "start": [0, 0, 0], "size": [16, 16, 16], "score": 1.0, "minutes": 1.0, "why": "x"}
    content: dict[str, Any] = {"dataset": NAME, "round": 1, "rounds": 5, "strategy": "random", "seed": 0}
    content |= {"items": 1, "minutes": None, "seconds": 1.0, "model": None, "dice": []}
    content |= {"split": None, "split_hash": None, "folds": []}
    content |= {
        "granularity": ["case", None, []],
        "queries": [query],
        "prefilled": {CASES[0]: {"file": "0", "regions": ["0"]}},
    }
    world.text("results/round/queries.json", json.dumps({**content, **changes}))


def features(world: World, **arrays: Any) -> None:
    with (world.root / "f.npz").open("wb") as stream:
        np.savez(stream, **arrays)


TABLE: list[Row] = [
    # ---- query
    ("unknown strategy", f"{COLD} --strategy best", ("strategy 'best'", "clasp_pe"), nothing),
    ("no budget", COLD.replace("--items 1", ""), ("--items", "--minutes"), nothing),
    ("two budgets", f"{COLD} --minutes 5", ("--items", "--minutes"), nothing),
    ("budget of nothing", COLD.replace("--items 1", "--items 0"), ("--items", "0"), nothing),
    ("half a model", f"query 990 2d -p {PLANS} --items 1", ("configuration=2d", "-tr None"), nothing),
    ("pool of an unknown dataset", "query 17 --items 1", ("dataset 17",), nothing),
    ("pool of an unknown split", COLD.replace("few", "no"), ("splits_no.json", "nnunet-limited split"), nothing),
    ("split with a model", f"{QUERY} --split few", ("--split few", "has no effect"), trained),
    ("features with a model", f"{QUERY} --features f.npz", ("--features f.npz", "has no effect"), trained),
    ("size of a case", f"{QUERY} --size 4x4x4", ("--size 4x4x4", "has no effect"), trained),
    ("axis of a patch", f"{PATCHES} --size 4x4x4 --axis 1", ("--axis 1", "has no effect"), trained),
    ("patch without size", PATCHES, ("--what patch", "--size"), trained),
    ("patch of two axes", f"{PATCHES} --size 4x4", ("--size 4x4", "3 axes"), trained),
    ("patch of no number", f"{PATCHES} --size 4x4xa", ("--size 4x4xa",), trained),
    ("granularity is unknown", f"{QUERY} --what voxel", ("--what", "voxel"), trained),
    ("model is not trained", QUERY, (f"{RUN}/fold_0/checkpoint_final.pth", "train fold 0"), nothing),
    ("model is of another split", QUERY, ("split_hash x", "train it again"), lambda w: trained(w, split_hash="x")),
    ("fold of the model is unknown", f"{QUERY} -f 7", ("fold 7", "0 to 2"), trained),
    ("configuration of the model is unknown", QUERY.replace(" 2d ", " 4d "), ("'4d'",), trained),
    (
        "no case is left that no fold knows",
        COLD.replace("-f 0", ""),
        ("no case is left to query", "-f"),
        nothing,
    ),
    ("every image has a label", "query 990 --items 1", ("every image of", "--split"), nothing),
    ("cold start by uncertainty", f"{COLD} --strategy entropy", ("--strategy entropy", "typiclust"), nothing),
    ("cold start of patches", f"{COLD} --what patch --size 4x4x4", ("--strategy typiclust", "--what case"), nothing),
    ("no file of features", f"{COLD} --features {{root}}/no.npz", ("no.npz", "does not exist"), nothing),
    (
        "features of other cases",
        f"{COLD} --features {{root}}/f.npz",
        ("f.npz", "no array named"),
        lambda w: features(w, someone=np.ones(3)),
    ),
    (
        "features are no npz",
        f"{COLD} --features {{root}}/f.npz",
        ("f.npz", "numpy.savez"),
        lambda w: w.text("f.npz", "no archive"),
    ),
    ("round is there", COLD, ("results/round", "holds queries already"), a_round),
    (
        "folder of something else",
        COLD,
        ("results/round", "holds no queries"),
        lambda w: w.text("results/round/notes.txt", "mine"),
    ),
    (
        "begun with another seed",
        f"{COLD} --seed 3",
        ("started with", "dataset=X"),
        lambda w: w.text("results/round/request.json", json.dumps({"dataset": "X"})),
    ),
    ("image of the pool is broken", COLD, (CASES[0], "cannot be read"), lambda w: [
        w.text(f"raw/{NAME}/imagesTr/{case}_000{channel}.nii.gz", b"no image") for case in CASES for channel in (0, 1)
    ]),
    # ---- absorb
    ("no round", ABSORB, ("queries.json", "nnunet-limited query"), nothing),
    (
        "round is not finished",
        ABSORB,
        ("results/round", "interrupted"),
        lambda w: w.text("results/round/request.json", "{}"),
    ),
    ("round is no JSON", ABSORB, ("queries.json",), lambda w: w.text("results/round/queries.json", "{")),
    ("round lacks a key", ABSORB, ("queries.json", "queries"), lambda w: w.text("results/round/queries.json", "{}")),
    ("round lacks its origin", ABSORB, ("queries.json", "seconds"), lambda w: (
        a_round(w), w.edit("results/round/queries.json", lambda content: content.pop("seconds") and content)
    )),
    ("nothing came back", ABSORB, ("results/round/labels", "none of 1 queries"), a_round),
    ("next dataset without number", ABSORB.replace("Dataset700_Next", "Next"), ("--out Next", "Dataset"), a_round),
    ("next dataset is there", ABSORB.replace("700_Next", "990_Next"), ("--out Dataset990_Next",), a_round),
    ("next split has a bad name", f"{ABSORB} --name a__b", ("'a__b'",), a_round),
    ("oracle knows nothing", f"{ABSORB} --oracle {{root}}/no", ("--oracle", CASES[0]), a_round),
    (
        "split of the round has changed",
        ABSORB,
        ("split 'few'", "has changed"),
        lambda w: a_round(w, split="few", split_hash="x", folds=[0]),
    ),
    (
        "split of an earlier dataset is there",
        ABSORB,
        ("Dataset700_Next/splits_r1.json", "give another --out"),
        lambda w: (a_round(w), w.text("preprocessed/Dataset700_Next/splits_r1.json", "[]")),
    ),
    (
        "patients after no cold start",
        f"{ABSORB} --group-by p",
        ("--group-by p", "'few'"),
        lambda w: a_round(w, split="few", split_hash=load_split(w.preprocessed, "few").hash, folds=[0]),
    ),
    (
        "dataset of the round is gone",
        ABSORB,
        ("dataset Dataset111_Gone",),
        lambda w: a_round(w, dataset="Dataset111_Gone"),
    ),
]  # fmt: skip
