"""What one step trains on, and what a method makes of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch


class Crops(NamedTuple):
    """What one step trains on.

    ``image`` (b, c, *spatial): labelled crops, with ``label`` as the host makes it (a list over the heads with deep
    supervision). ``weak`` and each of ``views`` (u, c, *spatial): the same unlabelled crops under different intensity
    augmentation. ``inside`` (u, 1, *spatial): True inside the image; ``mask``, which is what counts: there and without
    annotation. ``stored`` and ``further`` (u, n, *spatial): labels (-1 outside) and channels of the unlabelled dataset.
    """

    image: torch.Tensor
    label: Any
    weak: torch.Tensor
    views: tuple[torch.Tensor, ...]
    inside: torch.Tensor
    mask: torch.Tensor
    stored: torch.Tensor
    further: torch.Tensor

    @property
    def strong(self) -> torch.Tensor:
        """The first strong view."""
        return self.views[0]

    @property
    def full_label(self) -> torch.Tensor:
        """The label at full resolution."""
        return self.label[0] if isinstance(self.label, list) else self.label


class Unsupervised(NamedTuple):
    """The unsupervised loss of a batch, and the probabilities (u, c, *spatial) of the pseudo-labels behind it.

    ``partner_loss`` is what partners learn by, and is not weighted. ``counted`` (u, 1 or c, *spatial) is True where the
    pseudo-labels count, everywhere inside the image if it is None.
    """

    loss: torch.Tensor
    target: torch.Tensor
    partner_loss: torch.Tensor | None = None
    counted: torch.Tensor | None = None
