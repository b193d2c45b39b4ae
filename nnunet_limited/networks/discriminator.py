"""A network that distinguishes predictions on labelled images from those on unlabelled ones."""

import torch
from torch import nn


class Discriminator(nn.Module):
    """Four strided convolutions and a mean: one logit for an image with a prediction on it."""

    def __init__(self, channels: int, dimension: int, features: int = 32) -> None:
        """Take the number of ``channels`` of image and prediction together; ``dimension`` is 2 or 3."""
        super().__init__()
        convolution = nn.Conv2d if dimension == 2 else nn.Conv3d
        layers: list[nn.Module] = []
        for factor in (1, 2, 4, 8):
            layers += [convolution(channels, features * factor, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
            channels = features * factor
        self.layers = nn.Sequential(*layers, convolution(channels, 1, 1))

    def forward(self, image: torch.Tensor, probability: torch.Tensor) -> torch.Tensor:
        """Return a logit (b,), high for predictions on labelled images."""
        logits: torch.Tensor = self.layers(torch.cat((image, probability.to(image.dtype)), 1))
        return logits.flatten(1).mean(1)
