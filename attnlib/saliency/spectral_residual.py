"""Spectral residual: what is salient is what the average spectrum does not explain."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from attnlib.saliency.features import checked, intensity, resized
from attnlib.saliency.fixations import blur, stretched


def spectral_residual(images: Tensor, *, width: int = 64, sigma: float = 2.5) -> Tensor:
    """Saliency by the spectral residual.

    Hou, Zhang, "Saliency detection: a spectral residual approach", CVPR 2007. Of the small grey picture's Fourier
    transform with amplitude A and phase P::

        L = log A,    R = L − (mean of L over 3×3 frequencies),    saliency = g * |F⁻¹ exp(R + iP)|²

    The small size decides at which scale something is salient. Differences to the authors' published code: a picture
    narrower than `width` is not enlarged; the spectrum, which is periodic, is averaged across its border rather than up
    to it; a frequency that does not occur counts as 1e-8 of the strongest, as it has no logarithm; and the Gaussian g
    is not cut off.

    Args:
        images: (N, 3, H, W) or (N, 1, H, W), floating point.
        width: of the small picture in pixels; its height follows.
        sigma: standard deviation of g in pixels of the small picture, 2.5 in the authors' code; 0 does not blur.

    Returns:
        (N, H, W) in 0–1; 0 everywhere for a constant picture, as one of a single pixel is.

    Raises:
        TypeError, ValueError: as for `attnlib.saliency.features.checked`; a width below 1, or a negative sigma.
    """
    if width < 1:
        raise ValueError(f"the small picture is at least 1 pixel wide, not {width}")
    grey = intensity(checked(images))
    height, width = _small(grey.shape[-2:], width)
    residual = _residual(resized(grey, (height, width)))
    found = resized(stretched(blur(residual, sigma)), grey.shape[-2:])
    constant = grey.amax((2, 3), keepdim=True) == grey.amin((2, 3), keepdim=True)
    return stretched(torch.where(constant, 0, found))[:, 0]


def _residual(grey: Tensor) -> Tensor:
    spectrum = torch.fft.fft2(grey)
    amplitude = spectrum.abs()
    floor = 1e-8 * amplitude.amax((2, 3), keepdim=True).clamp(min=torch.finfo(grey.dtype).tiny * 1e8)
    log = torch.maximum(amplitude, floor).log()
    residual = log - F.avg_pool2d(_wrapped(log), 3, stride=1)
    return torch.fft.ifft2(torch.polar(residual.exp(), spectrum.angle())).abs().square()


def _wrapped(maps: Tensor) -> Tensor:
    """With one more row and column around, from the opposite side."""
    maps = torch.cat([maps[..., -1:, :], maps, maps[..., :1, :]], -2)
    return torch.cat([maps[..., -1:], maps, maps[..., :1]], -1)


def _small(size: tuple[int, int], width: int) -> tuple[int, int]:
    if size[1] <= width:
        return tuple(size)
    return max(1, round(size[0] * width / size[1])), width
