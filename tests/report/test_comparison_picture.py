"""The picture that shows cases and methods side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
import SimpleITK as sitk

from nnunet_limited.datasets.phantom import LABELS, write_phantom_dataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.report.comparison_picture import CaseFiles, comparison_picture

NAMES = {value: name for name, value in LABELS.items()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom_dataset(tmp_path_factory.mktemp("raw"), training=2, test=0)


@pytest.mark.parametrize(("rows", "methods"), [(1, 1), (4, 4)])
def test_picture_is_written(dataset, tmp_path, rows, methods):
    out = tmp_path / "new" / "comparison.png"
    truth = dataset / "labelsTr" / "case_000.nii.gz"
    other = dataset / "labelsTr" / "case_001.nii.gz"
    image = dataset / "imagesTr" / "case_000_0000.nii.gz"
    names = [f"method {i}" for i in range(methods)]
    files = {name: other if i % 2 else truth for i, name in enumerate(names)}
    content = [CaseFiles(f"case {i}", image, truth, files) for i in range(rows)]
    scores = {name: {f"case {i}": 0.9 for i in range(rows)} for name in names}
    comparison_picture(content, out, NAMES, scores)
    assert out.read_bytes().startswith(b"\x89PNG\r\n")
    assert [file.name for file in out.parent.iterdir()] == ["comparison.png"]


def test_picture_without_a_score_or_prediction(dataset, tmp_path):
    image, truth = dataset / "imagesTr/case_000_0000.nii.gz", dataset / "labelsTr/case_000.nii.gz"
    rows = [CaseFiles("a", image, truth, {"one": truth, "two": truth}), CaseFiles("b", image, truth, {"one": truth})]
    comparison_picture(rows, tmp_path / "p.png", NAMES, {"one": {"a": float("nan")}})
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_picture_refuses_what_does_not_fit(dataset, tmp_path):
    image, truth = dataset / "imagesTr/case_000_0000.nii.gz", dataset / "labelsTr/case_000.nii.gz"
    small = tmp_path / "small.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(truth))[:, :, :5], str(small))
    out = tmp_path / "out" / "p.png"
    with pytest.raises(LimitedError, match="at least one case"):
        comparison_picture([], out, NAMES, {})
    with pytest.raises(LimitedError, match="does not exist"):
        comparison_picture([CaseFiles("a", image, tmp_path / "no.nii.gz", {"one": truth})], out, NAMES, {})
    with pytest.raises(LimitedError, match="has shape"):
        comparison_picture([CaseFiles("a", image, truth, {"one": small})], out, NAMES, {})
    assert not out.exists()
