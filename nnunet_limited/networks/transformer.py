"""Transformers for segmentation of the same input as a U-Net."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

NO_MONAI = "its 2D Transformer is MONAI's; pip install 'nnunet-limited[transformer]', or train a 3D configuration"


class PaddedNetwork(nn.Module):
    """A network that needs edges divisible by ``multiple``, and twice as long at least, for any size of image."""

    def __init__(self, network: nn.Module, multiple: int) -> None:
        """Take the network."""
        super().__init__()
        self.network = network
        self.multiple = multiple

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits (b, c, *spatial) for ``image`` (b, channels, *spatial)."""
        missing = [max(-n % self.multiple, 2 * self.multiple - n) for n in image.shape[2:]]
        logits = self.network(functional.pad(image, [side for m in reversed(missing) for side in (0, m)]))
        inside = (slice(None), slice(None), *(slice(n) for n in image.shape[2:]))
        cut: torch.Tensor = logits[inside]
        return cut


def make_transformer(channels: int, classes: int, patch_size: Sequence[int], features: int, depth: int) -> nn.Module:
    """Return MONAI's Swin UNETR (arXiv 2201.01266) in 2D, Primus (arXiv 2503.01835) in 3D.

    ``features`` is the width of the Swin UNETR, a multiple of 12, and an 18th of that of Primus; ``depth`` is the
    number of Primus' blocks.
    """
    if len(patch_size) == 2:
        from monai.networks.nets import SwinUNETR

        return PaddedNetwork(SwinUNETR(channels, classes, feature_size=features, spatial_dims=2), 32)
    from dynamic_network_architectures.architectures.primus import Primus

    shape = tuple(8 * max(2, math.ceil(n / 8)) for n in patch_size)
    primus: Any = Primus
    return PaddedNetwork(
        primus(channels, 18 * features, (8, 8, 8), classes, eva_depth=depth, eva_numheads=6, input_shape=shape), 8
    )
