"""Perturb the deep features between encoder and decoder of a U-Net.

A perturbation maps a list of feature maps (b, c, *spatial), finest first, to another such list. Fine skip connections
are left as they are, as in the papers: cross-consistency training perturbs the output of the encoder (stride 8), the
dropout of the uncertainty-aware mean teacher follows the bottleneck, and UniMatch drops channels at stride 4 and above.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from nnunet_limited.networks.ema import unwrap

Features = list[torch.Tensor]
MIN_STRIDE = 4  # of perturbed features, relative to the finest ones, along the axis with the largest


def can_perturb(configuration: dict[str, Any]) -> bool:
    """Return whether the network of a plans' ``configuration`` is a U-Net with an encoder and a decoder."""
    return str(configuration["architecture"]["network_class_name"]).rsplit(".", 1)[-1].endswith("UNet")


NOT_PERTURBABLE = (
    "its perturbations need a network with an encoder and a decoder; plan with ExperimentPlanner or "
    "nnUNetPlannerResEncM"
)


def encode(network: nn.Module, image: torch.Tensor) -> Features:
    """Return the encoder's feature maps of ``image`` (b, c, *spatial)."""
    plain: Any = unwrap(network)
    return list(plain.encoder(image))


def decode(network: nn.Module, features: Features) -> Any:
    """Return what the network would for these feature maps."""
    plain: Any = unwrap(network)
    return plain.decoder(features)


def perturb_deep(features: Features, perturb: Callable[[Features], Features]) -> Features:
    """Return all feature maps of an encoder, those of stride 4 and above perturbed, or the coarsest if none is."""
    strides = [max(a / b for a, b in zip(features[0].shape[2:], f.shape[2:], strict=True)) for f in features]
    fine = min(sum(stride < MIN_STRIDE for stride in strides), len(features) - 1)
    return [*features[:fine], *perturb(features[fine:])]


def perturbed(network: nn.Module, image: torch.Tensor, perturb: Callable[[Features], Features]) -> Any:
    """Return the network's output for ``image`` with perturbed deep features."""
    return decode(network, perturb_deep(encode(network, image), perturb))


def channel_dropout(features: Features, rate: float = 0.5) -> Features:
    """Drop whole channels with probability ``rate`` and scale the others to keep the mean."""
    return [f * functional.dropout(f.new_ones((*f.shape[:2], *[1] * (f.ndim - 2))), rate) for f in features]


def feature_noise(features: Features, limit: float = 0.3) -> Features:
    """Scale every value by 1 plus uniform noise in ±``limit`` (Ouali et al., CVPR 2020, arXiv 2003.09005)."""
    return [f * (1 + torch.empty_like(f).uniform_(-limit, limit)) for f in features]


def feature_drop(features: Features) -> Features:
    """Blank the most active 10 to 30 % of each map, judged by the channels' mean (Ouali et al., CVPR 2020).

    The share is that of the voxels. A threshold at that part of the largest activation blanks next to nothing of a
    large map.
    """
    dropped = []
    for f in features:
        attention = f.detach().mean(1, keepdim=True)
        ordered = attention.flatten(1).sort(1).values
        kept = torch.empty(len(f), 1, device=f.device).uniform_(0.7, 0.9)
        threshold = ordered.gather(1, (kept * ordered.shape[1]).ceil().long() - 1)
        dropped.append(f * (attention <= threshold.reshape(-1, *[1] * (f.ndim - 1))))
    return dropped
