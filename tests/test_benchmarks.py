"""The benchmarks keep up with the package."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from helpers import DATASET, FROM_START, assert_same
from semi_supervised import COLUMNS, SUPERVISED, check_setup, published_fold, read_rows, summarise, write
from step_time import Bench

from nnunet_limited.trainers.catalogue import learns_without_label, trainer_names


@pytest.mark.parametrize("trainer", [name for name in trainer_names() if learns_without_label(name)])
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
    table = (tmp_path / "table.md").read_text()
    assert "2000 iterations" in table
    assert "1500 iterations" not in table
    assert r"--size '' --group-by 'patient\d+'" in table
    assert "| 4 | LimitedRecipeTrainer | 2 | 0.7350 ± 0.0354 | +0.0250 | 1 of 2 | 25 % |" in table
    assert (tmp_path / "table.png").stat().st_size > 1000


def test_published_orders_become_folds() -> None:
    order = [f"p{i:02d}_{frame}" for i in range(10) for frame in "ab"]
    plain = published_fold({"train_order": order}, "3")
    assert (plain["train"], plain["val"], len(plain["unlabeled"])) == (order[:3], order[-4:], 13)
    listed = {"train_order": [f"{case}_other" for case in order], "train": order}
    patients = {**listed, "val": order[:2], "labelled_patients": {"2": ["p01", "p05"]}}
    fold = published_fold(patients, "2")
    assert fold["train"] == ["p01_a", "p01_b", "p05_a", "p05_b"]
    assert published_fold(patients, "100%")["train"] == order[2:]


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
