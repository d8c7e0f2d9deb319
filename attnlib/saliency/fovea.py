"""A picture as the eye resolves it: sharp where it looks, coarser the farther away."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from attnlib.arguments import positive
from attnlib.attention import check_feature_map

# Geisler and Perry 1998: the eccentricity, in degrees, at which acuity is half of what it is at fixation; and the
# finest grating seen there, in cycles per degree: ln(1/CT0)/α with the least visible contrast CT0 = 1/64, α = 0.106.
HALF_ACUITY = 2.3
FOVEAL_CUTOFF = math.log(64) / 0.106
# A Gaussian of this many pixels halves a grating of one cycle in two pixels, the finest a picture can hold.
PIXEL_BLUR = math.sqrt(2 * math.log(2)) / math.pi
# The first blurred copy, in pixels; each further one has twice the blur of the one before.
_FIRST = 0.5


def cutoff(eccentricity: Tensor, foveal: float = FOVEAL_CUTOFF, half_acuity: float = HALF_ACUITY) -> Tensor:
    """The finest grating that is seen, in cycles per degree: ``foveal * half_acuity / (half_acuity + eccentricity)``.

    Geisler, Perry, "Real-time foveated multiresolution system for low-bandwidth video communication", Human Vision and
    Electronic Imaging III, SPIE 3299, 1998, for a contrast of 1.

    Args:
        eccentricity: angle from the point of fixation in degrees, any shape.
        foveal: the finest grating seen at fixation, in cycles per degree; theirs, about 39, by default.
        half_acuity: the eccentricity in degrees at which it is half of that.

    Raises:
        ValueError: `foveal` or `half_acuity` is not above 0.
    """
    positive("foveal", foveal)
    positive("half_acuity", half_acuity)
    return foveal * half_acuity / (half_acuity + eccentricity)


def eccentricity(size: tuple[int, int], at: Tensor | Sequence[float], degrees_per_pixel: float) -> Tensor:
    """How far from the point of fixation each pixel is, in degrees: (B, H, W), float64, on the CPU.

    A pixel spans the same angle everywhere, which holds while the picture is small against its distance from the eye.

    Args:
        size: height H and width W in pixels.
        at: x and y of fixation in pixels from the left and the upper edge, (2,) or one for each picture (B, 2). As in
            `attnlib.data.Fixations`, the pixel in column j covers j ≤ x < j + 1: its middle is at j + 1/2.
        degrees_per_pixel: the angle that a pixel spans.

    Raises:
        ValueError: a fixation outside the picture or of another shape, or an angle that is not above 0.
    """
    at = (at.cpu() if isinstance(at, Tensor) else torch.as_tensor(at, dtype=torch.float64)).double()
    if at.dim() not in (1, 2) or at.shape[-1] != 2:
        raise ValueError(f"a fixation is x and y, (2,) or one pair for each picture (B, 2), not {tuple(at.shape)}")
    positive("degrees_per_pixel", degrees_per_pixel)
    x, y = at.reshape(-1, 2).T
    height, width = size
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)  # also false for NaN
    if not bool(inside.all()):
        first = int(inside.int().argmin())
        raise ValueError(f"the fixation x = {x[first]:g}, y = {y[first]:g} lies outside the picture, which is {width} "
                         f"pixels wide and {height} high")
    columns, rows = (torch.arange(n, dtype=at.dtype) + 0.5 for n in (width, height))
    return degrees_per_pixel * torch.hypot(rows[:, None] - y[:, None, None], columns - x[:, None, None])


def blur_width(
    eccentricity: Tensor, degrees_per_pixel: float, foveal: float | None = None, half_acuity: float = HALF_ACUITY
) -> Tensor:
    """Standard deviation, in pixels, of the Gaussian that takes from a picture what is not seen there.

    A Gaussian that halves the contrast of the grating at the `cutoff` takes the place of the eye's limit, and one that
    halves it at the finest grating a picture can hold (half a cycle a pixel) that of the pixels. What is returned is
    what the first adds to the second, variances being added: 0 where the eye sees all that the picture can hold, and
    from there rising steadily.

    Args:
        eccentricity: in degrees, any shape.
        degrees_per_pixel: the angle that a pixel spans.
        foveal: the finest grating seen at fixation, in cycles per degree; by default the finest that the picture can
            hold, as if its pixels were just small enough for the eye.
        half_acuity: the eccentricity in degrees at which it is half of that.

    Raises:
        ValueError: `degrees_per_pixel`, `foveal` or `half_acuity` is not above 0.
    """
    positive("degrees_per_pixel", degrees_per_pixel)
    finest = 0.5 / degrees_per_pixel
    times = finest / cutoff(eccentricity, finest if foveal is None else foveal, half_acuity)
    return PIXEL_BLUR * (times.square() - 1).clamp(min=0).sqrt()


def foveate(
    images: Tensor,
    at: Tensor | Sequence[float],
    degrees_per_pixel: float,
    *,
    foveal: float | None = None,
    half_acuity: float = HALF_ACUITY,
) -> Tensor:
    """Pictures as they are resolved by an eye that fixates one point: `blur_width` rises with the distance from it.

    Blurred copies of the picture, each with twice the blur of the one before, are mixed pixel by pixel: always the two
    whose blur lies below and above what is wanted there, in such shares that the variances add up to the one wanted.
    Geisler and Perry mix the levels of a pyramid, which are smaller pictures, and choose by their cut-off frequency;
    here all copies have full size. With the default `foveal` the picture is as sharp as it is at the point of fixation
    and acuity falls relative to that; ``foveal=FOVEAL_CUTOFF`` is the human eye, which on most pictures of a few
    hundred pixels notices nothing. Colour, crowding and the blind spot are left out.

    Args:
        images: (B, C, H, W) in floating point.
        at: x and y of fixation in pixels, (2,) or one for each picture (B, 2), as for `eccentricity`.
        degrees_per_pixel: the angle that a pixel spans; 0.1 for a picture of 300 pixels that spans 30 degrees.
        foveal, half_acuity: as for `blur_width`.

    Returns:
        (B, C, H, W), of the same type and on the same device. Where there is no blur, values are those of the picture,
        bit for bit.

    Raises:
        TypeError: images that are no floating-point tensor.
        ValueError: images of another shape or not finite, a fixation outside, another number of fixations than of
            pictures, or an angle or a frequency that is not above 0.
    """
    check_feature_map(images, None, "foveate")
    if not bool(images.isfinite().all()):
        raise ValueError("the images hold NaN or infinite values, which a blur would spread over the whole picture")
    away = eccentricity(images.shape[-2:], at, degrees_per_pixel)
    if len(away) not in (1, len(images)):
        raise ValueError(f"foveate takes one fixation, or one for each of the {len(images)} pictures, not {len(away)}")
    wanted = blur_width(away, degrees_per_pixel, foveal, half_acuity).square()  # variances, (1 or B, H, W)
    levels = variances_up_to(float(wanted.max()) if len(wanted) else 0.0)
    exact = images if images.dtype == torch.float64 else images.float()
    shares = _shares(wanted, levels).to(images.device, exact.dtype)  # (levels, 1 or B, H, W)
    mixed = sum(share[:, None] * copy for share, copy in zip(shares, blurred(exact, levels)))
    return mixed.to(images.dtype)


def blurred(images: Tensor, variances: Sequence[float]) -> list[Tensor]:
    """Copies of `images` (B, C, H, W), each blurred by a Gaussian of one of the `variances` in square pixels.

    By the discrete Gaussian (Lindeberg, "Scale-Space for Discrete Signals", IEEE PAMI 12(3), 1990), whose variance is
    exact however small it is, and whose values are above 0 and sum to one. Beyond its edges the picture goes on
    mirrored, so that any picture can be blurred by any amount, a constant one stays constant and the mean of each
    picture is kept. Variance 0 gives the picture itself.
    """
    (down, slow_rows), (across, slow_columns) = (_cosines(n, images) for n in images.shape[-2:])
    spectrum = down @ images @ across.mT
    return [
        images if variance == 0 else
        down.mT @ (spectrum * (variance * slow_rows[:, None]).exp() * (variance * slow_columns).exp()) @ across
        for variance in variances
    ]


def _cosines(count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The orthonormal cosines that a mirrored line of `count` pixels consists of, in rows, and how fast a blur takes
    each of them: for a variance of t, what is left is exp(t × rate)."""
    pixels = torch.arange(count, dtype=torch.float64)
    wave = pixels * math.pi / count
    cosines = (wave[:, None] * (pixels + 0.5)).cos() * math.sqrt(2 / count)
    cosines[0] = math.sqrt(1 / count)
    return cosines.to(like), (wave.cos() - 1).to(like)


def variances_up_to(most: float) -> list[float]:
    """Variances of the copies: none, then of standard deviations that double, until `most` is reached."""
    levels = [0.0, _FIRST**2]
    while levels[-1] < most:
        levels.append(4 * levels[-1])
    return levels


def _shares(wanted: Tensor, levels: Sequence[float]) -> Tensor:
    """How much of each level makes up the variances `wanted`: (levels, ...), summing to one over the levels."""
    grid = wanted.new_tensor(levels)
    above = torch.searchsorted(grid, wanted).clamp(min=1)
    share = (wanted - grid[above - 1]) / (grid[above] - grid[above - 1])
    shares = wanted.new_zeros(len(levels), *wanted.shape).scatter_(0, above[None], share[None])
    return shares.scatter_(0, above[None] - 1, 1 - share[None])
