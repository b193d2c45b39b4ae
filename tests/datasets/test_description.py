"""What dataset.json says of the labels."""

from __future__ import annotations

from nnunet_limited.datasets.description import DatasetDescription


def test_classes_have_the_order_of_the_channels() -> None:
    labels = {"background": 0, "tumour": 2, "liver": 1, "ignore": 3}
    assert list(DatasetDescription({"labels": labels}).foreground) == ["liver", "tumour"]
    regions = {"background": 0, "whole": [1, 2], "core": [2]}
    description = DatasetDescription({"labels": regions, "regions_class_order": [1, 2]})
    assert list(description.foreground) == ["whole", "core"]
