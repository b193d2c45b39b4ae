"""The page that a study ends in: what it says, and how it behaves in a browser."""

from __future__ import annotations

import base64
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml
from helpers import DATASET, Variant, write_dataset
from test_study import write as write_study

from nnunet_limited.metrics.registry import METRICS, Metric
from nnunet_limited.metrics.request import EvaluateRequest
from nnunet_limited.runs.evaluate import evaluate, write_rows
from nnunet_limited.studies.comparison.folder import ComparisonFolder, open_folder
from nnunet_limited.studies.comparison.report import summary
from nnunet_limited.studies.comparison.results import headline, load_results
from nnunet_limited.studies.comparison.study import Run
from nnunet_limited.studies.engine.failures import failed_marker
from nnunet_limited.studies.kinds import make_report
from nnunet_limited.util.files import write_json

CASES = ["case_00", "case_03", "case_06"]
QUALITY = {"supervised": 0.1, "mean-teacher": 0.04}  # share of voxels predicted wrong
FAILED = f"{DATASET}/2d/l3s1/supervised/fold_0"


def evaluate_run(folder: ComparisonFolder, run: Run, results: Path, labels: Path) -> None:
    request = {"predictions": results / "validation", "truth": labels, "dataset_json": labels.parent / "dataset.json"}
    write_rows(
        folder.run_folder(run) / "metrics.csv", evaluate(EvaluateRequest(**request, processes=1, allow_missing=True))
    )


def pretend(folder: ComparisonFolder, run: Run, labels: Path, wrong: float) -> None:
    """Write what a run leaves: predictions with a share of voxels wrong, its record and its metrics."""
    results = folder.path / "results" / run.identifier
    for number, case in enumerate(CASES):
        image = sitk.ReadImage(str(labels / f"{case}.nii.gz"))
        array = sitk.GetArrayFromImage(image)
        rng = np.random.default_rng([run.seed, number, len(run.labeled)])
        spoilt = rng.uniform(size=array.shape) < wrong
        array[spoilt] = (array[spoilt] + 1) % 3
        made = sitk.GetImageFromArray(array)
        made.CopyInformation(image)
        (results / "validation").mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(made, str(results / "validation" / f"{case}.nii.gz"))
    evaluate_run(folder, run, results, labels)
    curves = {
        "train_losses": [0.5, -0.2, -0.4],
        "unsupervised_losses": [0.1, 0.2, 0.1],
        "unsupervised_weights": [0, 1, 1],
    }
    write_json(
        folder.run_folder(run) / "trained.json",
        {
            "trainer": "LimitedSupervisedTrainer",
            "plans": "nnUNetPlans",
            "split_hash": "0123456789abcdef",
            "labeled_cases": 5 if run.labeled == "all" else int(run.labeled),
            "results": [str(results.relative_to(folder.path))],
            "minutes": 1.5,
            "curves": [curves if run.method != "supervised" else {"train_losses": [0.5, 0.1, -0.1]}],
            "memory_mb": 900.0,
            "command": f"nnunet-limited crossval {run.dataset} <&>",
            "finished": "2026-01-01 00:00:00",
            "machine": "x86_64, 2 cores",
            "versions": {"nnunetv2": "2.8.1"},
        },
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> ComparisonFolder:
    """A study in which one run has failed and one has not been made."""
    root = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            (root / name).mkdir()
            patch.setenv(f"nnUNet_{name}", str(root / name))
        write_dataset(root / "raw", Variant(cases=8))
        folder = open_folder(write_study(root / "study.yaml", name="a_study"), root / "out")
    truth = folder.path / "preprocessed" / DATASET / "gt_segmentations"
    shutil.copytree(folder.path / "raw" / DATASET / "labelsTr", truth)
    shutil.copy(folder.path / "raw" / DATASET / "dataset.json", truth.parent)
    runs = folder.study.runs()
    for run in runs[:-1]:
        if run.identifier == FAILED:
            log = folder.log(run, "train")
            log.parent.mkdir(parents=True)
            log.write_text("epoch 1\nMemoryError: <no room>\n", encoding="utf-8")
            failed_marker(log).write_text("failed", encoding="utf-8")
        else:
            pretend(folder, run, truth, QUALITY[run.method] / (2 if run.labeled == "all" else 1))
    return folder


@pytest.fixture(scope="module")
def page(study: ComparisonFolder) -> Path:
    return next(file for file in make_report(study) if file.name == "index.html")


@pytest.mark.slow
def test_the_page_needs_nothing_else(page: Path) -> None:
    content = page.read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", content)
    assert "http" not in re.sub(r"http://www\.w3\.org/\S+", "", content)
    pictures = re.findall(
        r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)" width="(\d+)" height="(\d+)"', content
    )
    assert len(pictures) == content.count("<figure>") >= 8
    for data, text, *_ in pictures:
        assert base64.b64decode(data).startswith(b"\x89PNG")
        assert len(text) > 20, "a picture has a text"
    assert "&lt;no room&gt;" in content, "what logs say is no markup"
    assert FAILED in content


@pytest.mark.slow
def test_the_summary_has_the_sizes_in_order(study: ComparisonFolder, tmp_path: Path) -> None:
    """Not in that of the results: here few labels do better."""
    results = load_results(study)
    few = results.scores["labeled"] == "2"
    results.scores.loc[few, "dice"] = 0.99
    text = summary(results, study.study, headline(results, study.study))
    assert 0 < text.index("2 labelled: ") < text.index("3 labelled: ")
    results.scores.loc[~few, "dice"], results.scores.loc[few, "dice"] = 0.99, 0.5
    text = summary(results, study.study, headline(results, study.study))
    assert 0 < text.index("2 labelled: ") < text.index("3 labelled: ")


def test_a_run_that_waits_for_its_evaluation_is_trained(study: ComparisonFolder, tmp_path: Path) -> None:
    folder = ComparisonFolder(shutil.copytree(study.path, tmp_path / "copy", symlinks=True))
    run = folder.study.runs()[0]
    log = folder.log(run, "train")
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("epoch 1", encoding="utf-8")
    (folder.run_folder(run) / "metrics.csv").unlink()
    assert folder.state(run) == ("trained", log)
    (folder.run_folder(run) / "trained.json").unlink()
    assert folder.state(run) == ("started", log)


def test_the_tables_say_what_the_runs_found(study: ComparisonFolder, page: Path) -> None:
    """The headline is that of the metrics of the runs, computed here in another way."""
    table = pd.read_csv(page.parent / "table.csv")
    row = table[(table["method"] == "mean teacher") & (table["labeled"].astype(str) == "2")].iloc[0]
    assert row["seeds"] == 2
    means, pairs = [], []
    for seed in (0, 1):
        by_method = {}
        for method in ("supervised", "mean-teacher"):
            found = pd.read_csv(study.path / "runs" / DATASET / "2d" / f"l2s{seed}" / method / "fold_0" / "metrics.csv")
            by_method[method] = found.groupby("class")["dice"].mean().mean()
        means.append(by_method["mean-teacher"])
        pairs.append(by_method["mean-teacher"] - by_method["supervised"])
    assert row["dice"] == pytest.approx(np.mean(means))
    assert row["dice_sd"] == pytest.approx(np.std(means, ddof=1))
    assert row["difference"] == pytest.approx(np.mean(pairs))
    assert row["evidence"] == "2 seeds: no p-value; better in 2 of 2"
    assert row["labels_saved"] > 0, "it beats the baseline with the same labels"
    shown = (page.parent / "table.md").read_text(encoding="utf-8")
    assert "± " in shown
    assert "| Dice | HD95 (mm) | NSD | Dice against supervised [95 %] | evidence |" in shown
    latex = (page.parent / "table.tex").read_text(encoding="utf-8")
    assert latex.count(r"\\") == 1 + len(table)
    assert r"[95 \%]" in latex
    assert not re.search(r"(?<!\\)[%_]", latex), "LaTeX would take it for a comment or an index"


@pytest.mark.slow
def test_a_metric_needs_a_row_of_the_registry_only(study: ComparisonFolder, tmp_path: Path, monkeypatch) -> None:
    """It has its columns in every table, under its title and unit, and the best is the lowest where it should be.

    Runs from before it was there have no value.
    """
    misses = Metric("misses", "missed surface", "length", False, lambda pair: pair.sizes[1] - pair.overlap)
    monkeypatch.setitem(METRICS, "misses", misses)
    folder = ComparisonFolder(shutil.copytree(study.path, tmp_path / "copy", symlinks=True))
    content = yaml.safe_load((folder.path / "study.yaml").read_text(encoding="utf-8"))
    content["metrics"] = ["misses", "dice"]
    (folder.path / "study.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    labels = folder.path / "preprocessed" / DATASET / "gt_segmentations"
    runs = [run for run, state, _ in folder.states() if state == "done" and run.labeled != "all"]
    for run in runs:
        evaluate_run(folder, run, folder.path / "results" / run.identifier, labels)
    files = {file.name: file for file in make_report(folder)}
    table = pd.read_csv(files["table.csv"])
    assert table.loc[table["labeled"] == "2", "misses"].gt(0).all()
    assert table.loc[table["labeled"] == "all", "misses"].isna().all()
    assert "missed surface (mm)" in files["table.md"].read_text(encoding="utf-8")
    page = files["index.html"].read_text(encoding="utf-8")
    assert page.count("missed surface (mm)</button>") == 2, "of the methods and of the classes"
    lowest = table.loc[table["labeled"] == "2"].sort_values("misses").iloc[0]
    assert re.search(rf'<tr class="best"><td class="text">{lowest["method"]} .*?{lowest["misses"]:.4f}', page)


def test_few_seeds_have_no_p_value_in_any_file(page: Path) -> None:
    """Neither on the page nor in a table for people, for LaTeX or for programs."""
    for file in page.parent.glob("*.*"):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"p\s*(=|<|\$<\$|&lt;)\s*0?\.\d", text), file
        assert file.suffix == ".csv" or "no p-value" in text
    table = pd.read_csv(page.parent / "table.csv")
    assert table[["low", "high", "p", "p_holm", "labels_saved_low", "labels_saved_high"]].isna().all(axis=None)


def test_missing_results_are_reported(study: ComparisonFolder, page: Path) -> None:
    for text in (page.read_text(encoding="utf-8"), (page.parent / "table.md").read_text(encoding="utf-8")):
        assert f"1 run failed: {FAILED}" in text
        assert "not done yet: 1 of 10 runs" in text


def test_a_study_without_results_has_a_page_too(folders: Path) -> None:
    write_dataset(folders / "raw", Variant(cases=8))
    folder = open_folder(write_study(folders / "study.yaml"), folders / "out")
    content = next(file for file in make_report(folder) if file.name == "index.html").read_text(encoding="utf-8")
    assert "No run is done yet" in content


def test_the_page_works_in_a_browser(page: Path, browser) -> None:
    """No error, tables sort by mouse and keyboard, pictures open, and it fits a phone."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.get(page.as_uri())
    assert browser.get_log("browser") == []
    assert all(browser.execute_script("return [...document.images].slice(0, -1).map(i => i.naturalWidth)"))

    table = browser.find_element(By.CSS_SELECTOR, "table.sortable")
    heads = table.find_elements(By.TAG_NAME, "th")
    column = next(n for n, head in enumerate(heads) if head.text.startswith("Dice"))

    def shown() -> list[float]:
        cells = table.find_elements(By.CSS_SELECTOR, f"tbody td:nth-child({column + 1})")
        return [float(cell.text.split()[0]) for cell in cells]

    button = heads[column].find_element(By.TAG_NAME, "button")
    button.click()
    assert shown() == sorted(shown())
    assert heads[column].get_attribute("aria-sort") == "ascending"
    button.send_keys(Keys.ENTER)
    assert shown() == sorted(shown(), reverse=True)
    assert len(set(shown())) > 2

    picture = browser.find_element(By.CSS_SELECTOR, "figure button")
    dialog = browser.find_element(By.TAG_NAME, "dialog")
    assert not dialog.is_displayed()
    picture.click()
    assert dialog.is_displayed()
    assert dialog.find_element(By.TAG_NAME, "img").get_attribute("alt")
    dialog.find_element(By.TAG_NAME, "button").click()
    assert not dialog.is_displayed()

    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    )
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    assert browser.get_log("browser") == []


def test_the_page_prints(page: Path, browser) -> None:
    """What is folded in is on paper, what is for the screen is not."""
    from selenium.webdriver.common.by import By

    browser.get(page.as_uri())
    folded = browser.find_elements(By.CSS_SELECTOR, "details:not([open])")
    assert folded
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert not browser.find_elements(By.CSS_SELECTOR, "details:not([open])")
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert len(browser.find_elements(By.CSS_SELECTOR, "details:not([open])")) == len(folded)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not browser.find_element(By.TAG_NAME, "nav").is_displayed()
    assert base64.b64decode(browser.print_page()).startswith(b"%PDF")
