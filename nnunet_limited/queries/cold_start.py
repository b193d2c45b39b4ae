"""Features of whole scans for a cold start, when there is no model yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from skimage.measure import block_reduce
from skimage.transform import resize

from nnunet_limited.datasets.raw import Case
from nnunet_limited.errors import LimitedError

PERCENTILES = (0.5, 5, 25, 50, 75, 95, 99.5)
BLOCKS = 4


def describe_scan(case: Case, reader_class: Any) -> tuple[tuple[int, ...], tuple[float, ...], np.ndarray]:
    """Return a scan's shape, spacing and description (f,).

    The description is what nnU-Net's fingerprint has of an image (logarithms of shape and spacing, percentiles of the
    intensities of each channel), and the means of the normalised channels in 4 x 4 x 4 blocks. Raises LimitedError for
    an image that cannot be read or is not finite.
    """
    try:
        image, properties = reader_class().read_images([str(file) for file in case.images])
    except Exception as error:
        raise LimitedError(f"image {case.images[0]} cannot be read ({error}); repair or remove it") from error
    if not np.isfinite(image).all():
        raise LimitedError(f"image {case.images[0]} has voxels that are not finite; repair or remove it")
    shape, spacing = image.shape[1:], tuple(float(s) for s in properties["spacing"])
    parts = [np.log(shape), np.log(spacing)]
    for channel in image.astype(np.float32):
        levels = np.percentile(channel, PERCENTILES)
        low, high = levels[0], max(levels[-1], levels[0] + 1e-6)
        shown = (channel.clip(low, high) - low) / (high - low)
        means = block_reduce(shown, tuple(-(-size // BLOCKS) for size in shape), np.mean)
        parts += [levels, resize(means, (BLOCKS,) * means.ndim, order=1).ravel()]
    return tuple(shape), spacing, np.concatenate(parts)


def load_features(file: Path, cases: list[str]) -> np.ndarray:
    """Return the features (n, f) from a ``.npz`` file with an array for each case, e.g. embeddings of a network.

    Raises LimitedError for a missing case, and for features of another length or that are not finite.
    """
    if not file.is_file():
        raise LimitedError(f"--features {file} does not exist; write one array per case with numpy.savez")
    try:
        with np.load(file, allow_pickle=False) as stored:
            found = {case: np.asarray(stored[case], float).ravel() for case in cases if case in stored}
    except (ValueError, OSError) as error:
        raise LimitedError(f"--features {file} cannot be read ({error}); write it with numpy.savez") from error
    for case in cases:
        if case not in found:
            raise LimitedError(f"--features {file} has no array named {case!r}; add it")
        if len(found[case]) != len(found[cases[0]]):
            raise LimitedError(
                f"--features {file}: {case!r} has {len(found[case])} numbers, {cases[0]!r} {len(found[cases[0]])}; "
                "give the same number for each case"
            )
        if not np.isfinite(found[case]).all():
            raise LimitedError(f"--features {file}: {case!r} has numbers that are not finite; correct it")
    return np.stack([found[case] for case in cases])
