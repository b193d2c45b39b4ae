"""The benchmarks keep up with the package."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import sparse_labels
from helpers import DATASET, FROM_START, assert_same
from semi_supervised import COLUMNS, SUPERVISED, check_setup, read_rows, summarise, write
from step_time import Bench
from trainer_sets import SEMI_SUPERVISED, few


@pytest.mark.slow
@pytest.mark.parametrize("trainer", few(SEMI_SUPERVISED))
def test_a_step_comes_apart_into_its_passes(workspaces, trainer: str) -> None:
    workspace = workspaces("2d")
    bench = Bench(trainer, DATASET, "2d", workspace.configure("parts", **FROM_START), "cpu")
    bench.prepare_parts()
    for part in (bench.labelled, bench.without_gradient, bench.unlabelled, bench.update, bench.step):
        part()


def row(
    labelled: str, seed: int, trainer: str, dice: float, iterations: int = 1000, name: str = "mean"
) -> dict[str, Any]:
    return dict(zip(COLUMNS, (labelled, seed, trainer, "", iterations, 0, name, dice, 1.0), strict=True))


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


def test_the_table_holds_runs_of_one_length_and_settings_and_the_file_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["semi_supervised.py", "--size", "", "--group-by", r"patient\d+"])
    other = {**row("4", 1, "LimitedRecipeTrainer", 0.5), "settings": "consistency_weight=0.3"}
    lengths = [row("4", 0, SUPERVISED, 0.5, iterations=500), row("4", 0, SUPERVISED, 0.5, iterations=1500)]
    rows = [*ROWS, row("4", 0, "LimitedRecipeTrainer", 0.5, iterations=500), *lengths, other]
    write(tmp_path, rows, Namespace(set=[], iterations=1000))
    assert_same(read_rows(tmp_path / "runs.csv"), rows)
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "2000 iterations" in table
    assert "1500 iterations" not in table
    assert r"--size '' --group-by 'patient\d+'" in table
    assert "| 4 | LimitedRecipeTrainer | 2 | 0.7350 ± 0.0354 | +0.0250 | 1 of 2 | 25 % |" in table
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
