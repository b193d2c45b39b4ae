"""Wrong input on patients, sites, single cases and executors: ``split``, ``study run``, ``simulate-al``."""

from __future__ import annotations

import json
from typing import Any

from wrong_input import CASES, NAME, Row, World, nothing

SPLIT = "split 990 --name x"
STUDY = "study run {root}/s.yaml --out {root}/out"
LOOP = "simulate-al {root}/s.yaml --out {root}/out --gpus 0"
SMALL: dict[str, Any] = {
    "name": "s",
    "datasets": [990],
    "labeled": [1],
    "seeds": [0],
    "number_of_folds": 3,
    "configurations": ["2d"],
    "methods": [{"name": "m", "trainer": "LimitedSupervisedTrainer"}],
}
ACTIVE: dict[str, Any] = {
    **{key: value for key, value in SMALL.items() if key not in ("datasets", "labeled", "configurations")},
    **{"dataset": 990, "labeled": 1, "configuration": "2d", "strategies": ["random"], "rounds": 1},
    "targets": [{"what": "patch", "size": "4x4x4", "items": 1}],
}


def free(world: World) -> None:
    """Remove the fold partition, which separates patients."""
    (world.preprocessed / "splits_final.json").unlink()


def only(world: World, *cases: str) -> None:
    """Leave labels of some cases only."""
    free(world)
    for case in set(CASES) - {*cases}:
        (world.raw / f"labelsTr/{case}.nii.gz").unlink()
        for channel in range(2):
            (world.raw / f"imagesTr/{case}_{channel:04d}.nii.gz").unlink()


def listed(world: World, *cases: str) -> None:
    world.text("l", "\n".join(cases))
    free(world)


def study(**changes: Any) -> Any:
    return lambda world: world.text("s.yaml", json.dumps({**SMALL, **changes}))


def loop(**changes: Any) -> Any:
    return lambda world: world.text("s.yaml", json.dumps({**ACTIVE, **changes}))


def partition(world: World) -> None:
    """Give the raw dataset a partition of its own that separates patients, as the studies adopt it."""
    world.text(f"raw/{NAME}/splits_final.json", (world.preprocessed / "splits_final.json").read_bytes())
    loop(group_by=r"p\d")(world)


TABLE: list[Row] = [
    # ---- patients
    ("benchmark of one case", f"{SPLIT} --protocol benchmark", ("benchmark", "'p0_a'"), lambda w: only(w, "p0_a")),
    (
        "benchmark of one patient",
        f"{SPLIT} --protocol benchmark --group-by p[0-9] --test-cases {{root}}/l",
        ("--protocol benchmark", "one labelled patient only besides --test-cases", "'p0'"),
        lambda w: listed(w, *CASES[2:]),
    ),
    (
        "all cases of one patient",
        f"{SPLIT} --group-by p[0-9]",
        ("--group-by", "2 cases", "'p0'", "remove it if all are of one patient"),
        lambda w: only(w, "p0_a", "p0_b"),
    ),
    (
        "test cases tear a patient apart",
        f"{SPLIT} --group-by p[0-9] --test-cases {{root}}/l",
        ("--test-cases", "'p2'", "'p2_b'"),
        lambda w: listed(w, "p2_a"),
    ),
    (
        "unlabelled scan of no patient",
        f"{SPLIT} --group-by p[0-9]",
        ("--group-by", "'new'", "widen"),
        lambda w: [w.text(f"raw/{NAME}/imagesUn/new_{c:04d}.nii.gz", b"") for c in range(2)],
    ),
    # ---- sites
    ("no site", f"{SPLIT} --labeled-from siteA", ("--labeled-from siteA", "'p0_a'"), nothing),
    ("every site", f"{SPLIT} --labeled-from p*", ("--labeled-from p*", "{raw}", "^siteA_"), nothing),
    ("broken expression of a site", f"{SPLIT} --labeled-from [", ("--labeled-from '['",), nothing),
    (
        "site smaller than asked",
        f"{SPLIT} --labeled-from _a --labeled 4",
        ("--labeled 4", "--labeled-from _a"),
        nothing,
    ),
    (
        "site and list",
        f"{SPLIT} --labeled-from _a --labeled-cases {{root}}/l",
        ("--labeled-from _a", "--labeled-cases"),
        lambda w: listed(w, "p0_a"),
    ),
    (
        "site of one validation part",
        f"{SPLIT} --labeled-from p1 --group-by p[0-9]",
        ("--labeled-from p1", "--protocol deployment"),
        free,
    ),
    (
        "patients at two sites",
        f"{SPLIT} --labeled-from _a --group-by p[0-9]",
        ("--labeled-from _a", "group as a whole"),
        free,
    ),
    # ---- cover
    ("cover what", f"{SPLIT} --cover all", ("--cover", "all"), nothing),
    (
        "cover by a list",
        f"{SPLIT} --cover classes --labeled-cases {{root}}/l",
        ("--cover classes", "--labeled-cases"),
        lambda w: listed(w, *CASES[:4]),
    ),
    (
        "unreadable label of a case to train on",
        f"{SPLIT} --labeled 2 --protocol deployment",
        ("label {raw}/labelsTr/", "cannot be read"),
        lambda w: w.spoil_label(*CASES),
    ),
    (
        "cover and published",
        f"{SPLIT} --cover classes --published {{root}}/l",
        ("--published", "--cover classes"),
        lambda w: listed(w),
    ),
    # ---- studies
    ("study of torn patients", LOOP, ("{root}/s.yaml", "splits_final.json", "separates cases of group"), partition),
    ("study of no patients", LOOP, ("--group-by 'q'", "'p0_a'"), loop(group_by="q")),
    (
        "start of more patients than there are",
        LOOP,
        ("--labeled 3", "2 labelled groups"),
        loop(group_by=r"p\d", labeled=3),
    ),
    ("study of no site", LOOP, ("--labeled-from siteA",), loop(labeled_from="siteA")),
    (
        "study of a published site",
        f"{STUDY} --gpus 0",
        ("published", "remove labeled_from"),
        study(published="x.json", labeled_from="p"),
    ),
    # ---- executors
    ("no such executor", f"{STUDY} --gpus 0 --executor slrum", ("--executor slrum", "plug-in"), study()),
    ("executor with a dot", f"{LOOP} --executor a.b", ("--executor a.b", "plug-in"), loop()),
    ("no Slurm", f"{STUDY} --gpus 0 --executor slurm", ("--executor slurm", "sbatch", "login node"), study()),
    ("no Slurm for a loop", f"{LOOP} --executor slurm", ("--executor slurm", "sbatch", "login node"), loop()),
]
