"""Wrong input to ``pseudo-label``, to the trainer of its results, and to ``plan --patch``."""

from __future__ import annotations

import json

from wrong_input import CASES, NAME, PLANS, RUN, TEACHER, TRAIN, Row, World, nothing

from nnunet_limited.planners.planned import PlannedData
from nnunet_limited.splits import load_split

MAKE = f"pseudo-label 990 2d -tr {TEACHER} -p {PLANS} -f 0 -device cpu"
SELF = f"{TRAIN} -tr LimitedSelfTrainingTrainer"
STORED = f"preprocessed/{NAME}/pseudo_labels/few"


def trained(world: World, **changes: str) -> None:
    """Let the mean teacher's fold 0 be finished."""
    world.checkpoint(TEACHER, "final")
    plans = PlannedData.load(world.preprocessed, PLANS).hash
    record = {"split_hash": load_split(world.preprocessed, "few").hash, "plans_hash": plans, **changes}
    world.text(f"results/{NAME}/{RUN}/fold_0/limited_run.json", json.dumps(record))


def stored(world: World, **changes: object) -> None:
    """Let there be a description of pseudo-labels, without any."""
    content = {"split_hash": load_split(world.preprocessed, "few").hash, "file_ending": ".nii.gz", "cases": {}}
    world.text(f"{STORED}/model/fold_0/pseudo_labels.json", json.dumps({**content, **changes}))


TABLE: list[Row] = [
    # ---- pseudo-label
    ("unknown source", f"{MAKE} --sources student,crowd", ("--sources", "crowd"), nothing),
    ("dataset to label is unknown", "pseudo-label 17 2d -p x", ("dataset 17",), nothing),
    ("plans of the model are unknown", "pseudo-label 990 2d -p nnUNetPlans_no", ("nnUNetPlans_no.json",), nothing),
    ("configuration is unknown", MAKE.replace(" 2d ", " 4d "), ("'4d'", "2d"), trained),
    ("fold is unknown", f"{MAKE} -f 9", ("fold 9", "0 to 2"), trained),
    ("fold is text", f"{MAKE} -f one", ("fold one",), trained),
    ("no trained model", MAKE, (f"{RUN}/fold_0/checkpoint_final.pth", "train fold 0"), nothing),
    ("one fold is not trained", f"{MAKE} -f 1", (f"{RUN}/fold_1/checkpoint_final.pth",), trained),
    ("model of nnU-Net", MAKE, (f"{RUN}/fold_0", "limited_run.json"), lambda w: w.checkpoint(TEACHER, "final")),
    ("model of another split", MAKE, (f"{RUN}/fold_0", "split_hash x"), lambda w: trained(w, split_hash="x")),
    ("model of other plans", MAKE, (f"{RUN}/fold_0", "plans_hash x"), lambda w: trained(w, plans_hash="x")),
    ("no previous round", f"{MAKE} --name r2 --previous r1", ("pseudo_labels/few/r1", "--name r1"), trained),
    ("previous is the name", f"{MAKE} --name r1 --previous r1", ("--previous r1", "--name"), trained),
    ("bad name of pseudo-labels", f"{MAKE} --name a__b", ("'a__b'",), trained),
    (
        "ensemble that has seen hidden labels",
        f"{MAKE} -f 1 --ensemble",
        ("--ensemble", CASES[0], "'few'", "hidden labels"),
        lambda w: (w.two_folds(), w.bind(), trained(w)),
    ),
    ("no such device", MAKE.replace("cpu", "tpu"), ("-device tpu",), trained),
    (
        "pseudo-labels of another model",
        MAKE,
        ("pseudo_labels/few/model/fold_0", "trainer=X", "--name"),
        lambda w: (trained(w), stored(w, source="model", split="few", trainer="X")),
    ),
    (
        "broken description of pseudo-labels",
        MAKE,
        ("pseudo_labels/few/model/fold_0/pseudo_labels.json", "JSON"),
        lambda w: (trained(w), w.text(f"{STORED}/model/fold_0/pseudo_labels.json", "{")),
    ),
    # ---- training on them
    ("no pseudo-labels", SELF, ("pseudo_labels/few/model", "fold 0", "pseudo-label"), nothing),
    ("pseudo-labels of another name", f"{SELF} --set pseudo_labels=r7", ("few/r7", "--name r7"), stored),
    ("pseudo-labels are not complete", SELF, ("fold_0", "no pseudo-label of 'p"), stored),
    ("pseudo-labels of another split", SELF, ("fold_0", "hash x"), lambda w: stored(w, split_hash="x")),
    ("name of pseudo-labels is a number", f"{SELF} --set pseudo_labels=2024", ("few/2024", "--name 2024"), stored),
    ("no case is stable", f"{SELF} --set stable_fraction=0", ("stable_fraction=0", "greater than 0"), stored),
    # ---- self-train
    (
        "trainer does not learn pseudo-labels",
        f"self-train 990 2d -tr {TEACHER} -p {PLANS}",
        (TEACHER, "Recipe"),
        nothing,
    ),
    (
        "self-train on plans of nnU-Net",
        "self-train 990 2d --folds 0",
        ("'unlabeled'", "splits_final"),
        World.plain_plans,
    ),
    (
        "nothing to pseudo-label",
        f"self-train 990 2d -p {PLANS} --folds 0",
        ("fold 0", "'few'", "LimitedRecipeTrainer"),
        lambda w: (w.fold(unlabeled=[]), w.bind()),
    ),
    (
        "one crop for each GPU to mix",
        f"self-train 990 2d -p {PLANS} --folds 0 -num_gpus 99",
        ("LimitedRecipeTrainer", "on each GPU", "unlabeled_batch_size=2"),
        nothing,
    ),
    (
        "weights to self-train from are missing",
        f"self-train 990 2d -p {PLANS} -pretrained_weights no.pth",
        ("-pretrained_weights no.pth",),
        nothing,
    ),
    (
        "teacher does not exist",
        f"self-train 990 2d -p {PLANS} --teacher LimitedNopeTrainer",
        ("--teacher LimitedNopeTrainer", "LimitedSupervisedTrainer"),
        nothing,
    ),
    (
        "teacher is nnU-Net's",
        f"self-train 990 2d -p {PLANS} --teacher nnUNetTrainer",
        ("--teacher nnUNetTrainer", "no record", "LimitedSupervisedTrainer"),
        nothing,
    ),
    (
        "self-train with pseudo-labels of its own choice",
        f"self-train 990 2d -p {PLANS} --set pseudo_labels=r1",
        ("pseudo_labels", "each round"),
        nothing,
    ),
    ("no rounds", f"self-train 990 2d -p {PLANS} --rounds 0", ("--rounds", "0"), nothing),
    ("folds to self-train are text", f"self-train 990 2d -p {PLANS} --folds x", ("--folds x",), nothing),
    ("self-train with an unknown setting", f"self-train 990 2d -p {PLANS} --set w=1", ("'w'",), nothing),
    # ---- patch
    ("patch is text", "plan 990 --split few -c 2d --patch big", ("--patch big", "8x64x64"), nothing),
    ("patch with an empty edge", "plan 990 --split few -c 2d --patch 64x", ("--patch 64x",), nothing),
    ("patch of another dimension", "plan 990 --split few -c 2d --patch 16x16x16", ("--patch 16x16x16", "2d"), nothing),
    ("patch without configuration", "plan 990 --split few --patch 16x16", ("--patch 16x16", "-c 2d"), nothing),
]
