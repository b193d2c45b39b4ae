"""Plans of another size than nnU-Net would choose.

``--size tiny`` makes a network that learns on a CPU in minutes, for trying things out, tests and the demo, and
``--patch`` one for a given patch, as published comparisons ask for.
"""

import math
from collections.abc import Sequence
from typing import Any

from nnunet_limited.errors import LimitedError
from nnunet_limited.host.planning import network_topology

# Per dimension: features of each stage, longest patch edge, longest edge of the median image, batch size.
_FEATURES = {2: (16, 32, 64, 128), 3: (8, 16, 32, 64)}
_PATCH_EDGE = {2: 64, 3: 32}
_IMAGE_EDGE = {2: 80, 3: 48}
_BATCH_SIZE = {2: 8, 3: 4}
_MIN_FEATURE_MAP = 4

SETTINGS = {
    "optimizer": "adamw",
    "initial_lr": 1e-3,
    "channels_last": True,
    "cpu_autocast": True,
    "num_epochs": 20,
    "num_iterations_per_epoch": 50,
    "num_val_iterations_per_epoch": 5,
    "save_every": 2,
    "transformer_features": 12,
    "transformer_depth": 2,
}


def shrink(configuration: dict[str, Any]) -> None:
    """Make the planned ``configuration`` tiny in place: coarser spacing if large, small patch, few features."""
    dimension = len(configuration["patch_size"])
    spacing = [float(s) for s in configuration["spacing"]]
    shape = [float(s) for s in configuration["median_image_size_in_voxels"]][-dimension:]
    # The axes that are finest in mm are coarsened first; an axis that is already coarse stays as it is.
    finest = min(spacing)
    while max(n for n, s in zip(shape, spacing, strict=True) if s < 2 * finest) > _IMAGE_EDGE[dimension]:
        factors = [1.02 if s < 2 * finest else 1.0 for s in spacing]
        spacing = [s * f for s, f in zip(spacing, factors, strict=True)]
        shape = [n / f for n, f in zip(shape, factors, strict=True)]
        finest = min(spacing)
    edge = _PATCH_EDGE[dimension]
    patch = [min(edge, max(8, 8 * math.ceil(n / 8))) for n in shape]
    stages = len(_FEATURES[dimension])
    strides, kernels, patch = network_topology(spacing, patch, _MIN_FEATURE_MAP, stages - 1)
    stages = len(strides)

    kwargs = configuration["architecture"]["arch_kwargs"]
    encoder = "n_conv_per_stage" if "n_conv_per_stage" in kwargs else "n_blocks_per_stage"
    kwargs.update(
        n_stages=stages,
        features_per_stage=list(_FEATURES[dimension][:stages]),
        kernel_sizes=kernels,
        strides=strides,
        n_conv_per_stage_decoder=[2] * (stages - 1),
        **{encoder: [2] * stages},
    )
    full_shape = [float(s) for s in configuration["median_image_size_in_voxels"]]
    configuration.update(
        spacing=spacing,
        median_image_size_in_voxels=full_shape[:-dimension] + shape,
        patch_size=[int(p) for p in patch],
        batch_size=_BATCH_SIZE[dimension],
    )


def fit_patch(configuration: dict[str, Any], patch: Sequence[int]) -> None:
    """Give the planned ``configuration`` another patch in place, and fit the depth of its network to it."""
    kwargs = configuration["architecture"]["arch_kwargs"]
    spacing = configuration["spacing"]
    strides, kernels, fitted = network_topology(spacing, patch, _MIN_FEATURE_MAP, kwargs["n_stages"] - 1)
    if list(fitted) != list(patch):
        raise LimitedError(
            f"--patch {'x'.join(map(str, patch))}: the network halves it repeatedly; take {'x'.join(map(str, fitted))}"
        )
    stages = len(strides)
    for key, value in kwargs.items():
        if key.endswith(("per_stage", "per_stage_decoder")):
            kwargs[key] = value[: stages - 1 if key.endswith("decoder") else stages]
    kwargs.update(n_stages=stages, kernel_sizes=kernels, strides=strides)
    configuration["patch_size"] = [int(p) for p in patch]
