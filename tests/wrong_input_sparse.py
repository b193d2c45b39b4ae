"""Wrong input to ``sparsify`` and ``import-labels``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from wrong_input import CASES, Row, World, nothing, write

OUT = "Dataset991_Sparse"
SPARSIFY = f"sparsify 990 --out {OUT} --kind"
LABELS = f"import-labels 990 --out {OUT} --labels {{root}}/drawn --unlabeled 9"
POINTS = f"import-labels 990 --out {OUT} --points {{root}}/points.csv"
BOXES = f"import-labels 990 --out {OUT} --boxes {{root}}/boxes.csv"
FIRST, SECOND = CASES[:2]


def drawn(case: str = FIRST, ending: str = ".nii.gz", spacing: float = 1.0, edge: int = 16, **values: float) -> Any:
    """Write a label with a voxel of each class into ``drawn/`` of the world, or of the ``values`` given by name."""

    def spoil(world: World) -> None:
        array = np.full((edge, 16, 16), 9.0)
        array[2, 2, :3] = 0, 1, 2
        for place, value in values.items():
            array[(slice(None),) if place == "everywhere" else (2, 2, int(place.removeprefix("at")))] = value
        write(world.root / "drawn" / f"{case}{ending}", array.astype(np.float32), spacing)

    return spoil


def table(name: str, *rows: str) -> Callable[[World], Any]:
    """Write a CSV file into the root of the world."""
    header = "case,class,x,y,z" if name == "points" else "case,class,x0,y0,z0,x1,y1,z1"
    return lambda world: world.text(f"{name}.csv", "\n".join([header, *rows]))


def no_labels(world: World) -> None:
    for case in CASES:
        (world.raw / "labelsTr" / f"{case}.nii.gz").unlink()


def only(spoil: Callable[[World], Any]) -> Callable[[World], Any]:
    """Let there be no label but those that ``spoil`` writes."""
    return lambda world: (no_labels(world), spoil(world))


TABLE: list[Row] = [
    ("sparsify into no dataset", "sparsify 990 --out sparse --kind boxes", ("--out sparse",), nothing),
    ("sparsify into a taken number", "sparsify 990 --out Dataset990_New --kind boxes", ("{raw}",), nothing),
    ("sparsify an unknown dataset", f"sparsify 123 --out {OUT} --kind boxes", ("123",), nothing),
    ("sparsify to an unknown kind", f"{SPARSIFY} circles", ("'circles'",), nothing),
    ("sparsify without labels", f"{SPARSIFY} boxes", ("{raw}", "no labelled case"), no_labels),
    ("sparsify a broken label", f"{SPARSIFY} boxes", (f"{FIRST}.nii.gz",), lambda w: w.spoil_label(FIRST)),
    ("margin of scribbles", f"{SPARSIFY} scribbles --margin 0.1", ("--margin 0.1", "boxes"), nothing),
    ("style of slices", f"{SPARSIFY} slices --style skeleton", ("--style skeleton", "scribbles"), nothing),
    ("patches without size", f"{SPARSIFY} patches", ("--size",), nothing),
    ("size that is none", f"{SPARSIFY} patches --size 8x", ("--size 8x",), nothing),
    ("size of a plane", f"{SPARSIFY} patches --size 8x8", ("--size 8x8", "3 axes"), nothing),
    ("points at equal distances", f"{SPARSIFY} points --placement equidistant", ("equidistant",), nothing),
    (
        "ignore label in between",
        f"{SPARSIFY} boxes",
        ("{raw}/dataset.json", "'ignore' is 1"),
        lambda w: w.dataset_json(labels={"background": 0, "ignore": 1, "b": 2}),
    ),
    ("nothing to import", f"import-labels 990 --out {OUT}", ("--labels, --boxes and --points",), nothing),
    ("two things to import", f"{LABELS} --points {{root}}/points.csv", ("2 of --labels",), nothing),
    ("labels that are not there", LABELS, ("{root}/drawn",), nothing),
    ("a folder without labels", LABELS, ("{root}/drawn", "no label file"), lambda w: w.text("drawn/readme.txt", "")),
    ("a label of no case", LABELS, ("p9_a.nii.gz",), drawn("p9_a")),
    (
        "two labels of a case",
        LABELS,
        (f"{FIRST}.nii.gz", f"{FIRST}.nrrd"),
        lambda w: (drawn()(w), drawn(ending=".nrrd")(w)),
    ),
    ("a scribble on another grid", LABELS, (f"{FIRST}.nii.gz", "spacing", "2.0"), drawn(spacing=2.0)),
    (
        "a scribble larger than its image",
        LABELS,
        (f"{FIRST}.nii.gz", "[16, 16, 20]", "1024 drawn voxels are outside"),
        drawn(edge=20, everywhere=1),
    ),
    ("a value outside the labels", LABELS, (f"{FIRST}.nii.gz", "value 5"), drawn(at7=5)),
    ("a value that is no number of a class", LABELS, (f"{FIRST}.nii.gz", "0.5"), drawn(at7=0.5)),
    ("a class that is never drawn", LABELS, ("{root}/drawn", "label 2 (core)"), only(drawn(at2=9))),
    ("nothing drawn", LABELS, (f"{FIRST}.nii.gz", "no annotated voxel"), drawn(everywhere=9)),
    ("an empty file", LABELS, (f"{FIRST}.nii.gz", "is empty"), lambda w: w.text(f"drawn/{FIRST}.nii.gz", "")),
    ("no segment", LABELS, (f"{FIRST}.seg.nrrd", "no segment"), drawn(ending=".seg.nrrd")),
    ("no value of the rest", LABELS.removesuffix(" --unlabeled 9"), ("--unlabeled",), drawn()),
    ("the rest is background", f"{LABELS} --background 9", ("--unlabeled 9", "--background"), drawn()),
    (
        "the rest is a class",
        LABELS.replace("--unlabeled 9", "--unlabeled 1"),
        ("--unlabeled 1", "class"),
        drawn(),
    ),
    ("the background is a class", f"{LABELS} --background 2", ("--background 2", "class"), drawn()),
    ("points that are not there", POINTS, ("{root}/points.csv",), nothing),
    ("no point", POINTS, ("{root}/points.csv", "no row"), table("points")),
    ("a point without depth", POINTS, ("points.csv, row 1", "'z'"), table("points", f"{FIRST},1,2,3,")),
    ("a point of letters", POINTS, ("points.csv, row 1", "'two'"), table("points", f"{FIRST},1,two,3,4")),
    ("a point of no case", POINTS, ("points.csv, row 1", "'p9'"), table("points", "p9,1,2,3,4")),
    ("a point of no class", POINTS, ("points.csv, row 1", "'liver'"), table("points", f"{FIRST},liver,2,3,4")),
    ("a point outside the image", POINTS, ("points.csv, row 1", "[2, 3, 40]"), table("points", f"{FIRST},1,2,3,40")),
    (
        "a class without point",
        POINTS,
        ("points.csv", "label 0 (background)"),
        only(table("points", f"{FIRST},1,2,3,4")),
    ),
    ("a box outside the image", BOXES, ("boxes.csv, row 1", "[2, 3, 4]"), table("boxes", f"{FIRST},1,2,3,4,5,6,70")),
    ("a box of background", BOXES, ("boxes.csv, row 1", "background"), table("boxes", f"{FIRST},0,2,3,4,5,6,7")),
    ("a class without box", BOXES, ("boxes.csv", "label 2 (core)"), only(table("boxes", f"{FIRST},1,2,3,4,5,6,7"))),
    (
        "an unlabelled case without images",
        "split 990 --name x",
        ("{raw}/dataset.json", "'case9'"),
        lambda w: w.dataset_json(unlabeled={"case9": {}}),
    ),
]
