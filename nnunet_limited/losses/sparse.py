"""Losses for labels of which only some voxels are annotated.

Shapes: probabilities (b, c, *spatial), images (b, channels, *spatial).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn
from torch.nn import functional

from nnunet_limited.losses.label_space import LabelSpace

Term = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of probabilities and image
Loss = TypeVar("Loss", bound=Callable[..., torch.Tensor])


class SparseTerm(NamedTuple):
    """A further loss term of probabilities, image and label space; ``description`` completes "weight of the …"."""

    description: str
    loss: Callable[..., torch.Tensor]


TERMS: dict[str, SparseTerm] = {}
"""Terms that trainers for sparse labels offer; the weight of each is their setting ``<name>_weight``."""


def sparse_term(name: str, description: str) -> Callable[[Loss], Loss]:
    """Register a loss ``(probability, image, labels)`` as a term of trainers for sparse labels."""

    def register(loss: Loss) -> Loss:
        TERMS[name] = SparseTerm(description, loss)
        return loss

    return register


class AnnotatedSamples(nn.Module):
    """A segmentation loss over the samples that have an annotated voxel.

    In nnU-Net's own, a sample without one counts as perfectly segmented, which dilutes the others. 0 without gradient
    if no sample has any.
    """

    def __init__(self, loss: nn.Module, labels: LabelSpace) -> None:
        """Wrap nnU-Net's ``loss`` of one head; ``labels`` have an ignore label."""
        super().__init__()
        self.loss, self.labels = loss, labels

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss of logits and nnU-Net's target."""
        valid = self.labels.annotated(target).flatten(1).any(1)
        if valid.all():
            return self.loss(output, target)
        return self.loss(output[valid], target[valid]) if valid.any() else 0.0 * output.sum()


class WithTerms(nn.Module):
    """A segmentation loss plus further terms of the full-resolution probabilities and the image.

    Without an image, as in validation, it is the segmentation loss alone.
    """

    def __init__(
        self,
        wrapped: nn.Module,
        terms: list[tuple[float, Term]],
        labels: LabelSpace,
        image: torch.Tensor | None = None,
    ) -> None:
        """Add to the loss ``wrapped`` each of ``terms`` of ``image`` (b, channels, *spatial) with its weight."""
        super().__init__()
        self.wrapped, self.terms, self.labels, self.image = wrapped, terms, labels, image

    def of(self, image: torch.Tensor) -> WithTerms:
        """Return the loss of predictions for ``image``."""
        return WithTerms(self.wrapped, self.terms, self.labels, image)

    @property
    def loss(self) -> Any:
        """The loss of one head, as in nnU-Net's wrapper for deep supervision."""
        return self.wrapped.loss if hasattr(self.wrapped, "weight_factors") else self.wrapped

    def forward(self, output: Any, target: Any) -> torch.Tensor:
        """Return the sum of all terms."""
        total: torch.Tensor = self.wrapped(output, target)
        if self.image is None or not self.terms:
            return total
        logits = output[0] if isinstance(output, (list, tuple)) else output
        probability = self.labels.probabilities(logits)
        image = self.image.to(logits.device, non_blocking=True)
        for weight, term in self.terms:
            total = total + weight * term(probability, image)
        return total


@sparse_term("entropy", "entropy of the prediction")
def prediction_entropy(probability: torch.Tensor, image: torch.Tensor, labels: LabelSpace) -> torch.Tensor:
    """Return the mean entropy of the prediction as a fraction of the largest possible, in [0, 1]."""
    return labels.entropy(probability).mean()


@sparse_term("crf", "gated CRF (neighbours of similar intensity have the same class)")
def gated_crf(
    probability: torch.Tensor,
    image: torch.Tensor,
    labels: LabelSpace,
    radius: int = 5,
    sigma_place: float = 6.0,
    sigma_image: float = 0.1,
) -> torch.Tensor:
    """Return how much neighbours of similar intensity differ in class, summed over a window in the last two axes.

    Obukhov et al., Gated CRF loss, 2019, arXiv 1906.04651. A pair of voxels at most ``radius`` apart along each axis
    has the weight ``exp(-d² / (2 sigma_place²) - Δ² / (2 sigma_image²))``, where Δ² is the mean over channels of the
    squared difference of the image scaled to [0, 1]. A mean over voxels; pairs that leave the crop are left out.
    """
    scaled = unit_range(image)
    total = torch.zeros((), device=image.device)
    for mine, theirs, distance in _pairs(radius, probability.ndim):
        differ = labels.disagreement(probability[mine], probability[theirs])
        apart = ((scaled[mine] - scaled[theirs]) ** 2).mean(1)
        kernel = torch.exp(-distance / (2 * sigma_place**2) - apart / (2 * sigma_image**2))
        total = total + 2 * (kernel * differ).sum()  # each pair from both its ends
    return total / probability[:, 0].numel()


def _pairs(radius: int, dimensions: int) -> Iterator[tuple[tuple[Any, ...], tuple[Any, ...], int]]:
    """Yield each offset in the last two axes once, as the index of both ends, with its squared length."""
    for y, x in product(range(radius + 1), range(-radius, radius + 1)):
        if y or x > 0:
            rows = (slice(None, -y or None), slice(y, None))
            columns = (slice(None, -x or None), slice(x, None)) if x >= 0 else (slice(-x, None), slice(None, x))
            before = (slice(None),) * (dimensions - 2)
            yield (*before, rows[0], columns[0]), (*before, rows[1], columns[1]), y * y + x * x


@sparse_term("contour", "length of the contours")
def total_variation(probability: torch.Tensor, image: torch.Tensor, labels: LabelSpace) -> torch.Tensor:
    """Return the mean length of the contours of the foreground: what a closing by 3 voxels adds to an erosion.

    Luo et al., WSL4MIS, 2022 (github.com/HiLab-git/WSL4MIS); there, the first sample is left out by mistake.
    """
    foreground = labels.foreground(probability)
    pool: Any = functional.max_pool3d if foreground.ndim == 5 else functional.max_pool2d
    eroded = -pool(-foreground, 3, 1, 1)
    return functional.relu(pool(eroded, 3, 1, 1) - eroded).mean()


@sparse_term("mumford_shah", "image variance within classes")
def mumford_shah(probability: torch.Tensor, image: torch.Tensor, labels: LabelSpace) -> torch.Tensor:
    """Return how much the image varies within the classes, plus the total variation of the probabilities.

    Kim & Ye, IEEE TIP 2020, arXiv 1904.02872; a mean over voxels, with the image scaled to [0, 1].
    """
    scaled = unit_range(image)
    spatial = tuple(range(2, image.ndim))
    members = labels.memberships(probability)
    variance = torch.zeros((), device=image.device)
    for channel in scaled.split(1, 1):
        mean = (channel * members).sum(spatial, keepdim=True) / members.sum(spatial, keepdim=True).clamp(min=1e-6)
        variance = variance + ((channel - mean) ** 2 * members).sum(1).mean() / scaled.shape[1]
    length = torch.zeros((), device=image.device)
    for axis in spatial:
        length = length + probability.diff(dim=axis).abs().sum(1).mean()
    return variance + length


def unit_range(image: torch.Tensor) -> torch.Tensor:
    """Return each channel of each image scaled to [0, 1]; 0 where it is constant."""
    spatial = tuple(range(2, image.ndim))
    low, high = image.amin(spatial, keepdim=True), image.amax(spatial, keepdim=True)
    return (image - low) / (high - low).clamp(min=1e-6)
