"""Decoders beside the main one."""

from typing import Any

import torch
from torch import nn


class AuxiliaryDecoders(nn.Module):
    """The decoders of several U-Nets, each for feature maps of its own; their encoders are thrown away."""

    def __init__(self, networks: list[Any]) -> None:
        """Take the decoders of ``networks``, without deep supervision."""
        super().__init__()
        for network in networks:
            network.decoder.encoder = None  # the decoder holds its encoder, which it does not need to decode
            network.decoder.deep_supervision = False
        self.decoders = nn.ModuleList(network.decoder for network in networks)

    def forward(self, features: list[list[torch.Tensor]]) -> list[torch.Tensor]:
        """Return each decoder's logits (b, c, *spatial) for its list of feature maps."""
        return [decoder(maps) for decoder, maps in zip(self.decoders, features, strict=True)]
