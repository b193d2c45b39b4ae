"""Compare trainers on scribbles, slices, boxes and points with dense labels.

Every trainer on the same images and splits with each kind of annotation, validated on dense labels. An annotation is a
name and the ``nnunet-limited`` command that makes it, without dataset and ``--out``; a trainer may have settings,
and be for one annotation only (``LimitedBoxTrainer@boxes``).

    python benchmarks/sparse_labels.py RAW/Dataset004_Hippocampus --annotation "1 slice=sparsify --kind slices" \
        --trainers LimitedSparseTrainer LimitedSparseTrainer:crf_weight=0.1 --work /tmp/work --out docs/results/slices

Stock nnU-Net with the ignore label (``LimitedSupervisedTrainer``) is trained on each annotation, and on dense labels
(100%). Finished runs are skipped, interrupted ones resumed. Writes runs.csv (a row per
run), table.md, table.png and cost.json, the mean cost of a case with each annotation.
"""

from __future__ import annotations

import argparse
import json
import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from semi_supervised import SUPERVISED, check_setup, nnunet_limited, open_work, prepare, read_rows, run_of, train, write

from nnunet_limited.util.files import write_json

DENSE = "100%"  # as the table of semi_supervised.py calls all labels


def make_view(arguments: argparse.Namespace, number: int, command: str, seed: int) -> Path:
    """Make the dataset of an annotation unless it is there; return its raw folder."""
    words = shlex.split(command)
    simulated = words[0] == "sparsify"
    number = 900 + 10 * number + (seed if simulated else 0)
    folder = arguments.work / "raw" / f"Dataset{number:03d}_Sparse"
    recorded = folder / "command.txt"
    if not folder.is_dir():
        nnunet_limited(*words, arguments.dataset.name, "--out", folder.name, *(["--seed", str(seed)] * simulated))
        recorded.write_text(command, encoding="utf-8")
    if not recorded.is_file() or recorded.read_text(encoding="utf-8") != command:
        raise SystemExit(f"{folder} was made for another annotation; give another --work, or delete that folder")
    return folder


def cost(folder: Path) -> dict[str, float]:
    """Return the mean cost of a case of a view."""
    cases = list(json.loads((folder / "annotations.json").read_text(encoding="utf-8"))["cases"].values())
    keys = ("annotated_share", "foreground_voxels", "marks", "slices", "minutes")
    return {key: round(float(np.mean([case[key] for case in cases])), 5) for key in keys if key in cases[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="raw dataset folder with dense labels")
    parser.add_argument("--annotation", nargs="+", required=True, metavar="NAME=COMMAND")
    parser.add_argument("--trainers", nargs="+", default=[], metavar="NAME[:key=value,…][@ANNOTATION]")
    parser.add_argument("--labeled", default=DENSE, help="annotated cases, e.g. 8; all others are unlabelled")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="below ten")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--iterations-per-epoch", type=int, default=50)
    parser.add_argument("--configuration", default="2d")
    parser.add_argument("--size", default="tiny", help="'' for the full network")
    parser.add_argument("--folds", nargs="+", type=int, default=[0])
    parser.add_argument("--group-by")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--work", type=Path, required=True, help="folder for raw and preprocessed data and models")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    arguments = parser.parse_args(namespace=argparse.Namespace(set=[], published=None, patch=None))
    annotations = dict(text.split("=", 1) for text in arguments.annotation)
    for text in arguments.trainers:
        if text.partition("@")[2] not in ("", *annotations):
            parser.error(f"--trainers {text}: there is no such annotation; there are {', '.join(annotations)}")
    check_setup(arguments)
    open_work(arguments)

    rows = read_rows(arguments.out / "runs.csv")
    known = {run_of(row) for row in rows}
    trainers = [text.partition("@")[::2] for text in (SUPERVISED, *arguments.trainers)]
    wanted = []
    for seed in arguments.seeds:  # one after the other, so that a benchmark stopped early compares all trainers
        wanted += [(name, seed, label) for label, only in trainers for name in annotations if only in ("", name)]
        wanted.append((DENSE, seed, SUPERVISED))
    missing = [
        run
        for run in dict.fromkeys(wanted)
        if any((*run, arguments.iterations, "", fold) not in known for fold in arguments.folds)
    ]
    prepared = {}
    for name, seed in dict.fromkeys((name, seed) for name, seed, _ in missing):
        folder = arguments.dataset
        if name != DENSE:
            folder = make_view(arguments, list(annotations).index(name), annotations[name], seed)
            costs = arguments.out / "cost.json"
            before = json.loads(costs.read_text(encoding="utf-8")) if costs.is_file() else {}
            write_json(costs, {**before, name: cost(folder)})
        mine = argparse.Namespace(**{**vars(arguments), "dataset": folder})
        prepared[name, seed] = mine, prepare(mine, arguments.labeled, seed)

    def one(run: tuple[str, int, str]) -> list[dict[str, Any]]:
        annotation, seed, trainer = run
        mine, plans = prepared[annotation, seed]
        name, _, settings = trainer.partition(":")
        options = argparse.Namespace(**{**vars(mine), "set": settings.split(",") if settings else []})
        found = train(options, plans, annotation, seed, name, arguments.iterations)
        return [{**row, "trainer": trainer, "settings": ""} for row in found]

    if rows and not missing:
        write(arguments.out, rows, arguments)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for done, found in enumerate(pool.map(one, missing), 1):
            rows += [row for row in found if run_of(row) not in known]
            write(arguments.out, rows, arguments)
            mean = np.mean([row["dice"] for row in found if row["class"] == "mean"])
            annotation, seed, trainer = run_of(found[0])[:3]
            which = f"{done}/{len(missing)} {trainer}, {annotation}, seed {seed}"
            print(f"{which}: {mean:.4f} in {found[0]['minutes']:.1f} min", flush=True)


if __name__ == "__main__":
    main()
