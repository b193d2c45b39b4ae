"""What annotators get."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import DATASET, read, spoil
from rounds import TRAINER, ask, request

from nnunet_limited.queries.record import load_round
from nnunet_limited.queries.score import ModelScorer
from nnunet_limited.runs.predict import Predictor
from nnunet_limited.splits import load_split


@pytest.mark.slow
def test_what_annotators_get(models, tmp_path: Path) -> None:
    workspace, plans = models("2d")
    query_round, made = ask(request(workspace, plans, tmp_path / "round"), pictures=True)
    predictor = Predictor(workspace.root / "rounds" / DATASET / f"{TRAINER}__{plans}__2d", [0], "cpu")
    fold = load_split(workspace.preprocessed, "few").fold(0)
    assert set(made.cases) <= set(fold.unlabeled)
    for case in made.cases:
        given = workspace.root / "raw" / DATASET / "imagesTr" / f"{case}_0000.nii.gz"
        assert np.array_equal(read(made.folder / "images" / given.name), read(given))
        label = read(made.folder / "labels" / f"{case}.nii.gz")
        image, _ = ModelScorer(query_round, "cpu").load(case)
        expected = torch.stack(list(predictor.probabilities(image))).mean(0).argmax(0).numpy()
        inside = np.zeros(label.shape, bool)
        for window in made.windows_of(case):
            inside[window.inside] = True
        assert (label[~inside] == 3).all()
        assert np.array_equal(label[inside], expected[inside])
    assert load_round(made.folder) == made
    assert (made.folder / "montage.png").stat().st_size > 1000
    table = (made.folder / "queries.csv").read_text(encoding="utf-8").splitlines()
    assert len(table) == 4


@pytest.mark.slow
@pytest.mark.parametrize("how", ["garbage", "deleted"])
def test_hidden_labels_change_nothing(models, tmp_path: Path, how: str) -> None:
    workspace, plans = models("2d")
    asked = request(workspace, plans, tmp_path / "before")
    ask(asked, pictures=True)
    hidden = list(load_split(workspace.preprocessed, "few").fold(0).unlabeled)
    labels = workspace.root / "raw" / DATASET
    shutil.copytree(labels, tmp_path / "kept")
    try:
        spoil(workspace, hidden, how)
        ask(asked.changed(out=tmp_path / "after"), pictures=True)
        _, after = ask(asked.changed(out=tmp_path / "cold", strategy="typiclust", configuration=None,
                               trainer=None, plans=None, split="few", what="case", size=None))  # fmt: skip
        assert sorted(after.cases) == sorted(hidden)
    finally:
        shutil.rmtree(labels)
        shutil.move(tmp_path / "kept", labels)
    for file in sorted((tmp_path / "before").rglob("*.*")):
        if file.is_file() and file.suffix not in (".lock",):
            assert file.read_bytes() == (tmp_path / "after" / file.relative_to(tmp_path / "before")).read_bytes(), file


def test_the_page_of_a_round_works_in_a_browser(models, tmp_path: Path, browser) -> None:
    """No console error; every picture drawn and described; each query reached by keyboard, narrow and in print."""
    from selenium.webdriver.common.keys import Keys

    workspace, plans = models("2d")
    _, made = ask(request(workspace, plans, tmp_path / "round", items=4), pictures=True)
    browser.get((made.folder / "index.html").as_uri())
    assert browser.get_log("browser") == []
    sections = browser.find_elements("css selector", "section")
    assert len(sections) == 4
    for section, query in zip(sections, made.queries, strict=True):
        picture = section.find_element("tag name", "img")
        assert int(picture.get_property("naturalWidth")) > 300
        assert query.window.case in picture.get_attribute("alt")
        x, y, z = query.window.start[::-1]
        assert f"voxels {x}, {y}, {z} to" in section.text
        browser.switch_to.active_element.send_keys(Keys.TAB)
        assert browser.switch_to.active_element == section
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": True}
    )
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    assert len(browser.execute_cdp_cmd("Page.printToPDF", {})["data"]) > 10_000
