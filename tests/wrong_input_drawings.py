"""Wrong label files, tables of boxes and points, and rounds of queries that were edited by hand."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import SimpleITK as sitk
from wrong_input import CASES, NAME, Row, World
from wrong_input_prompted import SHOT
from wrong_input_queries import ABSORB, a_round
from wrong_input_sparse import BOXES, FIRST, LABELS, POINTS, SECOND, drawn, no_labels, table

ZERO = LABELS.replace("--unlabeled 9", "--unlabeled 0 --background 9")
SEGMENTS = {1: "tumour", 2: "core", 9: "background"}


def grid(array: np.ndarray) -> sitk.Image:
    return sitk.GetImageFromArray(array, isVector=array.ndim == 4)


def strokes(**more: int) -> np.ndarray:
    array = np.zeros((16, 16, 16), np.uint8)
    array[2, 2, :3] = 9, 1, 2
    for place, value in more.items():
        array[5, 5, int(place.removeprefix("at"))] = value
    return array


def with_one(value: float, dtype: Any) -> np.ndarray:
    """Return strokes in which another value takes the place of 1."""
    array = strokes().astype(dtype)
    array[array == 1] = value
    return array


def segments(
    array: np.ndarray | None = None, ending: str = ".seg.nrrd", names: dict[int, str] = SEGMENTS, **header: str | None
) -> Callable[[World], Any]:
    """Write a segmentation of 3D Slicer; a value of None in ``header`` removes the key."""

    def spoil(world: World) -> None:
        image, keys = grid(strokes() if array is None else array), {}
        for number, (value, name) in enumerate(names.items()):
            keys |= {f"Segment{number}_LabelValue": str(value), f"Segment{number}_Layer": "0"}
            keys[f"Segment{number}_Name"] = name
        for key, text in {**keys, **header}.items():
            if text is not None:
                image.SetMetaData(key, text)
        (world.root / "drawn").mkdir(exist_ok=True)
        sitk.WriteImage(image, str(world.root / "drawn" / f"{FIRST}{ending}"))

    return spoil


def label_map(
    array: np.ndarray, ending: str = ".nii.gz", change: Callable[[sitk.Image], Any] = lambda image: None
) -> Any:
    """Write a label map, after a ``change`` of its image."""

    def spoil(world: World) -> None:
        image = grid(array)
        made = None if change is None else change(image)
        (world.root / "drawn").mkdir(exist_ok=True)
        sitk.WriteImage(image if made is None else made, str(world.root / "drawn" / f"{FIRST}{ending}"))

    return spoil


def cut(world: World) -> None:
    """Let a drawing end early, as a copy that was interrupted."""
    drawn()(world)
    file = world.root / "drawn" / f"{FIRST}.nii.gz"
    file.write_bytes(file.read_bytes()[:-12])


def answer(**query: Any) -> Callable[[World], Any]:
    """Let there be a round whose only query was changed, and an answer to it."""

    def spoil(world: World) -> None:
        a_round(world)
        file = world.root / "results/round/queries.json"
        content = json.loads(file.read_text(encoding="utf-8"))
        content["queries"][0] |= query
        file.write_text(json.dumps(content), encoding="utf-8")
        (world.root / "results/round/labels").mkdir()
        sitk.WriteImage(grid(strokes() % 3), str(world.root / f"results/round/labels/{CASES[0]}.nii.gz"))

    return spoil


def with_oracle(spoil: Callable[[World], Any]) -> Callable[[World], Any]:
    return lambda world: (spoil(world), (world.raw / "labelsTr").rename(world.root / "oracle"))


def origin(**changes: Any) -> Callable[[World], Any]:
    return lambda world: world.text(f"raw/{NAME}/annotations.json", json.dumps(changes))


def aliases(world: World) -> None:
    lines = (f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
    world.text("s.yaml", "a0: &a0 [x]\n" + "".join(lines))


STUDY = "study plan {root}/s.yaml --out {root}/results/st"
COLD = "query 990 --split few -f 0 --items 1 --strategy random --out {root}/results/round"
MITK = "org.mitk.multilabel.segmentation.labelgroups"
TABLE: list[Row] = [
    # ---- what nobody drew
    ("a value that nobody used", LABELS.replace("--unlabeled 9", "--unlabeled 255 --background 9"), (
        "--unlabeled 255", "{root}/drawn"), label_map(np.where(strokes() == 0, 9, strokes()).astype(np.uint8))),
    ("zeros that nobody drew", LABELS.replace("--unlabeled 9", "--unlabeled 7"), ("--unlabeled 7", "labelsTr"),
     label_map(strokes() % 9)),
    # ---- headers of 3D Slicer and MITK
    ("a segment of letters", ZERO, (f"{FIRST}.seg.nrrd", "Segment0_LabelValue", "'abc'"),
     segments(Segment0_LabelValue="abc")),
    ("a segment of a fraction", ZERO, ("Segment1_LabelValue", "'1.5'"), segments(Segment1_LabelValue="1.5")),
    ("a segment of nothing", ZERO, ("Segment1_LabelValue", "'0'"), segments(Segment1_LabelValue="0")),
    ("a segment without value", ZERO, ("Segment2_LabelValue", "''"), segments(Segment2_LabelValue=None)),
    ("a layer that is not there", ZERO, ("Segment0_Layer is 7", "1 layers"), segments(Segment0_Layer="7")),
    ("a layer below the first", ZERO, ("Segment0_Layer", "'-1'"), segments(Segment0_Layer="-1")),
    ("voxels of no segment", ZERO, (f"{FIRST}.seg.nrrd", "value 5"), segments(strokes(at1=5))),
    ("voxels of a segment that a gap hides", ZERO, ("value 2", "none of its 2"), segments(
        names={1: "tumour", 9: "background"})),
    ("names in a plain file", ZERO, (f"{FIRST}.nrrd", "'Segment_1'", "tumour"), segments(
        ending=".nrrd", names={1: "Segment_1", 2: "core", 9: "background"})),
    ("no names and no values", ZERO, (f"{FIRST}.seg.nrrd", "without LabelValue"), segments(
        **{f"Segment{n}_LabelValue": None for n in range(3)})),
    ("an empty segmentation", ZERO, (f"{FIRST}.seg.nrrd", "nothing is drawn"), segments(np.zeros((1, 1, 1), np.uint8))),
    ("segments outside of the scan", ZERO, (f"{FIRST}.seg.nrrd", "2 drawn voxels are outside"), segments(
        np.pad(strokes(), ((0, 4), (0, 0), (0, 0)))[::-1])),
    ("damaged groups of MITK", ZERO, (f"{FIRST}.nrrd", "damaged"), segments(ending=".nrrd", names={}, **{MITK: "[{"})),
    ("more groups than layers", ZERO, ("2 groups", "MITK"), segments(
        ending=".nrrd", names={}, **{MITK: '[{"labels": []}, {"labels": []}]'})),
    ("some names of MITK", ZERO, ("'Label 3'", "core"), segments(ending=".nrrd", names={}, **{MITK: json.dumps(
        [{"labels": [{"name": n, "value": v} for n, v in (("tumour", 1), ("Label 3", 2), ("background", 9))]}])})),
    # ---- values and grids
    ("a value above 16 bits", ZERO, ("65537",), label_map(with_one(65537, np.uint32))),
    ("a value below zero", ZERO, ("value -1",), label_map(with_one(-1, np.int16))),
    ("a value that is infinite", ZERO, ("value inf",), label_map(with_one(np.inf, np.float64))),
    ("a value that is almost one", ZERO, ("0.99999994",), label_map(with_one(0.99999994, np.float32))),
    ("a drawing cut short", LABELS, (f"{FIRST}.nii.gz", "ends early"), cut),
    ("a shifted drawing", ZERO, (f"{FIRST}.nii.gz", "origin [2.0, 0.0, 0.0]"), label_map(
        strokes(), change=lambda image: image.SetOrigin((2, 0, 0)))),
    ("a mirrored drawing", ZERO, (f"{FIRST}.nii.gz", "direction [-1.0"), label_map(
        strokes(), change=lambda image: image.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1)))),
    ("a drawing between the axes", ZERO, (f"{FIRST}.mha", "direction"), label_map(
        strokes(), ".mha", lambda image: image.SetDirection((0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1)))),
    ("a drawing over time", ZERO, (f"{FIRST}.nii.gz", "4 dimensions"), label_map(
        strokes(), change=lambda image: sitk.JoinSeries([image, image]))),
    ("a drawing in colours", ZERO, (f"{FIRST}.nrrd", "3 channels"), label_map(np.stack([strokes()] * 3, -1), ".nrrd")),
    ("a drawing with another ending", ZERO, (f"{FIRST}.mhd", "is read;"), lambda w: (
        drawn(SECOND)(w), w.text(f"drawn/{FIRST}.mhd", "NDims = 3"))),
    ("a drawing with a suffix", LABELS, (f"{FIRST}-label.nii.gz", f"{FIRST}.nii.gz"), drawn(f"{FIRST}-label")),
    ("a drawing that is a dangling link", LABELS, (f"{FIRST}.nii.gz", "link"), lambda w: (
        (w.root / "drawn").mkdir(), os.symlink("gone.nii.gz", w.root / "drawn" / f"{FIRST}.nii.gz"))),
    # ---- study files and results of zero-shot
    ("a study file of aliases", STUDY, ("s.yaml", "100,000 values"), aliases),
    ("a study file of brackets", STUDY, ("s.yaml", "not readable YAML"), lambda w: w.text("s.yaml", "[" * 5_000)),
    ("a study file that holds itself", STUDY, ("s.yaml", "100,000 values"), lambda w: w.text("s.yaml", "a: &a [*a]\n")),
    ("results of zero-shot on another dataset", SHOT, (f"{FIRST}.json", "another dataset", "delete {root}/out"),
     lambda w: w.text(f"out/cases/{FIRST}.json", json.dumps({"asked": {"dataset": "Dataset001_Other"}}))),
    # ---- tables
    ("a point that is no number", POINTS, ("row 1", "'nan'", "not a number"), table("points", f"{FIRST},1,nan,3,4")),
    ("a point that is infinite", POINTS, ("row 1", "'1e400'"), table("points", f"{FIRST},1,2,1e400,4")),
    ("a point with a decimal comma", POINTS, ("row 2", "more values", "'4'", "with a point"), table(
        "points", f"{FIRST},1,2,3,4", f"{FIRST},2,2,5,3,4")),
    ("a box with a decimal comma", BOXES, ("row 1", "more values"), table("boxes", f"{FIRST},1,2,3,4,5,6,7,5")),
    ("points of 3D Slicer in JSON", POINTS.replace("csv", "mrk.json"), ("points.mrk.json", "not a list"),
     lambda w: w.text("points.mrk.json", json.dumps({"markups": [{"coordinateSystem": "LPS", "controlPoints": []}]}))),
    ("a box that is no number", BOXES, ("row 2", "x1 is 'NaN'"), table(
        "boxes", f"{FIRST},1,2,3,4,5,6,7", f"{FIRST},1,2,3,4,NaN,6,7")),
    ("a box between voxels", BOXES, ("row 1", "middle of no voxel"), table("boxes", f"{FIRST},1,2.3,3,4,2.6,6,7")),
    ("a point in a JSON of letters", POINTS.replace("csv", "json"), ("points.json", "not readable"), lambda w: w.text(
        "points.json", "[" * 100_000)),
    ("a class that others do not teach", ZERO, ("label 2 (core)", "drawn in no case"), lambda w: (
        no_labels(w), w.label(SECOND), label_map(np.where(strokes() == 2, 0, strokes()).astype(np.uint8))(w))),
    # ---- rounds and records edited by hand
    ("a query of an unknown case", ABSORB, ("results/round", "'p9'"), answer(case="p9")),
    ("a query of an unknown case, by an oracle", f"{ABSORB} --oracle {{root}}/oracle", ("queries.json", "'p9'"),
     with_oracle(answer(case="p9"))),
    ("a query of letters", ABSORB, ("queries.json", "start.0"), answer(start=["a", 0, 0])),
    ("a query below zero", ABSORB, ("queries.json", "start.0"), answer(start=[-5, 0, 0])),
    ("a query of nothing", ABSORB, ("queries.json", "size.1"), answer(size=[4, 0, 4])),
    ("a query larger than the scan", ABSORB, (CASES[0], "[1000, 16, 16]", "[16, 16, 16]"), answer(size=[1000, 16, 16])),
    ("a large query, by an oracle", f"{ABSORB} --oracle {{root}}/oracle", (CASES[0], "[17, 16, 16]"),
     with_oracle(answer(size=[17, 16, 16]))),
    ("a query of two axes", ABSORB, (CASES[0], "[4, 4]"), answer(start=[0, 0], size=[4, 4])),
    ("a round of another unit", ABSORB, ("queries.json", "granularity"), lambda w: a_round(
        w, granularity=["cube", None, []])),
    ("a round of letters", ABSORB, ("queries.json", "round"), lambda w: a_round(w, round="x")),
    ("a round that takes no time", ABSORB, ("queries.json", "seconds"), lambda w: a_round(w, seconds=-1)),
    ("a round without initial label", ABSORB, ("queries.json", CASES[0]), lambda w: a_round(w, prefilled={})),
    ("a round without queries", ABSORB, ("queries.json", "no query", "restore it"), lambda w: a_round(w, queries=[])),
    ("a query that was not handed out", ABSORB, ("queries.json", "'p9'", "prefilled"), lambda w: (
        a_round(w), w.edit("results/round/queries.json", lambda c: c["queries"][0].update(case="p9")))),
    ("an answer in the folder of the round", ABSORB, (f"round/{CASES[0]}.seg.nrrd", "{root}/results/round/labels"),
     lambda w: (answer()(w), w.text(f"results/round/{CASES[0]}.seg.nrrd", ""))),
    ("an answer beside the scans", ABSORB, (f"images/{CASES[0]}-label.nii.gz", "move it there"),
     lambda w: (answer()(w), w.text(f"results/round/images/{CASES[0]}-label.nii.gz", ""))),
    ("an answer in parts", ABSORB, (f"{CASES[0]}_core.nii.gz", "one of 2 files"), lambda w: (
        answer()(w), [w.text(f"results/round/labels/{CASES[0]}_{part}.nii.gz", "") for part in ("core", "edge")])),
    ("an answer of MITK without values", ABSORB, (f"{CASES[0]}.nrrd", "damaged", "MITK"), lambda w: (
        answer()(w), segments(ending=".nrrd", names={}, **{MITK: '[{"labels": [{"name": "core"}]}]'})(w),
        (w.root / f"results/round/labels/{CASES[0]}.nii.gz").unlink(),
        (w.root / f"drawn/{FIRST}.nrrd").rename(w.root / f"results/round/labels/{CASES[0]}.nrrd"))),
    ("a record of letters", COLD, ("annotations.json", "round is 'x'"), origin(round="x")),
    ("a record of a Dice in words", COLD, ("annotations.json", "dice.0"), origin(round=1, dice=["good"])),
    ("a record that is a list", COLD, ("annotations.json", "not a JSON object"), lambda w: w.text(
        f"raw/{NAME}/annotations.json", "[]")),
]  # fmt: skip
