"""nnU-Net's data loader and the augmenters around it."""

from __future__ import annotations

from typing import Any

from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

__all__ = ["loader_attribute", "nnUNetDataLoader"]


def loader_attribute(augmenter: Any) -> str:
    """Return the attribute under which the host's augmenter keeps its loader."""
    return "data_loader" if isinstance(augmenter, SingleThreadedAugmenter) else "generator"
