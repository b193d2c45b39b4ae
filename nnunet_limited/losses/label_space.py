"""Channels of a prediction: classes that exclude each other, or regions that may overlap.

Torch tensors hold a batch (b, c, *spatial), numpy arrays one case (c, *spatial). Channel 0 of classes is the
background; regions have no channel for it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional

SEARCHED = 2**15  # voxels of a crop in the first search for foreground: objects of 1 in 2,000 voxels are found


@dataclass(frozen=True)
class LabelSpace:
    """The label values that each channel of a prediction stands for, and the value of the ignore label.

    The first methods take and return torch tensors of a batch; those from :meth:`masks` on, numpy arrays of a case.
    Here they are those of classes; :class:`RegionLabels` overrides what differs.
    """

    values: tuple[tuple[int, ...], ...]
    ignore: int | None = None
    overlapping: ClassVar[bool] = False
    first_foreground: ClassVar[int] = 1

    @property
    def channels(self) -> int:
        """The number of channels of a prediction."""
        return len(self.values)

    @property
    def foreground_values(self) -> tuple[tuple[int, ...], ...]:
        """The label values of each foreground class or region."""
        return self.values[self.first_foreground :]

    @property
    def unused_value(self) -> int:
        """A label value that belongs to no class and no region."""
        return max(value for values in self.values for value in values) + 1

    @property
    def boundary_entropy(self) -> float:
        """The :meth:`entropy` of a voxel between two equally likely classes, or of one that may be in one region.

        More is rare whatever the number of classes: a network for ACDC, with 4 classes and 8 passes with dropout, had
        93 % of the largest entropy possible in fewer than 1 of 1,000 foreground voxels, and 93 % of this in 21 %.
        """
        return math.log(2) / math.log(self.channels)

    # ---- torch, (b, c, *spatial) -------------------------------------------------------------------------------------

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Return float32 probabilities: a softmax over classes, or a sigmoid per region."""
        return torch.softmax(logits.float(), dim=1)

    def to_logits(self, probability: torch.Tensor) -> torch.Tensor:
        """Return finite logits whose probabilities are ``probability`` of any shape, up to 1e-6."""
        return probability.clamp_min(1e-6).log()

    def harden(self, probability: torch.Tensor) -> torch.Tensor:
        """Return hard labels as probabilities 0 and 1: the likeliest class, or every region above 0.5."""
        return torch.zeros_like(probability).scatter_(1, probability.argmax(1, keepdim=True), 1.0)

    def background(self, probability: torch.Tensor) -> torch.Tensor:
        """Return probabilities of the same shape that are those of background everywhere."""
        empty = torch.zeros_like(probability)
        empty[:, 0] = 1
        return empty

    def confidence(self, probability: torch.Tensor) -> torch.Tensor:
        """Return the probability of the hard label: (b, 1, *spatial), or (b, c, *spatial) for regions."""
        return probability.amax(1, keepdim=True)

    def entropy(self, probability: torch.Tensor) -> torch.Tensor:
        """Return the entropy (b, 1, *spatial) as a fraction of the largest possible; for regions, their mean."""
        return (-probability * _log(probability)).sum(1, keepdim=True) / math.log(probability.shape[1])

    def divergence(self, probability: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Return the Kullback-Leibler divergence (b, 1, *spatial) of ``probability`` from ``other``, in nats.

        It is a sum over the class axis; for regions, the sum of the binary divergences.
        """
        return (probability * (_log(probability) - _log(other))).sum(1, keepdim=True)

    def cross_entropy(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy (b, 1, *spatial), or (b, c, *spatial) for regions, with ``target`` probabilities."""
        return -(target * torch.log_softmax(logits.float(), dim=1)).sum(1, keepdim=True)

    def agreement(self, probability: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Return the probability (b, 1 or c, *spatial) that two voxels are of one class, or both in or out."""
        return (probability * other).sum(1, keepdim=True)

    def disagreement(self, probability: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Return the probability (b, *spatial) that two independent voxels differ; for regions, the mean of theirs."""
        return 1 - (probability * other).sum(1)

    def memberships(self, probability: torch.Tensor) -> torch.Tensor:
        """Return probabilities of classes that cover every voxel; for regions, inside and outside of each (2 c)."""
        return probability

    def class_fractions(self, probability: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Return the fraction (c,) of the ``valid`` voxels whose hard label is each class, or in each region.

        ``valid`` is (b, 1, *spatial) or, for regions, may have a channel for each.
        """
        counts = torch.zeros(probability.shape[1], device=probability.device, dtype=torch.long)
        counts.scatter_add_(0, probability.argmax(1).flatten(), valid.long().flatten())
        return counts / valid.sum().clamp(min=1)

    def foreground_voxels(self, probability: torch.Tensor, valid: torch.Tensor, count: int) -> torch.Tensor:
        """Return up to ``count`` voxels whose hard label is each foreground class: (b, classes or regions, count).

        They are indices into the flattened crops, spread evenly over the voxels of the class in their order, -1 where
        there are fewer. ``valid`` (b, 1, *spatial) is False where no voxels are wanted. Of large crops, voxels with a
        fixed stride are searched first, and all of them only for classes of which these are too few.
        """
        classes, stride = len(self.foreground_values), _search_stride(probability.shape[2:])
        flat, valid = probability.flatten(2), valid.flatten(2)[:, 0]
        first = torch.stack([*self._hard_masks(flat[..., ::stride], range(classes))], 1)
        found = _spread_voxels(first & valid[:, None, ::stride], count) * stride
        few = (found < 0).any(2)
        rare = few.any(0).nonzero().flatten().tolist() if stride > 1 else []
        for c, mask in zip(rare, self._hard_masks(flat, rare) if rare else (), strict=True):
            every = _spread_voxels((mask & valid)[:, None], count)[:, 0]
            found[:, c] = torch.where(few[:, c, None], every, found[:, c])
        return found

    def _hard_masks(self, probability: torch.Tensor, channels: Sequence[int]) -> Iterator[torch.Tensor]:
        """Yield where the hard label of ``probability`` (b, c, n) is each of the foreground ``channels`` (b, n).

        Maxima are compared, because an argmax over channels takes ten times as long on a CPU; equally likely classes
        count both.
        """
        largest = probability.amax(1)
        foreground = largest > probability[:, 0]
        for channel in channels:
            yield (probability[:, 1 + channel] == largest) & foreground

    def annotated(self, target: torch.Tensor) -> torch.Tensor:
        """Return where nnU-Net's training ``target`` (b, 1 or c, *spatial) is not ignored (b, 1, *spatial)."""
        return target != self.ignore if self.ignore is not None else torch.ones_like(target, dtype=torch.bool)

    def encode_target(self, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return nnU-Net's training target as probabilities (b, c, *spatial), and where it is valid (b, 1, *spatial).

        ``target`` is (b, 1, *spatial) with label values or, for regions, (b, c, *spatial) of 0 and 1 with a further
        channel for the ignored voxels where there is an ignore label.
        """
        return self.encode(target, self.ignore)

    def encode(self, label: torch.Tensor, ignore: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return label values (b, 1, *spatial) as probabilities (b, c, *spatial), and where they are valid.

        Negative values and ``ignore`` are not valid (b, 1, *spatial).
        """
        label = label.long()
        valid = label >= 0 if ignore is None else (label >= 0) & (label != ignore)
        shape = (label.shape[0], self.channels, *label.shape[2:])
        encoded = torch.zeros(shape, device=label.device).scatter_(1, torch.where(valid, label, 0), 1.0)
        return encoded, valid

    def foreground(self, values: torch.Tensor) -> torch.Tensor:
        """Return the channels of foreground classes, or of all regions."""
        return values[:, self.first_foreground :]

    def foreground_numbers(self, probability: torch.Tensor) -> torch.Tensor:
        """Return the hard label as label maps (b, 1, *spatial), or (b, c, *spatial) for regions.

        Foreground classes or regions are numbered from 1; 0 is the background.
        """
        return probability.argmax(1, keepdim=True).to(torch.int16)

    def numbers_of_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """Return :meth:`foreground_numbers` of logits, without their probabilities."""
        return self.foreground_numbers(logits)

    # ---- numpy, (c, *spatial) ----------------------------------------------------------------------------------------

    def masks(self, probability: np.ndarray) -> np.ndarray:
        """Return the hard label as a bool mask of each channel (c, *spatial)."""
        label = probability.argmax(0)
        return np.stack([label == c for c in range(len(probability))])

    def hard_label(self, probability: np.ndarray) -> np.ndarray:
        """Return the likeliest channel (1, *spatial), or for regions the bool mask of each (c, *spatial)."""
        label: np.ndarray = probability.argmax(0)[None]
        return label

    def case_confidence(self, probability: np.ndarray) -> np.ndarray:
        """Return the probability of the hard label (*spatial); for regions, the smallest of theirs."""
        largest: np.ndarray = probability.max(0)
        return largest

    def is_confident(self, probability: np.ndarray, foreground: float, background: float) -> np.ndarray:
        """Return where the probability of foreground or of background exceeds its limit: (1 or c, *spatial)."""
        return np.asarray((probability[0] > background) | (probability[1:] > foreground).any(0))[None]

    def normalized(self, values: np.ndarray) -> np.ndarray:
        """Return non-negative ``values`` as probabilities; background where a voxel has none."""
        total = values.sum(0)
        empty = total < 1e-6
        made: np.ndarray = values / np.where(empty, 1, total)
        made[0, empty] = 1
        return made

    def with_background(self, probability: np.ndarray) -> np.ndarray:
        """Return probabilities of the foreground (c, *spatial) with the background before them, if it has a channel.

        Where some class is known, the others are 0 if they are NaN; where none is, all are NaN. They add up to 1.
        """
        known = np.isfinite(probability)
        anything = known.any(0, keepdims=True)
        filled = np.where(known, probability, 0)
        every = np.concatenate([1 - filled.max(0, keepdims=True), filled])
        return np.where(anything, every / every.sum(0), np.nan).astype(np.float32)

    def foreground_masks(self, probability: np.ndarray) -> np.ndarray:
        """Return the hard label as a bool mask of each foreground class or region."""
        return self.masks(probability)[self.first_foreground :]

    def foreground_maps(self, label: np.ndarray) -> np.ndarray:
        """Return label values (*spatial) as label maps (1, *spatial), or (c, *spatial) for regions.

        Foreground classes or regions are numbered from 1; 0 is the background and what is ignored.
        """
        return np.where(np.isin(label, self.foreground_values), label, 0).astype(np.int16)[None]

    def encode_case(self, label: np.ndarray) -> np.ndarray:
        """Return label values (*spatial) as float32 probabilities (c, *spatial), NaN where they are ignored.

        Negative values, which nnU-Net writes outside of the image, are background.
        """
        label = np.maximum(label, 0)
        made = np.stack([np.isin(label, values) for values in self.values]).astype(np.float32)
        if self.ignore is not None:
            made[:, label == self.ignore] = np.nan
        return made


class ClassLabels(LabelSpace):
    """Classes that exclude each other; the background is class 0."""


class RegionLabels(LabelSpace):
    """Regions that may overlap, each a set of label values; their channels are independent."""

    overlapping = True
    first_foreground = 0

    @property
    def boundary_entropy(self) -> float:
        return 1 / self.channels

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(logits.float())

    def to_logits(self, probability: torch.Tensor) -> torch.Tensor:
        return torch.logit(probability, 1e-6)

    def harden(self, probability: torch.Tensor) -> torch.Tensor:
        return (probability > 0.5).to(probability.dtype)

    def background(self, probability: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(probability)

    def confidence(self, probability: torch.Tensor) -> torch.Tensor:
        return torch.maximum(probability, 1 - probability)

    def entropy(self, probability: torch.Tensor) -> torch.Tensor:
        each = -probability * _log(probability) - (1 - probability) * _log(1 - probability)
        return each.mean(1, keepdim=True) / math.log(2)

    def divergence(self, probability: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        inside = probability * (_log(probability) - _log(other))
        return (inside + (1 - probability) * (_log(1 - probability) - _log(1 - other))).sum(1, keepdim=True)

    def cross_entropy(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")

    def agreement(self, probability: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return probability * other + (1 - probability) * (1 - other)

    def disagreement(self, probability: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        return (probability * (1 - other) + other * (1 - probability)).mean(1)

    def memberships(self, probability: torch.Tensor) -> torch.Tensor:
        return torch.cat([probability, 1 - probability], 1)

    def class_fractions(self, probability: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        axes = [0, *range(2, probability.ndim)]
        inside = valid.expand_as(probability)
        return ((probability > 0.5) & inside).sum(dim=axes) / inside.sum(dim=axes).clamp(min=1)

    def _hard_masks(self, probability: torch.Tensor, channels: Sequence[int]) -> Iterator[torch.Tensor]:
        for channel in channels:
            yield probability[:, channel] > 0.5

    def annotated(self, target: torch.Tensor) -> torch.Tensor:
        return ~target[:, -1:].bool() if self.ignore is not None else torch.ones_like(target[:, :1], dtype=torch.bool)

    def encode_target(self, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return target[:, : self.channels].float(), self.annotated(target)

    def encode(self, label: torch.Tensor, ignore: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        valid = label >= 0 if ignore is None else (label >= 0) & (label != ignore)
        inside = [torch.isin(label, torch.tensor(values, device=label.device)) for values in self.values]
        return torch.cat(inside, dim=1).float(), valid

    def foreground_numbers(self, probability: torch.Tensor) -> torch.Tensor:
        return self._numbered(probability > 0.5)

    def numbers_of_logits(self, logits: torch.Tensor) -> torch.Tensor:
        return self._numbered(logits > 0)

    @staticmethod
    def _numbered(inside: torch.Tensor) -> torch.Tensor:
        numbers = torch.arange(1, 1 + inside.shape[1], dtype=torch.int16, device=inside.device)
        return inside * numbers.reshape(-1, *[1] * (inside.ndim - 2))

    def foreground_maps(self, label: np.ndarray) -> np.ndarray:
        maps = [number * np.isin(label, values) for number, values in enumerate(self.values, 1)]
        return np.stack(maps).astype(np.int16)

    def masks(self, probability: np.ndarray) -> np.ndarray:
        return np.asarray(probability > 0.5)

    def hard_label(self, probability: np.ndarray) -> np.ndarray:
        return self.masks(probability)

    def case_confidence(self, probability: np.ndarray) -> np.ndarray:
        return np.asarray(np.maximum(probability, 1 - probability).min(0))

    def is_confident(self, probability: np.ndarray, foreground: float, background: float) -> np.ndarray:
        return np.asarray((probability > foreground) | (probability < 1 - background))

    def normalized(self, values: np.ndarray) -> np.ndarray:
        return values

    def with_background(self, probability: np.ndarray) -> np.ndarray:
        return probability


def _search_stride(shape: Sequence[int]) -> int:
    """Return the stride of the first search in flattened crops of a ``shape``, prime to its edges to hit every line."""
    stride = max(1, math.prod(shape) // SEARCHED)
    while any(math.gcd(stride, edge) > 1 for edge in shape):
        stride += 1
    return stride


def _spread_voxels(masks: torch.Tensor, count: int) -> torch.Tensor:
    """Return ``count`` voxels of each of the bool ``masks`` (b, c, n), or -1 where there are fewer: (b, c, count)."""
    crop, channel, voxel = masks.nonzero(as_tuple=True)  # in this order
    sizes = (crop * masks.shape[1] + channel).bincount(minlength=masks.shape[0] * masks.shape[1])
    steps = (sizes / count).clamp(min=1)[:, None]
    place = ((torch.arange(count, device=sizes.device) + 0.5) * steps).long()
    found = place < sizes[:, None]
    place = torch.where(found, place + (sizes.cumsum(0) - sizes)[:, None], 0)
    voxels = torch.cat([voxel, voxel.new_zeros(1)])[place]  # one more, as there may be none at all
    return torch.where(found, voxels, -1).unflatten(0, masks.shape[:2])


def _log(probability: torch.Tensor) -> torch.Tensor:
    # Clamped, because the derivative of p ln p is infinite at 0, which a softmax reaches.
    return probability.clamp(min=1e-7).log()
