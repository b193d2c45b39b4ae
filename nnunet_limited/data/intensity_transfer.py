"""Transfer of intensities: a crop is seen as if it came from another training scan.

After the winners of CARE 2025 (CoSSeg-TTA, arXiv 2510.04243): landmarks of the histogram of a scan are matched to
those of a random scan, labelled or not, and the result is blended with the image. Only images are read, never labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from nnunet_limited.data.case_values import values_of_cases
from nnunet_limited.host.cases import PreprocessedCases

PERCENTILES = np.linspace(0.5, 99.5, 17)  # number and ends as in the paper
BLEND = (0.2, 0.8)  # weight of the matched image, as in the paper
PROBABILITY = 0.5  # of a crop to be changed
POOL_FROM = 200  # scans, of about 10 ms each, that are worth starting worker processes for
MAX_SLICES, MAX_VOXELS = 16, 50_000  # per scan: percentiles of more voxels differ by less than 1 % of the deviation


class IntensityTransfer:
    """Match the histogram of scans to that of a random one, channel by channel."""

    def __init__(self, landmarks: dict[str, np.ndarray], channels: Sequence[bool]) -> None:
        """Take the landmarks (c, 17) of scans by their names, and which channels are changed."""
        self.rows = {name: row for row, name in enumerate(landmarks)}
        every = np.stack(list(landmarks.values()))
        # The last row is of scans whose landmarks are unknown.
        self.landmarks = torch.from_numpy(np.concatenate([every, every.mean(0, keepdims=True)])).float()
        self.channels = torch.tensor(list(channels))

    @classmethod
    def of(cls, folders: dict[Path, Sequence[str]], schemes: Sequence[str]) -> IntensityTransfer | None:
        """Return the transfer between the preprocessed cases of ``folders``, or None if no channel is z-scored.

        ``schemes`` are nnU-Net's normalisation schemes, one per channel. Intensities that mean something by themselves,
        as in CT, are not changed. Landmarks are stored beside the cases.
        """
        channels = [scheme == "ZScoreNormalization" for scheme in schemes]
        if not any(channels) or not any(folders.values()):
            return None
        landmarks: dict[str, np.ndarray] = {}
        for folder, names in folders.items():
            cases = sorted(names)
            found = values_of_cases(landmarks_of, folder, cases, "landmarks", "Reading intensities", POOL_FROM)
            landmarks |= zip(cases, found, strict=True)
        return cls(landmarks, channels)

    def __call__(self, image: torch.Tensor, cases: Iterable[str]) -> torch.Tensor:
        """Return ``image`` (u, c, *spatial) of ``cases`` (u) with the intensities of half of the crops changed."""
        rows = [self.rows.get(case, len(self.rows)) for case in cases]
        others = np.random.randint(len(self.rows), size=len(rows))
        blend = np.random.uniform(*BLEND, len(rows)) * (np.random.uniform(size=len(rows)) < PROBABILITY)
        if not blend.any():
            return image
        table = self.landmarks.to(image.device)
        shape = (-1, 1, *[1] * (image.ndim - 2))
        weight = torch.as_tensor(blend, dtype=image.dtype, device=image.device).reshape(shape)
        weight = weight * self.channels.to(image.device).reshape(1, *shape[:1], *shape[2:])
        return image + weight * (matched(image, table[rows], table[others]) - image)


def matched(image: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return ``image`` (u, c, *spatial) mapped so that the landmarks ``source`` (u, c, n) come to ``target``.

    The map is linear between landmarks and keeps distances beyond the first and the last.
    """
    values = image.flatten(2)
    upper = torch.searchsorted(source.contiguous(), values.contiguous()).clamp(1, source.shape[2] - 1)
    low, high, new_low, new_high = (marks.gather(2, upper + k) for marks in (source, target) for k in (-1, 0))
    relative = (values - low) / (high - low).clamp(min=1e-6)
    bounded = new_low + relative.clamp(0, 1) * (new_high - new_low)
    beyond = values - values.clamp(source[..., :1], source[..., -1:])
    return (bounded + beyond).reshape(image.shape)


def landmarks_of(folder: Path, case: str) -> np.ndarray:
    """Return the intensities (c, 17) at the percentiles of a preprocessed scan, from evenly spaced voxels inside it."""
    data, mask, _, _ = PreprocessedCases(str(folder), [case]).load_case(case)
    depth, rows, columns = data.shape[1:]
    slices = np.unique(np.linspace(0, depth - 1, min(depth, MAX_SLICES)).round().astype(int))
    step = max(1, round((len(slices) * rows * columns / MAX_VOXELS) ** 0.5))
    images = np.stack([np.asarray(data[:, z])[:, ::step, ::step] for z in slices], 1)
    inside = np.stack([np.asarray(mask[0, z])[::step, ::step] for z in slices]) >= 0
    voxels = images[:, inside] if inside.any() else images.reshape(len(images), -1)
    return np.percentile(voxels, PERCENTILES, axis=1).T
