"""nnU-Net's ``LabelManager``."""

from __future__ import annotations

from typing import Any

from nnunet_limited.losses.label_space import ClassLabels, LabelSpace, RegionLabels


def label_space(manager: Any) -> LabelSpace:
    """Return what the channels of predictions are, from nnU-Net's ``LabelManager`` of a dataset."""
    kind, values = (
        (RegionLabels, manager.foreground_regions) if manager.has_regions else (ClassLabels, manager.all_labels)
    )
    groups = (value if isinstance(value, (list, tuple)) else (value,) for value in values)
    return kind(tuple(tuple(int(v) for v in group) for group in groups), manager.ignore_label)
