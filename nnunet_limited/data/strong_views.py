"""Strong views: random changes of intensity of which at least one always acts, on batches of crops on any device.

Parameters are drawn from numpy's global generator and fields of noise from torch's, for each crop by itself and, where
it makes sense, for each channel. Intensities are in units of the standard deviation of the crop's channel, so the
same ranges hold for every normalisation. nnU-Net's own intensity augmentation leaves a third of the crops as they are.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from nnunet_limited.data.intensity_transfer import IntensityTransfer
from nnunet_limited.data.mixing import box_mask

THIN = 3  # an axis with less than a third of the voxels of the longest is not blurred: nnU-Net's limit of anisotropy
CUT_VALUES = (-2.0, 2.0)  # of cut-outs, about the darkest and the brightest tissue


class StrongViews:
    """Make a strong view of each crop of a batch."""

    def __init__(self, masked: Sequence[bool], transfer: IntensityTransfer | None = None) -> None:
        """Take which channels are blank outside of the image, and the transfer of intensities between scans, if any."""
        self.masked, self.transfer = list(masked), transfer

    def __call__(self, image: torch.Tensor, inside: torch.Tensor, cases: Sequence[str] = ()) -> torch.Tensor:
        """Return a strong view of ``image`` (u, c, *spatial).

        ``inside`` (u, 1, *spatial) is True inside the image; voxels outside stay 0 in channels that are blank there.
        ``cases`` are the names of the scans, for the transfer of intensities.
        """
        with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            x = image.float()
            if self.transfer is not None:
                x = self.transfer(x, cases)
            mean, deviation = moments(x, inside)
            flat = deviation < 1e-6 * (1 + mean.abs())
            deviation = torch.where(flat, 1.0, deviation)
            x = (x - mean) / deviation
            for crops, change in drawn(len(x)):
                chosen = x[crops]
                x[crops] = fourier_mix(chosen, x.roll(1, 0)[crops]) if change is fourier_mix else change(chosen)
            x = x + flat * uniform(x, 0.1, 0.5)  # a crop of one value is seen by brightness alone
            x = x * deviation + mean
            blank = torch.tensor(self.masked, device=x.device).reshape(-1, *[1] * (x.ndim - 2)) & ~inside
            return torch.where(blank, image, x).to(image.dtype)


def drawn(crops: int) -> list[tuple[list[int], Callable[..., torch.Tensor]]]:
    """Return for each operation that acts, in their order, which of the crops it changes.

    A crop that no operation changes for certain gets one of those that do: a box may be cut where nothing is seen, and
    the next crop may have the same low frequencies.
    """
    operations = [key for key in OPERATIONS if crops > 1 or key is not fourier_mix]
    acts = np.random.uniform(size=(crops, len(operations))) < [OPERATIONS[key] for key in operations]
    acts[:, operations.index(low_resolution)] &= ~acts[:, operations.index(blur_or_sharpen)]
    certain = acts[:, [key not in (cut_out, fourier_mix) for key in operations]].any(1)
    forced = np.random.randint(len(FALLBACKS), size=crops)
    for crop in np.flatnonzero(~certain):
        acts[crop, operations.index(FALLBACKS[forced[crop]])] = True
    return [(np.flatnonzero(a).tolist(), key) for a, key in zip(acts.T, operations, strict=True) if a.any()]


def moments(x: torch.Tensor, inside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation (u, c, 1, …) of the voxels inside; 0 where there are none."""
    axes = tuple(range(2, x.ndim))
    count = inside.sum(axes, keepdim=True).clamp(min=1)
    mean = torch.where(inside, x, 0.0).sum(axes, keepdim=True) / count
    return mean, (torch.where(inside, (x - mean) ** 2, 0.0).sum(axes, keepdim=True) / count).sqrt()


def uniform(x: torch.Tensor, low: float, high: float, channels: bool = True) -> torch.Tensor:
    """Return uniform numbers (u, c, 1, …) for ``x`` (u, c, *spatial), or (u, 1, 1, …) without ``channels``."""
    drawn = np.random.uniform(low, high, (len(x), x.shape[1] if channels else 1, *[1] * (x.ndim - 2)))
    return torch.as_tensor(drawn, dtype=torch.float32, device=x.device)


def sign(x: torch.Tensor, channels: bool = True) -> torch.Tensor:
    """Return -1 or 1 with equal probability, in the shape of :func:`uniform`."""
    return torch.where(uniform(x, -1, 1, channels) < 0, -1.0, 1.0)


def factor(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Return factors between ``low`` and ``high`` (both above 1) or their inverses, so never close to 1."""
    return torch.exp(sign(x) * uniform(x, float(np.log(low)), float(np.log(high))))


def gamma(x: torch.Tensor) -> torch.Tensor:
    """Bend the range of intensities by a power, from its dark or its bright end; mean and deviation stay."""
    axes = tuple(range(2, x.ndim))
    low, high = x.amin(axes, keepdim=True), x.amax(axes, keepdim=True)
    relative, power, bright = (x - low) / (high - low).clamp(min=1e-6), factor(x, 1.3, 2), sign(x) > 0
    bent = torch.where(bright, 1 - relative, relative) ** power
    bent = torch.where(bright, 1 - bent, bent)
    scale = x.std(axes, keepdim=True) / bent.std(axes, keepdim=True).clamp(min=1e-6)
    return (bent - bent.mean(axes, keepdim=True)) * scale + x.mean(axes, keepdim=True)


def contrast(x: torch.Tensor) -> torch.Tensor:
    """Spread or narrow the intensities about their mean, and shift them."""
    return x * factor(x, 1.25, 1.6) + sign(x) * uniform(x, 0.1, 0.4)


def noise(x: torch.Tensor) -> torch.Tensor:
    """Add Gaussian noise."""
    return x + uniform(x, 0.1, 0.3) * torch.randn_like(x)


def blur_or_sharpen(x: torch.Tensor) -> torch.Tensor:
    """Smooth by a Gaussian of 0.6 to 1.2 voxels, or add what smoothing removes."""
    sigma = uniform(x, 0.6, 1.2, channels=False).flatten()
    offsets = torch.arange(-4, 5, device=x.device)
    kernel = torch.exp(-(offsets**2) / (2 * sigma[:, None] ** 2))
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(x.shape[1], 0)
    smooth = x
    for axis in long_axes(x):
        shape = [1] * (x.ndim - 2)
        shape[axis] = len(offsets)
        smooth = grouped_convolution(smooth, kernel.reshape(-1, 1, *shape))
    return torch.where(sign(x, False) > 0, smooth, x + uniform(x, 0.5, 1.5) * (x - smooth))


def low_resolution(x: torch.Tensor) -> torch.Tensor:
    """Sample fewer voxels, 0.4 to 0.75 times as many along each axis, and interpolate between them."""
    mode = "bilinear" if x.ndim == 4 else "trilinear"
    made = []
    for crop, scale in zip(x.split(1), np.random.uniform(0.4, 0.75, len(x)), strict=True):
        size = [max(1, round(n * scale)) if k in long_axes(x) else n for k, n in enumerate(x.shape[2:])]
        coarse = functional.interpolate(crop, size=size, mode="nearest-exact")
        made.append(functional.interpolate(coarse, size=x.shape[2:], mode=mode))
    return torch.cat(made)


def bias_field(x: torch.Tensor) -> torch.Tensor:
    """Multiply the intensities above the darkest by a smooth field, from 1/2 to 2 at most, as an MRI coil does."""
    axes = tuple(range(2, x.ndim))
    coarse = torch.randn(*x.shape[:2], *[4 if k in long_axes(x) else 1 for k in range(x.ndim - 2)], device=x.device)
    field = functional.interpolate(coarse, size=x.shape[2:], mode="bicubic" if x.ndim == 4 else "trilinear")
    field = field / field.abs().amax(axes, keepdim=True).clamp(min=1e-6) * uniform(x, 0.3, float(np.log(2)))
    low = x.amin(axes, keepdim=True)
    return (x - low) * torch.exp(field) + low


def random_convolution(x: torch.Tensor) -> torch.Tensor:
    """Mix with the output of a random network of two layers, of the same mean and deviation.

    Ouyang et al., IEEE TMI 2022, arXiv 2111.12525; random convolutions: Xu et al., ICLR 2021, arXiv 2007.13003.
    """
    axes, hidden = tuple(range(2, x.ndim)), 2
    size = [3 if k in long_axes(x) else 1 for k in range(x.ndim - 2)]
    channels, made = x.shape[1], x
    for width, before in ((hidden, channels), (channels, hidden)):
        weight = torch.randn(len(x) * width, before, *size, device=x.device)
        made = functional.leaky_relu(grouped_convolution(made, weight), 0.2 if width == hidden else 1.0)
    made = (made - made.mean(axes, keepdim=True)) / made.std(axes, keepdim=True).clamp(min=1e-6)
    made = made * x.std(axes, keepdim=True) + x.mean(axes, keepdim=True)
    return x + uniform(x, 0.2, 0.5, channels=False) * (made - x)


def cut_out(x: torch.Tensor) -> torch.Tensor:
    """Fill one to three boxes, each 0.1 to 0.3 of the crop's edges, with one value.

    DeVries & Taylor, 2017, arXiv 1708.04552. The label of these voxels stays what it was.
    """
    made = []
    for crop in x:
        for _ in range(np.random.randint(1, 4)):
            sides = [max(1, round(n * np.random.uniform(0.1, 0.3))) for n in x.shape[2:]]
            crop = torch.where(box_mask(x.shape[2:], sides, x.device), float(np.random.uniform(*CUT_VALUES)), crop)
        made.append(crop)
    return torch.stack(made)


def fourier_mix(x: torch.Tensor, following: torch.Tensor) -> torch.Tensor:
    """Mix the amplitudes of low frequencies with those of ``following``; phases, the anatomy, stay.

    Yang & Soatto, FDA, CVPR 2020, arXiv 2004.05498; mixed as in Xu et al., CVPR 2021, arXiv 2105.11120.
    """
    axes = tuple(range(2, x.ndim))
    spectra = [torch.fft.rfftn(value, dim=axes) for value in (x, following)]
    frequencies = [torch.fft.fftfreq(n, device=x.device) for n in x.shape[2:-1]]
    frequencies.append(torch.fft.rfftfreq(x.shape[-1], device=x.device))
    distance = torch.stack(torch.meshgrid(*frequencies, indexing="ij")).abs().amax(0)
    mine, theirs = (spectrum.abs() for spectrum in spectra)
    limit = uniform(x, 0.03, 0.1, channels=False).clamp(min=1 / max(x.shape[2:]))  # one more than the mean at least
    weight = torch.where(distance <= limit, uniform(x, 0.4, 1.0), 0.0)
    ratio = (mine + weight * (theirs - mine)) / mine.clamp(min=1e-6)
    return torch.fft.irfftn(spectra[0] * ratio, s=x.shape[2:], dim=axes)


def long_axes(x: torch.Tensor) -> list[int]:
    """Return the spatial axes of ``x`` that have voxels enough to be smoothed along."""
    return [axis for axis, n in enumerate(x.shape[2:]) if n * THIN >= max(x.shape[2:])]


def grouped_convolution(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Convolve each crop of ``x`` (u, c, *spatial) with kernels of its own; the border's voxels go on outside.

    ``weight`` is (u * outputs, inputs, *size), or (u * c, 1, *size) for each channel by itself.
    """
    shape = x.shape[2:]
    padding = [size // 2 for size in reversed(weight.shape[2:]) for _ in range(2)]
    padded = functional.pad(x, padding, mode="replicate")
    padded = padded.reshape(1, -1, *padded.shape[2:])
    convolve: Any = functional.conv2d if x.ndim == 4 else functional.conv3d
    made: torch.Tensor = convolve(padded, weight, groups=padded.shape[1] // weight.shape[1])
    return made.reshape(len(x), -1, *shape)


# Each operation with its probability, in the order in which it acts.
OPERATIONS: dict[Callable[..., torch.Tensor], float] = {
    fourier_mix: 0.15,
    gamma: 0.3,
    contrast: 0.35,
    bias_field: 0.25,
    random_convolution: 0.15,
    low_resolution: 0.15,
    blur_or_sharpen: 0.25,
    noise: 0.25,
    cut_out: 0.25,
}
FALLBACKS = (gamma, contrast, bias_field, noise)
