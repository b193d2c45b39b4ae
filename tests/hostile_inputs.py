"""Inputs of an attacker: datasets, models, rounds and studies got from a stranger, each of which wants to act."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import torch
from shapes import TINY_SAM
from wrong_input import CASES, CROSSVAL, NAME, PLAN, PLANS, RUN, TEACHER, TRAIN, World
from wrong_input_names import listed
from wrong_input_patients import loop, study
from wrong_input_pseudo import MAKE, SELF, STORED, stored, trained
from wrong_input_queries import ABSORB, QUERY, a_round

SPLIT = "split 990 --name x --folds 2"
STUDY = "study run {root}/s.yaml --out {root}/out --gpus 0"
LOOP = "simulate-al {root}/s.yaml --out {root}/out --gpus 0"
STATUS = "study status {root}/out"
SHOT = "zero-shot 990 PROMPTER --out {root}/out -device cpu"
VICTIM = "Dataset001_Victim"
OUT = f"../../../raw/{VICTIM}/labelsTr/case_00"
EVIL = "evilmod"  # a module in the working folder, on sys.path too
# Name, command, exit status, and how the world is spoilt before.
Attack = tuple[str, str, int, Callable[[World], Any]]


def canary(world: World) -> Path:
    """Return the file that appears when something acts."""
    return world.root.parent / "CANARY"


class Act:
    """An object whose pickle makes a file when it is loaded."""

    def __init__(self, world: World) -> None:
        self.file = str(canary(world))

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.file}",)


class ActByModule(Act):
    """One whose pickle imports a module."""

    def __reduce__(self) -> Any:
        return __import__, (EVIL,)


class ActByCode(Act):
    """One whose pickle is of builtins only."""

    def __reduce__(self) -> Any:
        return exec, (f"open({self.file!r}, 'w')",)


def of_dataset(key: str, name: str) -> Callable[[World], Any]:
    """List the first case under another name in dataset.json."""

    def spoil(world: World) -> None:
        listed(world)
        content = json.loads((world.raw / "dataset.json").read_text(encoding="utf-8"))
        entry = content["dataset"].pop(CASES[0])
        content.setdefault(key, {})[name] = entry
        world.dataset_json(dataset=content["dataset"], **({key: content[key]} if key != "dataset" else {}))

    return spoil


def renamed(new: str) -> Callable[[World], Any]:
    """Give the first case another name on the disk."""

    def spoil(world: World) -> None:
        for file in [*world.raw.glob(f"*Tr/{CASES[0]}*")]:
            file.rename(file.with_name(file.name.replace(CASES[0], new)))

    return spoil


def described(**changes: Any) -> Callable[[World], Any]:
    return lambda world: world.dataset_json(**changes)


def fold(**changes: Any) -> Callable[[World], Any]:
    return lambda world: world.fold(**changes)


def architecture(name: str, **layers: str) -> Callable[[World], Any]:
    """Let the plans name a network, and layers of it."""

    def change(plans: Any) -> None:
        made = plans["configurations"]["2d"]["architecture"]
        made["network_class_name"] = name or made["network_class_name"]
        made["arch_kwargs"] |= layers

    return lambda world: world.plans(change)


def configured(**changes: Any) -> Callable[[World], Any]:
    return lambda world: world.plans(lambda plans: plans["configurations"]["2d"].update(changes))


def planned(**changes: Any) -> Callable[[World], Any]:
    return lambda world: world.plans(lambda plans: plans.update(changes))


def saved(kind: type[Act], name: str = "latest", finished: bool = False, **options: Any) -> Callable[[World], Any]:
    """Put an object that acts into a checkpoint of a run, which may be ``finished``."""

    def spoil(world: World) -> None:
        world.checkpoint(TEACHER, name)
        if finished:
            trained(world)
        file = world.results / RUN / "fold_0" / f"checkpoint_{name}.pth"
        content = torch.load(file, weights_only=False)
        content["logging"] = {**content["logging"], "x": [kind(world)]}
        torch.save(content, file, **options)

    return spoil


def weights(write: Callable[[World, Path], Any]) -> Callable[[World], Any]:
    """Write a file of weights to start from."""
    return lambda world: write(world, world.root / "w.pth")


def tarred(world: World, file: Path) -> None:
    content = pickle.dumps(Act(world))
    with tarfile.open(file, "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))


def old(world: World, file: Path) -> None:
    torch.save({"network_weights": Act(world)}, file, _use_new_zipfile_serialization=False)


def program(world: World, file: Path) -> None:
    torch.jit.trace(torch.nn.Identity(), torch.ones(1)).save(str(file))


def within_array(world: World, file: Path) -> None:
    torch.save({"network_weights": np.array([Act(world)], object)}, file)


def of_case(unlabeled: bool = False, kind: type[Act] = Act) -> Callable[[World], Any]:
    """Let the properties of a preprocessed case act."""

    def spoil(world: World) -> None:
        found = sorted(world.preprocessed.glob("nnUNetLimited_*/*.pkl"))
        file = next(file for file in found if file.parent.name.endswith("_unlabeled") == unlabeled)
        size = file.stat().st_size
        content = pickle.dumps({"class_locations": {}, "x": kind(world)})
        file.write_bytes(content + b"\0" * max(0, size - len(content)))  # of the size that is recorded

    return spoil


def lazy_array(world: World) -> None:
    """Let a preprocessed image be one that blosc2 computes when it is read."""
    file = sorted(world.preprocessed.glob("nnUNetLimited_*_2d/*_seg.b2nd"))[0]
    a = blosc2.asarray(np.ones(4), urlpath=str(world.root / "a.b2nd"), mode="w")
    file.unlink()
    (a + a).save(urlpath=str(file))


def pseudo_labels(**changes: Any) -> Callable[[World], Any]:
    return lambda world: stored(world, **changes)


def handed(**changes: Any) -> Callable[[World], Any]:
    return lambda world: a_round(world, **changes)


def asked(case: str) -> Callable[[World], Any]:
    """Let a round ask for a case of this name."""
    query = {"case": case, "start": [0, 0, 0], "size": [16, 16, 16], "score": 1.0, "minutes": 1.0, "why": "x"}
    return handed(queries=[query], prefilled={case: {"file": "0", "regions": ["0"]}})


def text(file: str, content: str) -> Callable[[World], Any]:
    return lambda world: world.text(file, content.replace("{canary}", str(canary(world))))


def moved_to(name: str) -> Callable[[World], Any]:
    """Give the folder of the raw dataset another name, for a study of it."""

    def spoil(world: World) -> None:
        study()(world)
        world.raw.rename(world.raw.with_name(name))
        shutil.rmtree(world.preprocessed)

    return spoil


def study_folder(**changes: Any) -> Callable[[World], Any]:
    """Let there be the folder of a study that has begun."""

    def spoil(world: World) -> None:
        study(**changes)(world)
        (world.root / "s.yaml").replace(world.root / "out_study.yaml")
        world.text("out/study.yaml", (world.root / "out_study.yaml").read_bytes())

    return spoil


def sam(**changes: Any) -> Callable[[World], Any]:
    """Let there be a folder of SAM with another config.json."""

    def spoil(world: World) -> None:
        shutil.copytree(TINY_SAM, world.root / "sam")
        config = world.root / "sam" / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text(encoding="utf-8")), **changes}), encoding="utf-8")

    return spoil


def pickled_sam(world: World) -> None:
    sam()(world)
    (world.root / "sam" / "model.safetensors").write_bytes(pickle.dumps(Act(world)))


def nninteractive(network: str = "", content: type[Act] | None = None) -> Callable[[World], Any]:
    """Let there be a folder of nnInteractive."""

    def spoil(world: World) -> None:
        folder = world.root / "nn"
        (folder / "fold_0").mkdir(parents=True)
        plans = {"configurations": {"a": {"architecture": {"network_class_name": network}}}} if network else {}
        world.text("nn/plans.json", json.dumps(plans))
        world.text("nn/dataset.json", "{}")
        world.text("nn/LICENSE", "x")
        torch.save({"x": content(world) if content else 0}, folder / "fold_0" / "checkpoint_final.pth")

    return spoil


NN = SHOT.replace("PROMPTER", "nninteractive:{root}/nn --accept-licence x")
SAM = SHOT.replace("PROMPTER", "sam:{root}/sam")
TINY = SHOT.replace("PROMPTER", "tiny-vit:{root}/w.pth")
START = f"{TRAIN} -pretrained_weights {{root}}/w.pth"
DEEP = "[" * 200_000

RAW: list[Attack] = [
    ("case leads into another dataset", SPLIT, 2, of_dataset("dataset", OUT)),
    ("unlabelled case leads out", SPLIT, 2, of_dataset("unlabeled", "../../evil")),
    ("absolute case", SPLIT, 2, of_dataset("dataset", "/tmp/evil")),
    ("case is the parent folder", SPLIT, 2, of_dataset("dataset", "..")),
    ("case with backslashes", SPLIT, 2, of_dataset("dataset", "..\\evil")),
    ("case with NUL", SPLIT, 2, of_dataset("dataset", "a\0b")),
    ("case that clears the screen", SPLIT, 2, of_dataset("dataset", "\x1b[2Ja")),
    ("case that reverses text", SPLIT, 2, of_dataset("dataset", "a\u202egz.iin")),
    ("case of a lone surrogate", SPLIT, 2, of_dataset("dataset", "a\ud800")),
    ("case of 300 letters", SPLIT, 2, of_dataset("unlabeled", "a" * 300)),
    ("hidden case", SPLIT, 2, of_dataset("unlabeled", ".bashrc")),
    ("file with an end of line", SPLIT, 2, renamed("a\nerror: b")),
    ("file that clears the screen", SPLIT, 2, renamed("\x1b]0;x\x07")),
    ("file with a backslash", SPLIT, 2, renamed("a\\b")),
    ("ending leads out", SPLIT, 2, described(file_ending="/../../x.nii.gz")),
    ("view of a path", SPLIT, 2, described(view_of=f"../../{VICTIM}")),
    ("label clears the screen", SPLIT, 2, described(labels={"background": 0, "\x1b[2J": 1, "b": 2})),
    ("channel with an end of line", SPLIT, 2, described(channel_names={"0": "a\nb", "1": "c"})),
    ("reader of another package", SPLIT, 2, described(overwrite_image_reader_writer=f"{EVIL}.Reader")),
    ("dataset.json of brackets", SPLIT, 2, text(f"raw/{NAME}/dataset.json", DEEP)),
    ("folder with an end of line", SPLIT, 2, moved_to("Dataset990_a\nb")),
]
PREPROCESSED: list[Attack] = [
    ("training case leads out", PLAN, 2, fold(train=[OUT, CASES[1]])),
    ("absolute validation case", PLAN, 2, fold(val=["/tmp/evil"])),
    ("unlabelled case with an end of line", PLAN, 2, fold(unlabeled=["a\nb"])),
    ("network of a module beside", TRAIN, 2, architecture(f"{EVIL}.Net")),
    ("network is a function of Python", TRAIN, 2, architecture("os.system")),
    ("network by a detour", TRAIN, 2, architecture("torch.nn.modules.module.torch.hub.load")),
    ("network is another class of a module", TRAIN, 2, architecture("nnunetv2.run.run_training.subprocess.Popen")),
    ("network of a package named alike", TRAIN, 2, architecture("nnunetv2evil.Net")),
    ("network is no name", TRAIN, 2, architecture("torch.nn.Linear(1, 1).__class__")),
    ("layer of a module beside", TRAIN, 2, architecture("", conv_op=f"{EVIL}.Conv")),
    ("layer is a function of PyTorch", TRAIN, 2, architecture("", norm_op="torch.nn.functional.torch.load")),
    ("network for configure", f"configure {PLANS} -d 990 --set seed=1", 2, architecture(f"{EVIL}.Net")),
    ("network for crossval", f"{CROSSVAL} --folds 0", 2, architecture(f"{EVIL}.Net")),
    ("data elsewhere", TRAIN, 2, configured(data_identifier=f"../../raw/{VICTIM}")),
    ("absolute data", TRAIN, 2, configured(data_identifier="/tmp/evil")),
    ("preprocessor of a module", TRAIN, 2, configured(preprocessor_name=f"{EVIL}.P")),
    ("normalization of a module", TRAIN, 2, configured(normalization_schemes=[f"{EVIL}.N", "os.system"])),
    ("resampling of a module", TRAIN, 2, configured(resampling_fn_data=f"{EVIL}.resample")),
    ("reader of a module", TRAIN, 2, planned(image_reader_writer=f"{EVIL}.Reader")),
    ("label manager of a module", TRAIN, 2, planned(label_manager=f"{EVIL}.Labels")),
    ("name of plans leads out", TRAIN.replace(PLANS, "../x"), 2, lambda w: w.text("preprocessed/x.json", "{}")),
    ("configuration leads out", TRAIN, 2, lambda w: w.plans(lambda p: p["configurations"].update({"../../x": {}}))),
    ("properties of a labelled case", TRAIN, 2, of_case()),
    ("properties of an unlabelled case", TRAIN, 2, of_case(unlabeled=True)),
    ("properties of builtins", TRAIN, 2, of_case(kind=ActByCode)),
    ("properties that plan looks at", PLAN, 0, of_case()),
    ("label that is computed", TRAIN, 2, lazy_array),
]
MODELS: list[Attack] = [
    ("checkpoint to resume", f"{TRAIN} --c", 2, saved(Act)),
    ("checkpoint imports a module", f"{TRAIN} --c", 2, saved(ActByModule)),
    ("old checkpoint", f"{TRAIN} --c", 2, saved(Act, _use_new_zipfile_serialization=False)),
    ("checkpoint to validate", f"{TRAIN} --val", 2, saved(ActByCode, "final")),
    ("checkpoint of crossval", f"{CROSSVAL} --folds 0 -tr {TEACHER}", 2, saved(Act, "best")),
    ("checkpoint that labels", MAKE, 2, saved(Act, "final", finished=True)),
    ("checkpoint that queries", QUERY, 2, saved(Act, "final", finished=True)),
    ("weights to start from", START, 2, weights(lambda w, f: torch.save({"network_weights": Act(w)}, f))),
    ("weights by a module", START, 2, weights(lambda w, f: torch.save({"network_weights": ActByModule(w)}, f))),
    (
        "weights in the old format",
        START,
        2,
        weights(old),
    ),
    ("weights are a bare pickle", START, 2, weights(lambda w, f: f.write_bytes(pickle.dumps(Act(w))))),
    ("weights are a tar archive", START, 2, weights(tarred)),
    ("weights in an array", START, 2, weights(within_array)),
    (
        "weights are a program",
        START,
        2,
        weights(program),
    ),
    (
        "prompter in the old format",
        TINY,
        2,
        weights(old),
    ),
    ("prompter is a pickle", SAM, 2, pickled_sam),
    ("attention of a hub", SAM, 0, sam(attn_implementation="evil/kernel", _attn_implementation="evil/kernel")),
    ("code of a hub", SAM, 0, sam(auto_map={"AutoModel": f"{EVIL}.Net", "AutoConfig": f"{EVIL}.Net"})),
    ("network of nnInteractive", NN, 2, nninteractive(f"{EVIL}.Net")),
    ("checkpoint of nnInteractive", NN, 2, nninteractive(content=Act)),
]
WORK: list[Attack] = [
    ("ending of pseudo-labels leads out", SELF, 2, pseudo_labels(file_ending="/../../../x.nii.gz")),
    ("case of pseudo-labels leads out", SELF, 2, pseudo_labels(cases={"../../x": {}})),
    ("cases of pseudo-labels are a list", SELF, 2, pseudo_labels(cases=["a"])),
    ("pseudo-labels of brackets", SELF, 2, text(f"{STORED}/model/fold_0/pseudo_labels.json", DEEP)),
    ("round asks for a path", ABSORB, 2, asked(OUT)),
    ("round asks for an absolute path", ABSORB, 2, asked("/tmp/evil")),
    ("round is of a path", ABSORB, 2, handed(dataset=f"../raw/{NAME}")),
    ("round of brackets", ABSORB, 2, text("results/round/queries.json", DEEP)),
    ("study file calls Python", STUDY, 2, text("s.yaml", "name: !!python/object/apply:os.system ['touch {canary}']")),
    ("study file of aliases", STUDY, 2, text("s.yaml", "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)))),
    ("study file of brackets", STUDY, 2, text("s.yaml", DEEP)),
    ("study file with numbers for keys", STUDY, 2, text("s.yaml", "1: 2\n3: 4\n")),
    ("study of a path", STUDY, 2, study(datasets=["../../x"])),
    ("method clears the screen", STUDY, 2, study(methods=[{"name": "a\x1b[2J"}])),
    ("labelled size leads out", STUDY, 2, study(labeled=["../../x"])),
    ("configuration of a study leads out", STUDY, 2, study(configurations=["../../x"])),
    ("strategy leads out", LOOP, 2, loop(strategies=["../../x"])),
    ("folder of a study of a path", STATUS, 2, study_folder(datasets=["../../x"])),
    ("folder of a study with a size that leads out", STATUS, 2, study_folder(labeled=["../../x"])),
    ("folder that a shell runs", STUDY, 2, moved_to("Dataset990_$(touch CANARY)")),
    ("folder with a quote", STUDY, 2, moved_to("Dataset990_a';touch CANARY;'")),
    ("folder with wildcards of Snakemake", STUDY, 2, moved_to("Dataset990_{input}")),
    ("folder with an option", STUDY, 2, moved_to("Dataset990_a,split=x --config a")),
]  # fmt: skip
TABLE = [*RAW, *PREPROCESSED, *MODELS, *WORK]
