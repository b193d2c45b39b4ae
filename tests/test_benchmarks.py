"""The benchmarks keep up with the package."""

from __future__ import annotations

import json
import math
import os
import re
from argparse import Namespace
from pathlib import Path
from typing import Any

import false_positives
import pytest
import sparse_labels
from helpers import DATASET, FROM_START, assert_same
from scipy import stats
from semi_supervised import COLUMNS, SUPERVISED, check_setup, read_rows, summarise, table, write
from step_time import Bench
from strong_views import KINDS, draw, measure, started
from trainer_sets import SEMI_SUPERVISED, few


@pytest.mark.slow
@pytest.mark.parametrize("trainer", few(SEMI_SUPERVISED))
def test_a_step_comes_apart_into_its_passes(workspaces, trainer: str) -> None:
    workspace = workspaces("2d")
    bench = Bench(trainer, DATASET, "2d", workspace.configure("parts", **FROM_START), "cpu")
    bench.prepare_parts()
    for part in (bench.labelled, bench.without_gradient, bench.unlabelled, bench.update, bench.step):
        part()


def test_strong_views_are_measured_and_drawn(workspaces, tmp_path: Path) -> None:
    workspace = workspaces("2d")
    plans = workspace.configure("measured", **FROM_START)
    default, strong = (measure(started(DATASET, "2d", plans, kind, 8), 40) for kind in KINDS)
    assert strong["identical"] == strong["below_5_percent"] == 0
    assert strong["median"] > 0.2
    assert default["median"] < strong["median"]
    draw(started(DATASET, "2d", plans, "strong", 6), tmp_path / "views.png")
    assert (tmp_path / "views.png").stat().st_size > 10_000


def row(
    labelled: str, seed: int, trainer: str, dice: float, iterations: int = 1000, name: str = "mean", hd95: float = 5.0
) -> dict[str, Any]:
    values = (labelled, seed, trainer, "", iterations, 0, name, dice, hd95, 0.5, 1.0)
    return dict(zip(COLUMNS, values, strict=True))


ROWS = [
    *(row("4", seed, SUPERVISED, dice) for seed, dice in enumerate((0.70, 0.72))),
    *(row("4", seed, SUPERVISED, 0.73, iterations=2000) for seed in (0, 1)),
    row("4", 0, SUPERVISED, 0.74, iterations=4000),
    *(row("100%", seed, SUPERVISED, 0.81) for seed in (0, 1)),
    *(row("4", seed, "LimitedRecipeTrainer", dice) for seed, dice in enumerate((0.76, 0.71))),
    row("4", 0, "LimitedRecipeTrainer", 0.1, name="Anterior"),
]


def test_the_gap_is_that_of_the_seeds_both_have() -> None:
    found = {(s["labelled"], s["trainer"]): s for s in summarise(ROWS, 1000)}
    recipe = found["4", "LimitedRecipeTrainer"]
    assert (recipe["seeds"], recipe["better"]) == (2, 1)
    assert recipe["difference"] == pytest.approx(0.025)
    assert recipe["gap"] == pytest.approx(0.05 / 0.20)
    assert found["4", f"{SUPERVISED}, 2000 iterations"]["difference"] == pytest.approx(0.02)
    assert [s["dice"] for s in found.values() if s["labelled"] == "4"] == pytest.approx([0.74, 0.735, 0.73, 0.71])
    assert recipe["evidence"] == "2 seeds: no p-value; better in 1 of 2"
    assert found["4", SUPERVISED]["evidence"] == found["100%", SUPERVISED]["evidence"] == ""


def test_five_seeds_have_an_interval_and_a_p_value() -> None:
    gains = [0.02, 0.03, 0.02, 0.04, 0.03]
    rows = [row("4", seed, SUPERVISED, 0.7 + seed / 100) for seed in range(5)]
    rows += [row("4", seed, "LimitedRecipeTrainer", 0.7 + seed / 100 + gain) for seed, gain in enumerate(gains)]
    summaries = summarise(rows, 1000)
    recipe, expected = summaries[0], stats.ttest_1samp(gains, 0)
    assert recipe["p"] == pytest.approx(expected.pvalue)
    assert recipe["low"] == pytest.approx(expected.confidence_interval().low)
    text = table(summaries, "")
    assert "| +0.0280 [+0.0176, +0.0384] | 5 seeds: better, p = 0.002; better in 5 of 5 |" in text
    rows += [row("4", seed, "LimitedFixMatchTrainer", 0.8, hd95=6.0) for seed in range(5)]
    fixmatch = next(s for s in summarise(rows, 1000) if "FixMatch" in s["trainer"])
    assert fixmatch["evidence"] == "5 seeds: no gain, p < 0.001; better in 5 of 5, but HD95 worse in 5 of 5"
    four = table(summarise([one for one in rows if one["seed"] < 4], 1000), "")
    assert not re.search(r"p [=<]|\[[+-]", four)
    assert four.count("4 seeds: no p-value") == 2


def test_results_from_before_surfaces_were_measured_are_read(tmp_path: Path) -> None:
    text = "labelled,seed,trainer,settings,iterations,fold,class,dice,minutes\n4,0,T,,10,0,mean,0.50000,nan\n"
    (tmp_path / "runs.csv").write_text(text, encoding="utf-8")
    (found,) = read_rows(tmp_path / "runs.csv")
    assert found["dice"] == 0.5
    assert math.isnan(found["hd95"])
    assert "| 4 | T | 1 | 0.5000 |  |  |  |  |  |" in table(summarise([found], 10), "")


@pytest.mark.slow
def test_no_effect_is_judged_by_the_functions_of_the_package(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """An effect of the case that is mistaken for evidence would be wrong in half of the studies."""
    monkeypatch.setattr("sys.argv", ["false_positives.py", "--studies", "30"])
    false_positives.main()
    last = capsys.readouterr().out.splitlines()[-1]
    shares = [float(share) for share in re.findall(r"wrong in (\d+\.\d) %", last)]
    assert len(shares) == 2
    assert max(shares) < 20


def test_the_table_holds_runs_of_one_length_and_settings_and_the_file_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["semi_supervised.py", "--size", "", "--group-by", r"patient\d+"])
    other = {**row("4", 1, "LimitedRecipeTrainer", 0.5), "settings": "consistency_weight=0.3"}
    lengths = [row("4", 0, SUPERVISED, 0.5, iterations=500), row("4", 0, SUPERVISED, 0.5, iterations=1500)]
    rows = [*ROWS, row("4", 0, "LimitedRecipeTrainer", 0.5, iterations=500), *lengths, other]
    write(tmp_path, rows, Namespace(set=[], iterations=1000))
    assert_same(read_rows(tmp_path / "runs.csv"), rows)
    shown = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "2000 iterations" in shown
    assert "1500 iterations" not in shown
    assert r"--size '' --group-by 'patient\d+'" in shown
    assert "| 4 | LimitedRecipeTrainer | 2 | 0.7350 ± 0.0354 | 5.0000 ± 0.0000 | 0.5000 ± 0.0000 | +0.0250 | " in shown
    assert "| 2 seeds: no p-value; better in 1 of 2 | 25 % |" in shown
    assert (tmp_path / "table.png").stat().st_size > 1000


def test_a_folder_holds_results_of_one_setup(tmp_path: Path) -> None:
    setup = {"configuration": "2d", "patch": None, "group_by": None, "iterations_per_epoch": 50}
    tiny, full = (
        Namespace(dataset=tmp_path / DATASET, published=None, out=tmp_path / "out", size=size, **setup)
        for size in ("tiny", "")
    )
    for _ in range(2):
        check_setup(tiny)
    with pytest.raises(SystemExit, match="another --out"):
        check_setup(full)


def test_sparse_runs_are_made_once_for_each_annotation_seed_and_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / DATASET).mkdir()
    commands, trained = [], []

    def command(*words: str) -> str:
        commands.append(words)
        folder = Path(os.environ["nnUNet_raw"]) / words[words.index("--out") + 1]
        folder.mkdir()
        cases = {"a": {"minutes": 1.0, "marks": 2}, "b": {"minutes": 2.0, "marks": 4}}
        (folder / "annotations.json").write_text(json.dumps({"cases": cases}), encoding="utf-8")
        return ""

    def train(options: Namespace, plans: str, annotation: str, seed: int, trainer: str, iterations: int) -> list[dict]:
        trained.append((options.dataset.name, plans, annotation, seed, trainer, tuple(options.set)))
        return [{**row(annotation, seed, trainer, 0.5, iterations), "settings": " ".join(options.set)}]

    monkeypatch.setattr(sparse_labels, "nnunet_limited", command)
    monkeypatch.setattr(sparse_labels, "prepare", lambda mine, labeled, seed: f"{mine.dataset.name}-{labeled}-{seed}")
    monkeypatch.setattr(sparse_labels, "train", train)
    for name in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{name}", "")
    argv = [
        str(tmp_path / DATASET), "--annotation", "slices=sparsify --kind slices --count 2",
        "strokes=import-labels --labels d", "--trainers", "LimitedSparseTrainer:crf_weight=0.1,entropy_weight=0.2",
        SUPERVISED, "LimitedBoxTrainer@strokes", "--seeds", "0", "1", "--iterations", "100",
        "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["sparse_labels.py", *argv])
    sparse_labels.main()

    simulated = [words for words in commands if words[0] == "sparsify"]
    assert [words[-2:] for words in simulated] == [("--seed", "0"), ("--seed", "1")]
    assert simulated[0][1:5] == ("--kind", "slices", "--count", "2")
    brought_in = [words for words in commands if words[0] == "import-labels"]
    assert len(brought_in) == 1, "what people drew is the same for every seed"
    assert len(set(trained)) == len(trained) == 2 * 2 * 2 + 2 + 2
    strokes = "Dataset910_Sparse"
    settings = ("crf_weight=0.1", "entropy_weight=0.2")
    assert (strokes, f"{strokes}-100%-1", "strokes", 1, "LimitedSparseTrainer", settings) in trained
    assert [run[2] for run in trained if run[4] == "LimitedBoxTrainer"] == ["strokes", "strokes"]
    assert (DATASET, f"{DATASET}-100%-0", "100%", 0, SUPERVISED, ()) in trained
    assert "| slices | LimitedSparseTrainer:crf_weight=0.1,entropy_weight=0.2 | 2 |" in (
        tmp_path / "out/table.md"
    ).read_text(encoding="utf-8")
    assert json.loads((tmp_path / "out/cost.json").read_text(encoding="utf-8"))["slices"] == {
        "marks": 3.0,
        "minutes": 1.5,
    }

    trained.clear()
    sparse_labels.main()
    assert trained == []
    argv[2] = "slices=sparsify --kind slices --count 3"
    (tmp_path / "out/runs.csv").unlink()
    monkeypatch.setattr("sys.argv", ["sparse_labels.py", *argv])
    with pytest.raises(SystemExit, match="made for another annotation"):
        sparse_labels.main()
    argv[argv.index("LimitedBoxTrainer@strokes")] = "LimitedBoxTrainer@dots"
    monkeypatch.setattr("sys.argv", ["sparse_labels.py", *argv])
    with pytest.raises(SystemExit) as stopped:
        sparse_labels.main()
    assert stopped.value.code == 2
