"""Which method helps, and by how much? Every trainer on the same splits, plans, augmentation and number of iterations.

For each labelled size and seed a split is made, planned and trained on; the seed is that of the split and of the run.
The Dice is that of the validation cases of the folds. A run that is complete is not repeated, an interrupted one goes
on where it stopped, and the results are written after every run.

    python benchmarks/semi_supervised.py RAW/Dataset004_Hippocampus --labeled 4 --seeds 0 1 2 --iterations 1000 \
        --work /tmp/work --out docs/results/hippocampus

Writes runs.csv (a row a run and class), table.md and table.png. Intervals and p-values need five seeds. ``gap closed``
is the part of the distance between supervised training on the labelled cases and on all cases, where the latter
(``--upper-bound``) was run too. Self-training is a teacher's run and another one that learns from it;
``--longer-baseline 2 4`` shows what supervised training makes of twice and four times the iterations.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import numpy as np
import pandas as pd
from matplotlib import pyplot

from nnunet_limited.metrics.registry import METRICS, SAFEGUARDS
from nnunet_limited.metrics.statistics import Difference, difference_of, evidence, holm, setbacks
from nnunet_limited.report.tables import interval, number
from nnunet_limited.trainers.catalogue import describe, is_for_sparse_labels, trainer_names
from nnunet_limited.util.files import write_json

SUPERVISED = "LimitedSupervisedTrainer"
SCORES = ("dice", *SAFEGUARDS)
COLUMNS = ("labelled", "seed", "trainer", "settings", "iterations", "fold", "class", *SCORES, "minutes")
NAN = float("nan")


def nnunet_limited(*arguments: str) -> str:
    """Run a command and return what it printed; end the benchmark with its error."""
    command = [sys.executable, "-m", "nnunet_limited", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout


def prepare(arguments: argparse.Namespace, labeled: str, seed: int) -> str:
    """Make and plan a split unless that is done; return the plans' name."""
    name = f"l{labeled.replace('%', 'p')}s{seed}"
    dataset = arguments.dataset.name
    preprocessed = Path(os.environ["nnUNet_preprocessed"]) / dataset
    if arguments.published:
        name = f"published{labeled.replace('%', 'p')}"
        options = ["--labeled", labeled] if labeled != "100%" else []
        nnunet_limited("split", dataset, "--name", name, "--published", str(arguments.published), *options)
    elif not (preprocessed / f"splits_{name}.json").is_file():
        options = ["--group-by", arguments.group_by] if arguments.group_by else []
        options += ["--labeled", labeled, "--folds", "5", "--seed", str(seed)]
        nnunet_limited("split", dataset, "--name", name, *options)
    size = ["--size", arguments.size] if arguments.size else []
    size += ["--patch", arguments.patch] if arguments.patch else []
    planned = nnunet_limited("plan", dataset, "--split", name, "-c", arguments.configuration, *size, "--json")
    return str(json.loads(planned)["plans"])


def train(
    arguments: argparse.Namespace, plans: str, labeled: str, seed: int, trainer: str, iterations: int
) -> list[dict[str, Any]]:
    """Train the folds and return their rows; self-training starts with its teacher's run, which is not repeated."""
    epochs = iterations // arguments.iterations_per_epoch
    settings = [f"seed={seed}", f"num_epochs={epochs}", f"num_iterations_per_epoch={arguments.iterations_per_epoch}"]
    # Validation batches during training tell nothing here.
    settings += ["num_val_iterations_per_epoch=1", *arguments.set]
    options = [option for setting in settings for option in ("--set", setting)]
    rounds = learns_pseudo_labels(trainer)
    started = time.time()
    printed = nnunet_limited(
        "self-train" if rounds else "crossval", arguments.dataset.name, arguments.configuration, "-p", plans,
        "-tr", trainer, "--folds", ",".join(map(str, arguments.folds)), *options, "--json",
    )  # fmt: skip
    result = json.loads(printed)[-1] if rounds else json.loads(printed)
    minutes = (time.time() - started) / 60
    run = (labeled, seed, trainer, " ".join(arguments.set), iterations)
    return [
        dict(zip(COLUMNS, (*run, fold, name, *scores, minutes), strict=True))
        for k, fold in enumerate(result["folds"])
        for name in result["dice"]
        for scores in [[result[f"{metric}_per_fold"][name][k] for metric in SCORES]]
    ]


def learns_pseudo_labels(trainer: str) -> bool:
    return "pseudo_labels" in describe(trainer)["settings"]


def read_rows(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as stream:
        return [
            {**row, "seed": int(row["seed"]), "iterations": int(row["iterations"]), "fold": int(row["fold"]),
             **{key: float(row.get(key, NAN)) for key in SCORES},  # a metric may be newer than the file
             "minutes": float(row["minutes"])}
            for row in csv.DictReader(stream)
        ]  # fmt: skip


def check_setup(arguments: argparse.Namespace) -> None:
    """Refuse a folder with results of other data, splits or networks: its rows do not compare."""
    file = arguments.out / "setup.json"
    keys = ("configuration", "size", "patch", "group_by", "iterations_per_epoch")
    setup = {"dataset": arguments.dataset.name, "published": bool(arguments.published)}
    setup |= {key: getattr(arguments, key) for key in keys}
    if not file.is_file():
        arguments.out.mkdir(parents=True, exist_ok=True)
        write_json(file, setup)
    elif (found := json.loads(file.read_text(encoding="utf-8"))) != setup:
        raise SystemExit(f"{arguments.out} holds results of {found}, not {setup}; give another --out")


def open_work(arguments: argparse.Namespace) -> None:
    """Point nnU-Net into the work folder, with the dataset in it, and share the cores among the jobs."""
    for name in ("raw", "preprocessed", "results"):
        (arguments.work / name).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str((arguments.work / name).resolve())
    link = arguments.work / "raw" / arguments.dataset.name
    if not link.exists():
        link.symlink_to(arguments.dataset.resolve())
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // arguments.jobs)))


def run_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """Return what tells the run of a row from other runs."""
    return tuple(row[key] for key in ("labelled", "seed", "trainer", "iterations", "settings", "fold"))


def write(folder: Path, rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Write the three files; the table holds the runs that compare with one another."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "runs.csv.tmp"
    with temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        scores = ({key: f"{row[key]:.5f}" for key in SCORES} for row in rows)
        minutes = ({"minutes": f"{row['minutes']:.1f}"} for row in rows)
        writer.writerows({**row, **some, **more} for row, some, more in zip(rows, scores, minutes, strict=True))
    temporary.replace(folder / "runs.csv")
    command = shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    settings, iterations = " ".join(arguments.set), arguments.iterations
    shown = [
        r for r in rows if r["settings"] == settings and (r["iterations"] == iterations or is_longer(r, iterations))
    ]
    summaries = summarise(shown, iterations)
    (folder / "table.md").write_text(table(summaries, command), encoding="utf-8")
    plot(summaries, folder / "table.png")


def is_longer(row: dict[str, Any], iterations: int) -> bool:
    """Return whether a row is of the supervised baseline with a multiple of the iterations."""
    its = row["iterations"]
    return bool(row["trainer"] == SUPERVISED and its > iterations and its % iterations == 0)


def summarise(rows: list[dict[str, Any]], iterations: int) -> list[dict[str, Any]]:
    """Return a row for each labelled size and trainer: means over folds and seeds, and supervised training's beside it.

    Differences are paired by seed; those of HD95 and NSD decide whether a gain of Dice is claimed.
    """
    table = pd.DataFrame([row for row in rows if row["class"] == "mean"])
    longer = table.apply(lambda row: f", {row['iterations']} iterations" if is_longer(row, iterations) else "", axis=1)
    keys = [table["labelled"], (table["trainer"] + longer).rename("trainer")]
    seeds = table.groupby([*keys, table["seed"]], sort=False)[list(SCORES)].mean()  # over folds
    found: list[tuple[dict[str, Any], Difference]] = []
    for (labeled, trainer), means in seeds.groupby(level=["labelled", "trainer"], sort=False):
        mine = means.droplevel(["labelled", "trainer"])
        lower, upper = (_of(seeds, size, SUPERVISED) for size in (labeled, "100%"))
        against = {
            key: difference_of((mine[key] - lower[key]).to_numpy(), METRICS[key].higher_is_better) for key in SCORES
        }
        dice = against.pop("dice") if trainer != SUPERVISED else Difference()
        room = (upper["dice"] - lower["dice"]).reindex(mine.index)
        room = room[room > 0]
        gap = (mine["dice"] - lower["dice"])[room.index].sum() / room.sum() if len(room) else NAN
        summary = {"labelled": labeled, "trainer": trainer, "seeds": len(mine), **mine.mean().to_dict()}
        summary |= {f"{key}_sd": float(mine[key].std(ddof=1)) if len(mine) > 1 else 0.0 for key in SCORES}
        summary |= {"difference": dice.mean, "low": dice.low, "high": dice.high, "better": dice.better, "gap": gap}
        summary["setbacks"] = setbacks({METRICS[key].title: one for key, one in against.items() if key in SAFEGUARDS})
        found.append((summary, dice))
    for (summary, dice), p in zip(found, holm([dice.p for _, dice in found]), strict=True):
        summary |= {"p": p, "evidence": evidence(dice, p, summary["setbacks"])}
    return sorted((summary for summary, _ in found), key=lambda s: (s["labelled"], -s["dice"]))


def _of(seeds: pd.DataFrame, labeled: str, trainer: str) -> pd.DataFrame:
    """Return the means of a trainer by seed, empty if it was not trained on this size."""
    chosen = seeds[(seeds.index.get_level_values(0) == labeled) & (seeds.index.get_level_values(1) == trainer)]
    return chosen.droplevel(["labelled", "trainer"])


def table(summaries: list[dict[str, Any]], command: str) -> str:
    """Return the table in Markdown."""
    old = any(np.isnan(summary[key]) for summary in summaries for key in SAFEGUARDS)
    scores = [METRICS[key].heading(voxels=False) for key in SCORES]
    heads = ["labelled", "trainer", "seeds", *scores, "Dice against supervised [95 %]", "evidence", "gap closed"]
    lines = [
        "Means over the classes of their means over the validation cases, ± sd over seeds; made by", "",
        f"    {command}", "",
        "A trainer of pseudo-labels learns those of a run before it: by its end two runs lie behind it.", "",
        *(["Empty cells of HD95 and NSD: the runs are older than their measurement.", ""] if old else []),
        "| " + " | ".join(heads) + " |",
        "|" + "---|" * len(heads),
    ]  # fmt: skip
    for s in summaries:
        shown = (with_spread(s, key) for key in SCORES)
        difference = interval(pd.Series(s))
        gap = f"{100 * s['gap']:.0f} %" if difference and not np.isnan(s["gap"]) else ""
        cells = [s["labelled"], s["trainer"], str(s["seeds"]), *shown, difference, s["evidence"], gap]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def with_spread(summary: dict[str, Any], key: str) -> str:
    """Return a mean as text, ± its sd if there are several seeds; empty if it was not measured."""
    spread = f" ± {number(summary[f'{key}_sd'])}" if summary["seeds"] > 1 else ""
    return "" if np.isnan(summary[key]) else f"{number(summary[key])}{spread}"


def plot(summaries: list[dict[str, Any]], file: Path) -> None:
    ordered = summaries[::-1]
    figure, axes = pyplot.subplots(figsize=(8, 0.6 + 0.32 * len(ordered)), layout="constrained")
    names = [f"{s['trainer'].removeprefix('Limited').replace('Trainer', '')} ({s['labelled']})" for s in ordered]
    colours = ["tab:gray" if s["trainer"].startswith(SUPERVISED) else "tab:blue" for s in ordered]
    for y, (summary, colour) in enumerate(zip(ordered, colours, strict=True)):
        axes.errorbar(summary["dice"], y, xerr=summary["dice_sd"], fmt="o", color=colour, capsize=3)
    axes.set_yticks(range(len(ordered)), names)
    axes.set_xlabel("mean foreground Dice, ± sd over seeds")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(file, dpi=100)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="raw dataset folder")
    parser.add_argument("--labeled", nargs="+", default=["4"], help="labelled cases, e.g. 4 8 10%%")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--iterations-per-epoch", type=int, default=50)
    names = [name for name in trainer_names() if not is_for_sparse_labels(name)]
    parser.add_argument("--trainers", nargs="+", default=names)
    parser.add_argument("--upper-bound", action="store_true", help="train supervised on all labels too")
    parser.add_argument(
        "--longer-baseline", nargs="+", type=int, default=[], metavar="FACTOR",
        help="train supervised for so many times the iterations too, e.g. 2 4",
    )  # fmt: skip
    parser.add_argument("--set", nargs="+", default=[], help="settings of every run")
    parser.add_argument("--published", type=Path, help="JSON of a published split: its order decides who is labelled")
    parser.add_argument("--patch", help="patch size, e.g. 80x112x112; default: nnU-Net's choice")
    parser.add_argument("--configuration", default="2d")
    parser.add_argument("--size", default="tiny", help="'' for the full network")
    parser.add_argument("--folds", nargs="+", type=int, default=[0])
    parser.add_argument("--group-by")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--work", type=Path, required=True, help="folder for preprocessed data and models")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    arguments = parser.parse_args()
    if arguments.iterations % arguments.iterations_per_epoch:
        parser.error(f"--iterations {arguments.iterations} is no multiple of {arguments.iterations_per_epoch} an epoch")
    if any(factor < 2 for factor in arguments.longer_baseline):
        parser.error(f"--longer-baseline {arguments.longer_baseline}: factors are 2 or more")
    check_setup(arguments)
    open_work(arguments)

    rows = read_rows(arguments.out / "runs.csv")
    known = {run_of(row) for row in rows}
    trainers = [SUPERVISED, *(trainer for trainer in arguments.trainers if trainer != SUPERVISED)]
    wanted = [(labeled, trainer, arguments.iterations) for trainer in trainers for labeled in arguments.labeled]
    if arguments.upper_bound:
        wanted.append(("100%", SUPERVISED, arguments.iterations))
    for factor in arguments.longer_baseline:
        wanted += [(labeled, SUPERVISED, factor * arguments.iterations) for labeled in arguments.labeled]
    runs = list(dict.fromkeys((labeled, seed, *run) for labeled, *run in wanted for seed in arguments.seeds))
    settings = " ".join(arguments.set)
    missing = [run for run in runs if any((*run, settings, fold) not in known for fold in arguments.folds)]
    plans = {key: prepare(arguments, *key) for key in dict.fromkeys(run[:2] for run in missing)}

    def one(run: tuple[str, int, str, int]) -> list[dict[str, Any]]:
        return train(arguments, plans[run[:2]], *run)

    if rows and not missing:
        write(arguments.out, rows, arguments)
    done = 0
    # Self-training starts from the runs of a teacher, which two jobs must not make at once.
    for phase in (
        [r for r in missing if not learns_pseudo_labels(r[2])],
        [r for r in missing if learns_pseudo_labels(r[2])],
    ):
        with ThreadPoolExecutor(arguments.jobs) as pool:
            for found in pool.map(one, phase):
                rows += [row for row in found if run_of(row) not in known]
                write(arguments.out, rows, arguments)
                done += 1
                mean = np.mean([row["dice"] for row in found if row["class"] == "mean"])
                labeled, seed, trainer, iterations = run_of(found[0])[:4]
                which = f"{done}/{len(missing)} {trainer}, {iterations} iterations, {labeled} labelled, seed {seed}"
                print(f"{which}: {mean:.4f} in {found[0]['minutes']:.1f} min", flush=True)


if __name__ == "__main__":
    main()
