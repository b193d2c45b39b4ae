"""Queries without a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import DATASET, command, read
from rounds import write

from nnunet_limited.datasets.raw import RawDataset
from nnunet_limited.errors import LimitedError
from nnunet_limited.queries import features
from nnunet_limited.queries.record import load_round
from nnunet_limited.splits import load_split


def test_a_cold_start(workspaces, tmp_path: Path) -> None:
    """Two kinds of scans; TypiClust chooses one of each. The first split is made from the answers."""
    workspace = workspaces("2d")
    raw = tmp_path / "raw" / "Dataset702_Cold"
    (raw / "imagesUn").mkdir(parents=True)
    for number in range(8):
        source = workspace.root / "raw" / DATASET / "imagesTr" / f"case_{number:02d}_0000.nii.gz"
        array = read(source) + (5000 if number >= 4 else 0)
        write(array, source, raw / "imagesUn" / source.name)
    (raw / "dataset.json").write_text(
        (workspace.root / "raw" / DATASET / "dataset.json").read_text(encoding="utf-8"), encoding="utf-8"
    )
    with pytest.MonkeyPatch.context() as patch:
        for name in ("raw", "preprocessed", "results"):
            (tmp_path / name).mkdir(exist_ok=True)
            patch.setenv(f"nnUNet_{name}", str(tmp_path / name))
        out = tmp_path / "round_1"
        assert command("query", "702", "--items", "2", "--out", str(out)) == 0
        made = load_round(out)
        assert made.record.strategy == "typiclust"
        assert len({int(case[-2:]) // 4 for case in made.cases}) == 2
        assert (read(out / "labels" / f"{made.cases[0]}.nii.gz") == 0).all()
        truths = workspace.root / "raw" / DATASET / "labelsTr"
        assert command("absorb", str(out), "--out", "Dataset703_Cold", "--oracle", str(truths)) == 0
        split = load_split(tmp_path / "preprocessed" / "Dataset703_Cold", "r1")
        assert len(split.folds) == 2
        assert split.labeled == sorted(made.cases)
        assert "ignore" not in RawDataset.load("703").dataset_json["labels"]  # every voxel is annotated


@pytest.mark.slow
def test_descriptions_of_scans(workspaces, tmp_path: Path) -> None:
    workspace = workspaces("two_channels")
    raw = RawDataset.load(DATASET)
    shape, spacing, about = features.describe_scan(raw.cases["case_00"], raw.reader())
    assert (shape, spacing) == ((8, 32, 32), (1.0, 1.0, 1.0))
    assert len(about) == 3 + 3 + 2 * (7 + 64)
    image = read(workspace.root / "raw" / DATASET / "imagesTr" / "case_00_0000.nii.gz")
    assert np.allclose(about[6:13], np.percentile(image, features.PERCENTILES))
    np.savez(tmp_path / "f.npz", a=np.ones(3), b=np.zeros(3), c=np.ones(4), e=np.array([1, np.nan, 1]))
    assert features.load_features(tmp_path / "f.npz", ["b", "a"]).tolist() == [[0, 0, 0], [1, 1, 1]]
    with pytest.raises(LimitedError, match="'c' has 4 numbers, 'a' 3"):
        features.load_features(tmp_path / "f.npz", ["a", "c"])
    with pytest.raises(LimitedError, match="'e' has numbers that are not finite"):
        features.load_features(tmp_path / "f.npz", ["a", "e"])
    with pytest.raises(LimitedError, match="no array named 'd'"):
        features.load_features(tmp_path / "f.npz", ["a", "d"])
