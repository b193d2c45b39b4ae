"""What one step trains on, how it lies in a batch, and what a method makes of it.

The loader's workers write the views of an unlabelled crop one after the other (:func:`pack`), the trainer takes the
batch apart (:func:`unpack`):

- ``data`` (u, views * c + n, *spatial): the weak view, the strong views, then further channels of the dataset;
- ``target`` (u, 1 + m, *spatial): -1 outside of the image, 0 where nothing is annotated, 1 where something is; then
  stored labels of the dataset.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch


class Crops(NamedTuple):
    """What one step trains on.

    ``image`` (b, c, *spatial): labelled crops, with ``label`` as nnU-Net makes it (a list over the heads with deep
    supervision). ``weak`` and each of ``views`` (u, c, *spatial): the same unlabelled crops under different intensity
    augmentation. ``inside`` (u, 1, *spatial): True inside the image; ``valid``: there and without annotation, which is
    where the unsupervised loss applies. ``stored`` and ``further`` (u, n, *spatial): labels (-1 outside) and channels
    of the unlabelled dataset.
    """

    image: torch.Tensor
    label: Any
    weak: torch.Tensor
    views: tuple[torch.Tensor, ...]
    inside: torch.Tensor
    valid: torch.Tensor
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


def pack(views: Sequence[torch.Tensor], further: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return one crop as transforms hand it on: ``views`` (c, *spatial) and ``further`` channels in one image."""
    return {"image": torch.cat([*views, further]), "segmentation": target}


def unpack(labeled: dict[str, Any], unlabeled: dict[str, torch.Tensor] | None, views: int) -> Crops:
    """Return the crops of a batch with ``views`` of each unlabelled crop, the weak one included.

    Both parts have the keys ``data`` and ``target``; the labelled target may be a list over heads. Without an
    unlabelled part there are no crops (u = 0).
    """
    image = labeled["data"]
    if unlabeled is None:
        empty = image[:0]
        unlabeled = {"data": torch.cat([empty] * views, 1), "target": empty[:, :1]}
    target = unlabeled["target"]
    ends = [image.shape[1] * (view + 1) for view in range(views)]
    *parts, further = unlabeled["data"].tensor_split(ends, dim=1)
    weak, *strong = (part.contiguous() for part in parts)  # torch.compile would compile again for other strides
    where, stored = target[:, :1], target[:, 1:]
    return Crops(image, labeled["target"], weak, tuple(strong), where >= 0, where == 0, stored, further)


class Unsupervised(NamedTuple):
    """The unsupervised loss of a batch, and the probabilities (u, c, *spatial) of the pseudo-labels behind it.

    The pseudo-labels lie as the crops do (not as a view that was moved or mixed), as they show where foreground is.
    ``partner_loss`` trains partners and is not weighted. ``valid`` (u, 1 or c, *spatial) is True where pseudo-labels
    are used; None if that is all of ``Crops.valid``.
    """

    loss: torch.Tensor
    target: torch.Tensor
    partner_loss: torch.Tensor | None = None
    valid: torch.Tensor | None = None
