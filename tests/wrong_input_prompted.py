"""Wrong input to ``pseudo-label --sources``, to ``zero-shot`` and to the trainer that prompts."""

from __future__ import annotations

import shutil
from pathlib import Path

from shapes import TINY_SAM
from wrong_input import CASES, PLANS, TRAIN, Row, World, nothing
from wrong_input_pseudo import MAKE, trained

SAM = f"sam:{TINY_SAM}"
SHOT = f"zero-shot 990 {SAM} --out {{root}}/out -device cpu"
SEMI = f"{TRAIN} -tr LimitedSemiSAMTrainer"
PROMPTED = f"self-train 990 2d -p {PLANS} -tr LimitedPromptedPseudoLabelTrainer --folds 0"


def no_config(world: World) -> None:
    """Let there be a folder with weights and nothing else."""
    trained(world)
    (world.root / "sam").mkdir()
    shutil.copy(TINY_SAM / "model.safetensors", world.root / "sam")


def no_labels(world: World) -> None:
    """Let no case have a label."""
    for file in (world.raw / "labelsTr").iterdir():
        file.unlink()


def empty_model(world: World) -> None:
    """Let there be a folder that looks like a model of nnInteractive, without a word of its licence."""
    (world.root / "nn" / "fold_0").mkdir(parents=True)
    for name in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth"):
        (world.root / "nn" / name).write_text("{}", encoding="utf-8")


def liver(world: World) -> None:
    """Let there be a box around something that the dataset does not know."""
    trained(world)
    (world.root / "b.csv").write_text(f"case,class,x0,y0,z0,x1,y1,z1\n{CASES[0]},liver,0,0,0,3,3,3\n", encoding="utf-8")


def other_result(world: World) -> None:
    """Let there be the result of another prompter."""
    Path(world.root / "out" / "cases").mkdir(parents=True)
    (world.root / "out" / "cases" / f"{CASES[0]}.json").write_text('{"asked": "other"}', encoding="utf-8")


TABLE: list[Row] = [
    # ---- pseudo-label --sources
    ("promptable model comes first", f"{MAKE} --sources {SAM},student", ("--sources", "begin with student"), trained),
    ("source twice", f"{MAKE} --sources student,atlas,student", ("--sources", "once"), trained),
    ("source without weights", f"{MAKE} --sources student,sam", ("'sam'", "sam:FOLDER"), trained),
    ("empty source", f"{MAKE} --sources student,,atlas", ("''", "student"), trained),
    ("no such folder", f"{MAKE} --sources student,sam:no", ("no/config.json",), trained),
    ("folder without config", f"{MAKE} --sources student,sam:{{root}}/sam", ("sam/config.json", "hf "), no_config),
    ("hub id that was not downloaded", f"{MAKE} --sources student,sam:a/b", ("a/b", "--local-dir"), trained),
    ("no such checkpoint", f"{MAKE} --sources student,tiny-vit:x.pt", ("x.pt", "fetch_sam_weights"), trained),
    ("no such module", f"{MAKE} --sources student,nobody:makes", ("'nobody:makes'", "PYTHONPATH"), trained),
    ("no such function", f"{MAKE} --sources student,json:makes", ("'json:makes'", "makes"), trained),
    ("function makes something else", f"{MAKE} --sources student,builtins:dict", ("'builtins:dict'", "ndim"), trained),
    ("no such model", f"{MAKE} --sources student,nninteractive:no", ("no/plans.json",), trained),
    (
        "licence is not accepted",
        f"{MAKE} --sources student,nninteractive:{{root}}/nn",
        ("CC BY-NC-SA 4.0", "--accept-licence"),
        lambda w: (trained(w), empty_model(w)),
    ),
    ("no model for the student", f"{MAKE} --sources student,atlas", ("checkpoint_final.pth",), nothing),
    ("unknown way to ask", f"{MAKE} --sources student,atlas --ask axis=3", ("--ask", "'axis'", "axes"), trained),
    (
        "way to ask is no assignment",
        f"{MAKE} --sources student,atlas --ask axes",
        ("--ask 'axes'", "kind=box"),
        trained,
    ),
    ("two axes", f"{MAKE} --sources student,atlas --ask axes=2", ("--ask", "axes=2"), trained),
    ("kind of prompts is unknown", f"{MAKE} --sources student,{SAM} --ask kind=text", ("kind='text'",), trained),
    (
        "kind that the model does not take",
        f"{MAKE} --sources student,sam:{{root}}/medsam --ask kind=two-pass",
        ("two-pass", "no point", "kind=box"),
        lambda w: (trained(w), shutil.copytree(TINY_SAM, w.root / "medsam")),
    ),
    (
        "two files of boxes",
        f"{MAKE} --sources student,boxes:{{root}}/a.csv,boxes:{{root}}/b.csv,{SAM}",
        ("a.csv,boxes:", "give one"),
        lambda w: (liver(w), shutil.copy(w.root / "b.csv", w.root / "a.csv")),
    ),
    ("boxes without a model", f"{MAKE} --sources boxes:no.csv", ("boxes:no.csv", "boxes:FILE.csv"), trained),
    ("zero-shot with one kind", f"{SHOT} --ask kind=box", ("--ask", "remove kind"), nothing),
    ("no box", f"{MAKE} --sources student,{SAM} --ask boxes=0", ("boxes=0", "greater"), trained),
    ("no such channel", f"{MAKE} --sources student,{SAM} --ask channel=2", ("channel=2", "2 channels"), trained),
    ("nothing to ask", f"{MAKE} --ask axes=3", ("--ask", "--sources"), trained),
    ("sources of self-train are wrong", f"{PROMPTED} --sources atlas,no", ("--sources", "'no'"), nothing),
    ("boxes of another class", f"{MAKE} --sources student,boxes:{{root}}/b.csv,{SAM}", ("b.csv", "'liver'"), liver),
    ("consensus without sources", PROMPTED, ("--sources student,atlas",), nothing),
    # ---- zero-shot
    ("no label to prompt from", SHOT, ("labelled", "{raw}"), no_labels),
    ("no such channel to show", f"{SHOT} --ask channel=2", ("channel=2", "2 channels"), nothing),
    ("split to prompt from is unknown", f"{SHOT} --split many", ("splits_many.json",), nothing),
    ("results of another prompter", SHOT, (f"{CASES[0]}.json", "--out"), other_result),
    ("dataset to prompt is unknown", SHOT.replace("990", "17"), ("dataset 17",), nothing),
    ("prompter to try is unknown", "zero-shot 990 someone --out {root}/out", ("'someone'", "sam:"), nothing),
    # ---- the trainer that prompts
    ("no promptable model", SEMI, ("LimitedSemiSAMTrainer", "prompter=sam:FOLDER"), nothing),
    ("promptable model does not exist", f"{SEMI} --set prompter=sam:no", ("no/config.json",), nothing),
    ("agreement beyond all", f"{SEMI} --set prompter_agreement=2", ("prompter_agreement=2",), nothing),
    ("no consensus to learn", f"{TRAIN} -tr LimitedPromptedPseudoLabelTrainer", ("consensus", "pseudo-label"), nothing),
]
