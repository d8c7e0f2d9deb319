"""What the classical models of saliency see: brightness, two colour contrasts, and four directions, at several scales.

Itti, Koch, Niebur, "A model of saliency-based visual attention for rapid scene analysis", TPAMI 20(11), 1998,
section 2.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ANGLES = (0, 45, 90, 135)
# Gabor filters as in the authors' later toolbox: period, deviation and side in pixels.
_PERIOD, _DEVIATION, _SIDE = 7.0, 7.0 / 3, 9
# A fortieth of what a picture of bytes can tell apart.
_VISIBLE = 1e-4


def checked(images: Tensor) -> Tensor:
    """Pictures in 0–1 as (N, 3, H, W); a grey one gets three equal channels.

    Raises:
        TypeError: no floating-point tensor.
        ValueError: another number of axes or channels, no pixel, or a value that is not finite.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"pictures are a floating-point tensor (N, 3, H, W) in 0–1, not {kind}")
    if images.dim() == 4 and images.shape[1] == 4:
        raise ValueError("these pictures have 4 channels; lay the transparent ones on white first: "
                         "images[:, :3] * images[:, 3:] + 1 - images[:, 3:]")
    if images.dim() != 4 or images.shape[1] not in (1, 3) or not images.numel():
        raise ValueError(f"pictures are (N, 3, H, W), or (N, 1, H, W) in grey, not {tuple(images.shape)}")
    if not images.isfinite().all():
        raise ValueError("a picture holds NaN or infinite values")
    return images.expand(-1, 3, -1, -1)


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, h, w) to (N, C, H, W) of `size`, bilinear, averaging where it becomes smaller."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False, antialias=True)


def visible(maps: Tensor) -> Tensor:
    """`maps` (N, C, h, w) of features of pictures in 0–1, where those that hardly vary are 0.

    The models stretch every map to its full range: without this, what rounding leaves of a constant one would count as
    much as a real difference.
    """
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return torch.where(high - low > _VISIBLE, maps, 0)


def intensity(images: Tensor) -> Tensor:
    """The mean of the three channels: (N, 3, H, W) → (N, 1, H, W)."""
    return images.mean(1, keepdim=True)


def opponents(images: Tensor) -> Tensor:
    """Red against green, and blue against yellow: (N, 3, H, W) → (N, 2, H, W).

    The channels are divided by the brightness, so that colour does not depend on it, and count only where that exceeds
    a tenth of its maximum: nobody sees the colour of what is almost black.
    """
    bright = intensity(images)
    enough = bright > bright.amax((2, 3), keepdim=True) / 10
    r, g, b = torch.where(enough, images / torch.where(enough, bright, 1), 0).split(1, 1)
    red, green, blue = ((one - (two + three) / 2).clamp(min=0) for one, two, three in ((r, g, b), (g, r, b), (b, r, g)))
    yellow = ((r + g) / 2 - (r - g).abs() / 2 - b).clamp(min=0)
    return torch.cat([red - green, blue - yellow], 1)


def pyramid(maps: Tensor, levels: int) -> list[Tensor]:
    """`maps` (N, C, H, W), and versions of half, a quarter … of its sides, rounded up, never below 1 pixel.

    Each pixel is the mean over 4×4 pixels of the level before, with weights (1 3 3 1)/8 along both axes. An even number
    of weights keeps a pixel in the middle of the four below it: with the usual five, the levels shift against each
    other, and centre and surround would lie at different places. Beyond the border there is nothing to average.
    """
    channels = maps.shape[1]
    line = maps.new_tensor([1.0, 3, 3, 1]) / 8
    kernel = (line[:, None] * line)[None, None]
    found = [maps]
    while len(found) < levels:
        height, width = found[-1].shape[-2:]
        around = (1, 1 + width % 2, 1, 1 + height % 2)
        share = F.conv2d(F.pad(maps.new_ones(1, 1, height, width), around), kernel, stride=2)
        means = F.conv2d(F.pad(found[-1], around), kernel.expand(channels, 1, 4, 4), stride=2, groups=channels)
        found.append(means / share)
    return found


def orientations(bright: Tensor) -> Tensor:
    """How strongly each place is striped in each of four directions: (N, 1, H, W) → (N, 4, H, W), 0 where it is even.

    The magnitude of an even and an odd Gabor filter. At 0° the stripes are horizontal; angles go counter-clockwise.
    """
    around = F.pad(bright, (_SIDE // 2,) * 4, mode="replicate")
    even, odd = (F.conv2d(around, kernels.to(bright)) for kernels in _gabors())
    return (even.square() + odd.square()).sqrt()


def _gabors() -> tuple[Tensor, Tensor]:
    """Even and odd filters, (4, 1, 9, 9) each, with a sum of 0 and the same strength."""
    place = torch.arange(_SIDE, dtype=torch.float64) - _SIDE // 2
    angle = torch.tensor(ANGLES, dtype=torch.float64)[:, None, None].deg2rad()
    # Across the stripes; rows are counted downwards.
    across = angle.sin() * place + angle.cos() * place[:, None]
    window = torch.exp(-(place**2 + place[:, None] ** 2) / (2 * _DEVIATION**2))
    kernels = []
    for wave in (torch.cos, torch.sin):
        kernel = window * wave(2 * math.pi * across / _PERIOD)
        kernel = kernel - window * kernel.sum((1, 2), keepdim=True) / window.sum()
        kernels.append((kernel / kernel.abs().sum((1, 2), keepdim=True))[:, None])
    return kernels[0], kernels[1]
