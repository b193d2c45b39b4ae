"""Simulated loops of active learning: what may be asked of them, a whole loop that goes on, and its report."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from helpers import DATASET, Variant, command, write_dataset
from scipy import stats

from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.runs.evaluate import write_rows
from nnunet_limited.splits import load_split
from nnunet_limited.studies.active import job
from nnunet_limited.studies.active.folder import ActiveFolder, open_active
from nnunet_limited.studies.active.results import load_results
from nnunet_limited.studies.active.study import Step
from nnunet_limited.studies.engine.failures import failed_marker
from nnunet_limited.studies.kinds import make_report
from nnunet_limited.util.files import write_json

SMALL: dict[str, Any] = {
    "name": "loop",
    "dataset": DATASET,
    "labeled": 1,
    "targets": [{"what": "patch", "size": "4x8x8", "items": 3}],
    "strategies": ["random", "random_fg66"],
    "methods": [{"name": "sup", "trainer": "LimitedSparseTrainer"}],
    "rounds": 2,
    "seeds": [0],
    "number_of_folds": 3,
    "configuration": "2d",
    "size": "tiny",
    "iterations": 2,
    "iterations_per_epoch": 1,
}


def write(file: Path, **changes: Any) -> Path:
    file.write_text(yaml.safe_dump({**SMALL, **changes}), encoding="utf-8")
    return file


WRONG: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"strategies": ["random", "best"]}, ("strategy 'best'", "clasp_pe")),
    ({"strategies": ["random", "random"]}, ("strategies random is listed twice",)),
    ({"seeds": [1, 1]}, ("seeds 1 is listed twice",)),
    ({"targets": [{"what": "patch", "items": 2}]}, ("target patch", "patches need a size")),
    ({"targets": [{"what": "case", "size": "4x4x4", "items": 2}]}, ("patches need a size",)),
    ({"targets": [{"what": "case", "axis": 1, "items": 2}]}, ("only slices have an axis",)),
    ({"targets": [{"what": "voxel", "items": 2}]}, ("targets.0.what", "voxel")),
    ({"targets": [{"what": "case", "items": 0}]}, ("targets.0.items",)),
    ({"targets": [{"what": "case", "items": 3}]}, ("take 7", "only 5 of 8")),
    ({"cases": 99}, ("cases=99", "8 labelled")),
    ({"iterations": 3, "iterations_per_epoch": 2}, ("iterations=3",)),
    ({"configuration": "4d"}, ("configuration '4d'",)),
    ({"methods": [{"name": "m", "trainer": "Nobody"}]}, ("Nobody",)),
    ({"methods": [{"name": "m", "trainer": "LimitedSparseTrainer", "settings": {"seed": 1}}]}, ("seed",)),
    ({"methods": [{"name": "m", "trainer": "LimitedSparseTrainer", "labeled": [4]}]}, ("remove labeled",)),
    ({"methods": [{"name": "m", "trainer": "LimitedSparseTrainer", "targets": ["cases"]}]}, ("'cases'", "patch-4x8x8")),
    ({"dataset": "Dataset111_Nothing"}, ("Dataset111_Nothing",)),
    ({"budget": 3}, ("budget",)),
    ({"rounds": 0, "seeds": []}, ("2 problems", "rounds", "seeds")),
]


@pytest.mark.parametrize(("changes", "messages"), WRONG, ids=[" ".join(messages) for _, messages in WRONG])
def test_wrong_files_are_refused(folders: Path, changes: dict[str, Any], messages: tuple[str, ...]) -> None:
    write_dataset(folders / "raw", Variant(cases=8))
    with pytest.raises(LimitedError) as refused:
        open_active(write(folders / "a.yaml", **changes), folders / "out")
    for part in messages:
        assert part in str(refused.value)
    assert not (folders / "out").exists()


def test_a_case_without_label_has_no_oracle(folders: Path) -> None:
    (write_dataset(folders / "raw", Variant(cases=8)) / "labelsTr" / "case_03.nii.gz").unlink()
    with pytest.raises(LimitedError, match="case_03 has no label"):
        open_active(write(folders / "a.yaml"), folders / "out")


def test_a_simulation_may_grow_but_not_change(folders: Path) -> None:
    write_dataset(folders / "raw", Variant(cases=8))
    out = folders / "out"
    folder = open_active(write(folders / "a.yaml"), out)
    numbers = json.loads((out / "datasets.json").read_text(encoding="utf-8"))
    assert len(folder.study.runs()) == 2 + 2 * 2
    assert sorted(name[7:10] for name in numbers.values()) == ["601", "602", "603", "604"]
    more = {"strategies": ["entropy", "random", "random_fg66"], "seeds": [1, 0]}
    grown = open_active(write(folders / "a.yaml", **more), out)
    now = json.loads((out / "datasets.json").read_text(encoding="utf-8"))
    assert {key: now[key] for key in numbers} == numbers  # those that have a number keep it
    assert len(set(now.values())) == len(now) == 2 * 2 * 3
    assert len(grown.study.runs()) == 2 * 2 + 12
    targets = [*SMALL["targets"], {"what": "case", "items": 1}]
    methods = [*SMALL["methods"], {"name": "two", "trainer": "LimitedSparseTrainer", "targets": ["case"]}]
    both = open_active(write(folders / "b.yaml", targets=targets, methods=methods), folders / "both")
    chains = {(run.target, run.method) for run in both.study.runs() if run.number}
    assert chains == {("patch-4x8x8", "sup"), ("case", "sup"), ("case", "two")}
    open_active(write(folders / "a.yaml", **more, methods=methods[1:], targets=targets), out)  # for once without sup
    for changes, message in (
        ({"rounds": 1}, "rounds is 1"),
        ({"labeled": 2}, "labeled is 2"),
        ({"methods": [{"name": "sup", "trainer": "LimitedSupervisedTrainer"}]}, "method 'sup' is not as"),
        ({"targets": [{"what": "patch", "size": "4x8x8", "items": 9}]}, "target 'patch-4x8x8' is not as"),
    ):
        with pytest.raises(LimitedError, match=message):
            open_active(write(folders / "a.yaml", **{**more, **changes}), out)
    with pytest.raises(LimitedError, match="holds no study"):
        open_active(folders / "a.yaml", folders)
    shutil.copytree(folders / "raw" / DATASET, folders / "raw" / "Dataset602_Other")
    with pytest.raises(LimitedError, match="dataset is Dataset602_Other, but"):
        open_active(write(folders / "a.yaml", **more, dataset="Dataset602_Other"), out)
    other = open_active(write(folders / "a.yaml", dataset="602"), folders / "other")
    numbers = json.loads((other.path / "datasets.json").read_text(encoding="utf-8")).values()
    assert sorted(name[7:10] for name in numbers) == ["601", "603", "604", "605"]  # 602 is the study's own


@pytest.mark.slow
@pytest.mark.usefixtures("commands_here")
def test_a_loop_from_end_to_end(folders: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """Hidden labels stay hidden but for what was asked for; costs add up; stopped, it goes on where it was."""
    pytest.importorskip("snakemake", reason="Snakemake needs Python 3.11")
    write_dataset(folders / "raw", Variant(cases=8))
    file, out = write(folders / "a.yaml", strategies=["random_fg66"]), folders / "out"
    folder = open_active(file, out)
    monkeypatch.chdir(out)
    with folder.active():
        assert [job.main([run.identifier, "none"]) for run, *_ in folder.states()] == [0] * 4
    monkeypatch.chdir(folders)
    assert command("study", "status", str(out)) == 0
    assert "4 done" in capsys.readouterr().out
    assert {state for _, state, _ in folder.states()} == {"done"}
    runs = {
        run.identifier: json.loads((folder.run_folder(run) / "trained.json").read_text(encoding="utf-8"))
        for run, *_ in folder.states()
    }
    start, first, second = (runs[name] for name in (
        "start/sup/s0/round_0", "patch-4x8x8/sup/random_fg66/s0/round_1", "patch-4x8x8/sup/random_fg66/s0/round_2"
    ))  # fmt: skip
    assert [one["costs"]["items"] for one in (start, first, second)] == [1, 4, 7]
    assert first["costs"]["voxels"] - start["costs"]["voxels"] == 3 * 4 * 8 * 8
    assert (
        second["costs"]["foreground_voxels"] > first["costs"]["foreground_voxels"] > start["costs"]["foreground_voxels"]
    )
    assert second["costs"]["minutes"] > first["costs"]["minutes"] > start["costs"]["minutes"] == 0
    scores = [pd.read_csv(folder.run_folder(run) / "metrics.csv") for run, *_ in folder.states()[1:]]
    assert scores[0]["case"].tolist() == scores[2]["case"].tolist(), "all are validated on the same cases"
    summary = json.loads((out / second["results"][-1] / "validation" / "summary.json").read_text(encoding="utf-8"))
    assert load_results(folder)["dice"].iloc[-1] == pytest.approx(summary["foreground_mean"]["Dice"])
    with folder.active():
        raw = RawDataset.load(second["dataset"])
        fold = load_split(out / "preprocessed" / raw.name, "r2").folds[0]
        hidden = load_split(out / "preprocessed" / DATASET, "start0").folds[0].unlabeled
        assert set(raw.labeled) == {*fold.train, *fold.val}
        oracle = [raw.cases[case].label.resolve().parent.name for case in fold.train if case in hidden]
        assert set(oracle) == {"labelsSparse"}
    times = {path: path.stat().st_mtime_ns for path in (out / "rounds").rglob("trained.json")}
    assert len(times) == 4
    last = folder.run_folder(folder.states()[-1][0])
    (last / "trained.json").unlink()  # as if it had been stopped at the end of the last round
    checkpoint = out / second["results"][-1] / "checkpoint_final.pth"
    trained = checkpoint.stat().st_mtime_ns
    assert command("simulate-al", str(file), "--out", str(out), "--cores", "1") == 0
    again = {path: path.stat().st_mtime_ns for path in (out / "rounds").rglob("trained.json")}
    assert [path.parent for path in times if again[path] != times[path]] == [last]
    assert checkpoint.stat().st_mtime_ns == trained  # what it had trained is not trained again
    table = pd.read_csv(out / "report" / "table.csv")
    curve = [one.groupby("class")["dice"].mean().mean() for one in scores]
    assert table["aubc"][0] == pytest.approx((curve[0] + 2 * curve[1] + curve[2]) / 4)
    assert table["final"][0] == pytest.approx(curve[2])
    assert table["strategy"][0] == "random_fg66 (oracle)"


def write_scores(folder: ActiveFolder, run: Step, dice: float, hd95: float = 2.0) -> None:
    """Write the metrics of two cases and two classes, of which one case lacks the second; their mean is ``dice``."""
    rows = [
        ("case_00", "a", dice - 0.1),
        ("case_03", "a", dice + 0.1),
        ("case_00", "b", dice),
        ("case_03", "b", np.nan),
    ]
    table = pd.DataFrame(rows, columns=["case", "class", "dice"]).assign(hd95=hd95, nsd=dice)
    write_rows(folder.run_folder(run) / "metrics.csv", table)


@pytest.fixture
def pretended(folders: Path) -> ActiveFolder:
    """Two strategies, the second better in every round; one training of another chain has failed."""
    write_dataset(folders / "raw", Variant(cases=8))
    target = [{"what": "patch", "size": "4x8x8", "items": 3}, {"what": "slice", "items": 2}]
    seeds = [0, 1, 2, 3, 4]
    file = write(folders / "a.yaml", rounds=3, seeds=seeds, strategies=["random", "entropy"], targets=target)
    folder = open_active(file, folders / "out")
    for run, *_ in folder.states():
        if run.target == "slice":
            if run.strategy == "entropy" and run.number == 3:
                failed_marker(folder.log(run, "")).parent.mkdir(parents=True, exist_ok=True)
                folder.log(run, "").write_text("MemoryError: <no room>", encoding="utf-8")
                failed_marker(folder.log(run, "")).write_text("failed", encoding="utf-8")
            continue
        gain = {"full": 0.4, "start": 0.0}.get(run.target, (0.1 if run.strategy == "random" else 0.15) * run.number)
        write_scores(folder, run, 0.5 + gain + 0.001 * run.seed * run.number * len(run.strategy))
        write_json(
            folder.run_folder(run) / "trained.json",
            {
                "costs": {"items": 1 + 3 * run.number, "voxels": 9, "foreground_voxels": 100 * (1 + run.number),
                          "minutes": 5 * run.number},
                "minutes": 1.0,
                "results": [f"results/{run.identifier}"],
                "versions": {"nnunetv2": "2.8.1"},
                "machine": "x86_64",
                "command": "nnunet-limited crossval <&>",
            },
        )  # fmt: skip
    return folder


@pytest.mark.slow
def test_the_report_of_a_simulation(pretended: ActiveFolder) -> None:
    files = {file.name: file for file in make_report(pretended)}
    table = pd.read_csv(files["table.csv"])
    random, entropy = table[table["strategy"] == "random"].iloc[0], table[table["strategy"] == "entropy"].iloc[0]
    assert random["final"] == pytest.approx(0.8 + 0.001 * 2 * 3 * len("random"))
    assert entropy["final"] == pytest.approx(0.95 + 0.001 * 2 * 3 * len("entropy"))
    areas = [0.05 / 3 + 0.1 / 3 + 0.15 / 6 + seed * (1 / 3 + 2 / 3 + 3 / 6) * 0.001 for seed in range(5)]
    expected = stats.ttest_1samp(areas, 0)
    assert entropy["difference"] == pytest.approx(np.mean(areas))
    assert entropy["p"] == pytest.approx(expected.pvalue)
    assert entropy["low"] == pytest.approx(expected.confidence_interval().low)
    assert entropy["evidence"] == "5 seeds: better, p < 0.001; better in 5 of 5"
    assert np.isnan(random["difference"])
    assert entropy["efficiency"] > random["efficiency"] > 0
    gains = pd.read_csv(files["gains.csv"])
    assert gains["number"].tolist() == [2, 3, 2, 3]
    assert gains["gain"].tolist() == pytest.approx([0.112, np.nan, 0.164, np.nan], nan_ok=True)
    assert gains["predicted"].notna().all()  # after the last round too
    incomplete = "slice/sup/entropy/s4/round_3; not done yet: 25 of 70 runs"
    page, shown = (files[name].read_text(encoding="utf-8") for name in ("index.html", "table.md"))
    for text in (page, shown):
        assert "5 runs failed: slice/sup/entropy/s0/round_3, slice/sup/entropy/s1/round_3, " in text
        assert incomplete in text
    assert "last HD95 (mm) | last NSD" in shown
    assert "&lt;no room&gt;" in page
    assert "entropy beats random in 100%" in page
    assert command("report", str(pretended.path)) == 0
    assert command("study", "status", str(pretended.path), "--log", "slice/sup/entropy/s0/round_3") == 0


def test_a_strategy_whose_surfaces_get_worse_gains_nothing(pretended: ActiveFolder) -> None:
    for run, *_ in pretended.states():
        if run.strategy == "entropy" and run.target != "slice" and run.seed < 3:
            write_scores(pretended, run, 0.99, hd95=9.0)
    table = pd.read_csv(next(file for file in make_report(pretended) if file.name == "table.csv"))
    assert table["evidence"].iloc[1].startswith("5 seeds: no gain, p = 0.0")
    assert table["evidence"].iloc[1].endswith("but HD95 worse in 3 of 5")


def test_a_training_from_before_metrics_were_measured_has_the_dice_of_nnunet(pretended: ActiveFolder) -> None:
    run = pretended.states()[0][0]
    (pretended.run_folder(run) / "metrics.csv").unlink()
    classes = {"1": {"Dice": 0.25}, "2": {"Dice": 0.75}, "3": {"Dice": None}}
    write_json(pretended.path / "results" / run.identifier / "validation" / "summary.json", {"mean": classes})
    first = load_results(pretended).iloc[0]
    assert first["dice"] == 0.5
    assert np.isnan(first["hd95"])


def test_the_page_of_a_simulation_works_in_a_browser(pretended: ActiveFolder, browser) -> None:
    browser.get(make_report(pretended)[-1].as_uri())
    assert browser.get_log("browser") == []
    assert all(browser.execute_script("return [...document.images].slice(0, -1).map(i => i.naturalWidth)"))


def test_a_report_of_what_is_not_complete(pretended: ActiveFolder) -> None:
    """A chain is missing, and all labels were not trained yet; the seeds that are left are too few for a test."""
    for run, *_ in pretended.states():
        if run.target == "full" or (run.strategy == "entropy" and run.seed == 2):
            (pretended.run_folder(run) / "trained.json").unlink(missing_ok=True)
    files = {file.name: file for file in make_report(pretended)}
    table = pd.read_csv(files["table.csv"])
    assert table["seeds"].tolist() == [5, 4]
    assert table["final"].tolist() == pytest.approx([0.836, 0.992])
    assert table["efficiency"].isna().all()
    assert table[["low", "high", "p", "p_holm"]].isna().all(axis=None)
    page = files["index.html"].read_text(encoding="utf-8")
    assert "Tests need 5 seeds that are complete for all strategies; there are 4." in page
    assert "beats random" not in page
    assert page.count("4 seeds: no p-value; better in 4 of 4") == 2, "in the summary, and in the table"
    assert "4 seeds: no p-value; better in 0 of 4" in page, "random minus entropy"
    assert not re.search(r"p [=<] 0\.|p &lt; 0\.0", page)
