"""nnU-Net's preprocessed cases on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2 as PreprocessedCases

from nnunet_limited.util.files import replacing

__all__ = ["PreprocessedCases", "save_label"]


def save_label(label: np.ndarray, file: Path) -> None:
    """Write a label to ``file`` as the host stores those of a previous stage."""
    with replacing(file) as temporary:
        made = temporary.with_name(f"{temporary.name}.b2nd")
        PreprocessedCases.save_seg(label.astype(np.int16), str(made.with_suffix("")))
        made.replace(temporary)
