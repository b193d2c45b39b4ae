"""Wrong names and descriptions: files, folders and keys that nobody would read, and what nnU-Net reads last."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

from wrong_input import CASES, NAME, PLAN, Row, World

SPLIT, CASE = "split 990 --name x", CASES[0]
DESCRIPTION = "{raw}/dataset.json"
REGIONS = {"background": 0, "whole": [1, 2], "core": 2}


def moved(old: str, new: str) -> Callable[[World], Any]:
    """Give an entry of the raw dataset another name."""
    return lambda w: (w.raw / old).rename(w.raw / new)


def unlabeled(world: World, name: str = "u_{}.nii.gz") -> None:
    """Put a case of two channels into imagesUn, copied from a labelled one; ``name`` holds its channel's number."""
    (world.raw / "imagesUn").mkdir()
    for channel in range(2):
        source = world.raw / f"imagesTr/{CASES[1]}_{channel:04d}.nii.gz"
        shutil.copy(source, world.raw / "imagesUn" / name.format(f"{channel:04d}"))


def listed(world: World, **entry: Any) -> None:
    """List the cases in dataset.json, the first of them with the changes of ``entry``."""
    cases = {
        case: {"images": [f"imagesTr/{case}_{k:04d}.nii.gz" for k in range(2)], "label": f"labelsTr/{case}.nii.gz"}
        for case in CASES
    }
    cases[CASE] |= entry
    world.dataset_json(dataset=cases)


def listed_as(world: World, name: str) -> None:
    world.dataset_json(unlabeled={name: {"images": ["a_0000.nii.gz", "a_0001.nii.gz"]}})


def pair(world: World, suffix: str) -> None:
    """Add a case named like another with a suffix."""
    for channel in range(2):
        shutil.copy(
            world.raw / f"imagesTr/{CASE}_{channel:04d}.nii.gz",
            world.raw / f"imagesTr/{CASE}{suffix}_{channel:04d}.nii.gz",
        )


def regions(order: Any, **labels: Any) -> Callable[[World], None]:
    return lambda w: w.dataset_json(labels=labels or REGIONS, regions_class_order=order)


def linked(world: World, name: str, target: str = "gone.nii.gz") -> None:
    (world.raw / name).unlink()
    (world.raw / name).symlink_to(target)


def piped(world: World, name: str) -> None:
    (world.raw / name).unlink()
    os.mkfifo(world.raw / name)


TABLE: list[Row] = [
    # ---- labels that would be absent
    (
        "label in other letters",
        SPLIT,
        ("{raw}/labelsTr/P0_A.nii.gz", "rename it to p0_a.nii.gz"),
        moved(f"labelsTr/{CASE}.nii.gz", "labelsTr/P0_A.nii.gz"),
    ),
    (
        "label with another ending",
        SPLIT,
        ("{raw}/labelsTr/p0_a.nii ", "only .nii.gz"),
        moved(f"labelsTr/{CASE}.nii.gz", f"labelsTr/{CASE}.nii"),
    ),
    (
        "label in capitals",
        PLAN,
        ("{raw}/labelsTr/p0_a.NII.GZ",),
        moved(f"labelsTr/{CASE}.nii.gz", f"labelsTr/{CASE}.NII.GZ"),
    ),
    (
        "label of Slicer",
        SPLIT,
        ("{raw}/labelsTr/p0_a.seg.nrrd", "only .nii.gz"),
        moved(f"labelsTr/{CASE}.nii.gz", f"labelsTr/{CASE}.seg.nrrd"),
    ),
    (
        "label with a suffix",
        SPLIT,
        ("{raw}/labelsTr/p0_a-label.nii.gz", "rename it to p0_a.nii.gz"),
        moved(f"labelsTr/{CASE}.nii.gz", f"labelsTr/{CASE}-label.nii.gz"),
    ),
    (
        "label named like an image",
        PLAN,
        ("{raw}/labelsTr/p0_a_0000.nii.gz", "rename it to p0_a.nii.gz"),
        moved(f"labelsTr/{CASE}.nii.gz", f"labelsTr/{CASE}_0000.nii.gz"),
    ),
    (
        "label of no case",
        SPLIT,
        ("{raw}/labelsTr/q7.nii.gz", "no case"),
        lambda w: shutil.copy(w.raw / f"labelsTr/{CASE}.nii.gz", w.raw / "labelsTr/q7.nii.gz"),
    ),
    (
        "label in a second format",
        SPLIT,
        ("{raw}/labelsTr/p0_a.nhdr", "only .nii.gz"),
        lambda w: w.text(f"raw/{NAME}/labelsTr/{CASE}.nhdr", ""),
    ),
    (
        "picture in place of a label",
        SPLIT,
        ("{raw}/labelsTr/p0_a.png",),
        moved(f"labelsTr/{CASE}.nii.gz", f"labelsTr/{CASE}.png"),
    ),
    (
        "label in a folder",
        SPLIT,
        ("{raw}/labelsTr/p0_a is a folder",),
        lambda w: (
            (w.raw / f"labelsTr/{CASE}").mkdir(),
            (w.raw / f"labelsTr/{CASE}.nii.gz").rename(w.raw / f"labelsTr/{CASE}/label.nii.gz"),
        ),
    ),
    (
        "label is a dangling link",
        SPLIT,
        ("{raw}/labelsTr/p0_a.nii.gz", "gone.nii.gz"),
        lambda w: linked(w, f"labelsTr/{CASE}.nii.gz"),
    ),
    (
        "label is a link to itself",
        PLAN,
        ("{raw}/labelsTr/p0_a.nii.gz",),
        lambda w: linked(w, f"labelsTr/{CASE}.nii.gz", f"{CASE}.nii.gz"),
    ),
    (
        "label to validate on has another name",
        SPLIT,
        ("{raw}/labelsVal/p0_b_gt.nii.gz", "rename it to p0_b.nii.gz"),
        lambda w: w.text(f"raw/{NAME}/labelsVal/p0_b_gt.nii.gz", ""),
    ),
    (
        "boxes have another ending",
        PLAN,
        ("{raw}/labelsBoxes/p0_b.nii ",),
        lambda w: w.text(f"raw/{NAME}/labelsBoxes/p0_b.nii", ""),
    ),
    (
        "label of an unlabelled case",
        SPLIT,
        ("{raw}/labelsTr/u.nii.gz", "move its images to imagesTr"),
        lambda w: (unlabeled(w), w.text(f"raw/{NAME}/labelsTr/u.nii.gz", "")),
    ),
    # ---- images that would be absent
    (
        "unlabelled image with another ending",
        SPLIT,
        ("{raw}/imagesUn/u_0000.nii ",),
        lambda w: unlabeled(w, "u_{}.nii"),
    ),
    ("unlabelled image in capitals", SPLIT, ("{raw}/imagesUn/u_0000.NII.GZ",), lambda w: unlabeled(w, "u_{}.NII.GZ")),
    (
        "training image with another ending",
        PLAN,
        ("{raw}/imagesTr/p0_a_0001.mha",),
        moved(f"imagesTr/{CASE}_0001.nii.gz", f"imagesTr/{CASE}_0001.mha"),
    ),
    (
        "image is a dangling link",
        SPLIT,
        ("{raw}/imagesTr/p0_a_0001.nii.gz", "gone.nii.gz"),
        lambda w: linked(w, f"imagesTr/{CASE}_0001.nii.gz"),
    ),
    (
        "unlabelled image is a dangling link",
        SPLIT,
        ("{raw}/imagesUn/u_0000.nii.gz", "nowhere"),
        lambda w: (unlabeled(w), linked(w, "imagesUn/u_0000.nii.gz", "nowhere")),
    ),
    (
        "image is a pipe",
        SPLIT,
        ("{raw}/imagesTr/p0_a_0001.nii.gz", "a pipe"),
        lambda w: piped(w, f"imagesTr/{CASE}_0001.nii.gz"),
    ),
    (
        "image is a folder",
        PLAN,
        ("{raw}/imagesTr/q_0000.nii.gz", "a folder"),
        lambda w: (w.raw / "imagesTr/q_0000.nii.gz").mkdir(),
    ),
    ("folder in other letters", SPLIT, ("{raw}/labelsTR", "rename it to labelsTr"), moved("labelsTr", "labelsTR")),
    (
        "folder of unlabelled images in other letters",
        SPLIT,
        ("{raw}/imagesun", "rename it to imagesUn"),
        lambda w: (unlabeled(w), moved("imagesUn", "imagesun")(w)),
    ),
    (
        "folder is a dangling link",
        SPLIT,
        ("{raw}/imagesUn", "dangling link"),
        lambda w: (w.raw / "imagesUn").symlink_to("gone"),
    ),
    # ---- cases listed in dataset.json
    (
        "listed label does not exist",
        SPLIT,
        ("{raw}/labelsTr/no.nii.gz", "p0_a", "'unlabeled'"),
        lambda w: listed(w, label="labelsTr/no.nii.gz"),
    ),
    (
        "listed label is a dangling link",
        PLAN,
        ("{raw}/labelsTr/p0_a.nii.gz", "gone"),
        lambda w: (listed(w), linked(w, f"labelsTr/{CASE}.nii.gz")),
    ),
    (
        "listed image does not exist",
        SPLIT,
        ("imagesTr/no.nii.gz", "p0_a"),
        lambda w: listed(w, images=["imagesTr/no.nii.gz"] * 2),
    ),
    ("listed images are text", SPLIT, (DESCRIPTION, "'p0_a'", "'a.nii.gz'"), lambda w: listed(w, images="a.nii.gz")),
    ("listed label is a list", SPLIT, (DESCRIPTION, "'p0_a'", "['a']"), lambda w: listed(w, label=["a"])),
    (
        "unlabelled images are none",
        SPLIT,
        (DESCRIPTION, "'u'", "[]"),
        lambda w: w.dataset_json(unlabeled={"u": {"images": []}}),
    ),
    (
        "unlabelled image does not exist",
        PLAN,
        ("{raw}/u_0000.nii.gz", "case u"),
        lambda w: w.dataset_json(unlabeled={"u": {"images": ["u_0000.nii.gz", "u_0001.nii.gz"]}}),
    ),
    (
        "case is listed and in a folder",
        SPLIT,
        ("case u", "{raw}/imagesUn", "'unlabeled'"),
        lambda w: (unlabeled(w), w.dataset_json(unlabeled={"u": {"images": [f"imagesTr/{CASE}_0000.nii.gz"] * 2}})),
    ),
    (
        "labelled image is unlabelled too",
        SPLIT,
        ("{raw}/imagesTr/p0_a_0000.nii.gz", "unlabelled case u", "p0_a"),
        lambda w: w.dataset_json(
            unlabeled={"u": {"images": [f"imagesTr/{CASE}_0000.nii.gz", f"imagesTr/{CASE}_0001.nii.gz"]}}
        ),
    ),
    (
        "labelled image is copied to imagesUn",
        SPLIT,
        ("{raw}/imagesUn/u_0000.nii.gz", "unlabelled case u", "p0_b"),
        unlabeled,
    ),
    ("cases that share files of labels", SPLIT, ("p0_a_seg", "overwrite"), lambda w: pair(w, "_seg")),
    (
        "cases that share files of pseudo-labels",
        PLAN,
        ("p0_a_confidence", "overwrite"),
        lambda w: pair(w, "_confidence"),
    ),
    ("name of a case is a path", SPLIT, (DESCRIPTION, "'../u'"), lambda w: listed_as(w, "../u")),
    ("case is hidden", SPLIT, (DESCRIPTION, "'.u'"), lambda w: listed_as(w, ".u")),
    # ---- dataset.json
    (
        "misspelt key",
        SPLIT,
        (DESCRIPTION, "'unlabelled'", "'unlabeled'"),
        lambda w: w.dataset_json(unlabelled={"u": {"images": ["a"]}}),
    ),
    ("key in other letters", SPLIT, (DESCRIPTION, "'Dataset'", "'dataset'"), lambda w: w.dataset_json(Dataset={})),
    (
        "key stands twice",
        SPLIT,
        (DESCRIPTION, "'labels'", "twice"),
        lambda w: w.text(f"raw/{NAME}/dataset.json", '{"labels": {}, "labels": {}}'),
    ),
    (
        "byte order mark",
        SPLIT,
        (DESCRIPTION, "byte order mark", "without"),
        lambda w: w.text(f"raw/{NAME}/dataset.json", b"\xef\xbb\xbf" + (w.raw / "dataset.json").read_bytes()),
    ),
    (
        "UTF-16",
        PLAN,
        (DESCRIPTION, "not UTF-8"),
        lambda w: w.text(
            f"raw/{NAME}/dataset.json", (w.raw / "dataset.json").read_text(encoding="utf-8").encode("utf-16")
        ),
    ),
    ("view of a list", SPLIT, (DESCRIPTION, "'view_of'", "['a']"), lambda w: w.dataset_json(view_of=["a"])),
    (
        "ending without dot",
        SPLIT,
        (DESCRIPTION, "'nii.gz'", "with its dot"),
        lambda w: w.dataset_json(file_ending="nii.gz"),
    ),
    ("ending without reader", SPLIT, (DESCRIPTION, "'.jpg'", ".png"), lambda w: w.dataset_json(file_ending=".jpg")),
    (
        "unknown reader",
        SPLIT,
        (DESCRIPTION, "'NibbleIO'", "NibabelIO"),
        lambda w: w.dataset_json(overwrite_image_reader_writer="NibbleIO"),
    ),
    (
        "reader is no reader",
        PLAN,
        (DESCRIPTION, "'np'", "SimpleITKIO"),
        lambda w: w.dataset_json(overwrite_image_reader_writer="np"),
    ),
    (
        "reader is null",
        SPLIT,
        (DESCRIPTION, "None", "remove the key"),
        lambda w: w.dataset_json(overwrite_image_reader_writer=None),
    ),
    (
        "reader of other files",
        PLAN,
        ("p0_a_0000.nii.gz", "Tiff3DIO"),
        lambda w: w.dataset_json(overwrite_image_reader_writer="Tiff3DIO"),
    ),
    (
        "channels in another order",
        SPLIT,
        (DESCRIPTION, "1, 0", "ascending"),
        lambda w: w.dataset_json(channel_names={"1": "CT", "0": "T1"}),
    ),
    (
        "channel name is a number",
        SPLIT,
        (DESCRIPTION, "7"),
        lambda w: w.dataset_json(channel_names={"0": "T1", "1": 7}),
    ),
    ("two numbers of channels", SPLIT, (DESCRIPTION, "'modality': 1"), lambda w: w.dataset_json(modality={"0": "CT"})),
    ("only background", SPLIT, (DESCRIPTION, "no class"), lambda w: w.dataset_json(labels={"background": 0})),
    (
        "ignore in other letters",
        SPLIT,
        (DESCRIPTION, "'Ignore'", "write 'ignore'"),
        lambda w: w.dataset_json(labels={"background": 0, "a": 1, "Ignore": 2}),
    ),
    ("ignore is a region", SPLIT, (DESCRIPTION, "[3]", "a number"), regions([1, 2], **REGIONS, ignore=[3])),
    (
        "ignore is text",
        PLAN,
        (DESCRIPTION, "'3'", "a number"),
        lambda w: w.dataset_json(labels={"background": 0, "a": 1, "b": 2, "ignore": "3"}),
    ),
    (
        "ignore is a class",
        SPLIT,
        (DESCRIPTION, "'b'", "2"),
        lambda w: w.dataset_json(labels={"background": 0, "a": 1, "b": 2, "ignore": 2}),
    ),
    ("order of regions is short", SPLIT, (DESCRIPTION, "[1]", "whole, core"), regions([1])),
    ("order of regions is long", PLAN, (DESCRIPTION, "[0, 1, 2]", "whole, core"), regions([0, 1, 2])),
    ("order of regions holds lists", SPLIT, (DESCRIPTION, "[[1, 2], 2]", "one number"), regions([[1, 2], 2])),
    ("order of regions holds text", SPLIT, (DESCRIPTION, "['1', '2']", "one number"), regions(["1", "2"])),
    ("order of regions is a number", SPLIT, (DESCRIPTION, "2"), regions(2)),
    ("order of regions holds true", SPLIT, (DESCRIPTION, "[True, 2]"), regions([True, 2])),
    ("order of regions holds names", PLAN, (DESCRIPTION, "['whole', 'core']"), regions(["whole", "core"])),
    ("order of regions has another value", SPLIT, (DESCRIPTION, "[2, 1]", "'core'"), regions([2, 1])),
    (
        "order of regions overwrites one",
        SPLIT,
        (DESCRIPTION, "'core'", "larger regions first"),
        regions([2, 1], background=0, core=2, whole=[1, 2]),
    ),
    (
        "regions of text",
        SPLIT,
        (DESCRIPTION, "'whole'", "without quotes"),
        regions([1, 2], background=0, whole=["1", "2"], core=2),
    ),
    (
        "background beside regions is text",
        SPLIT,
        (DESCRIPTION, "'background'", "without quotes"),
        regions([1, 2], **{**REGIONS, "background": "0"}),
    ),
    ("region of background", PLAN, (DESCRIPTION, "'rest'", "remove it"), regions([1, 2], **REGIONS, rest=[0])),
]
