"""From fixations to a saliency map, in four steps.

1. Show the picture.
2. Record what every observer fixates: `attnlib.data.Fixations`.
3. Blur: every fixation becomes a Gaussian as wide as what is seen sharply around it, about one degree of visual angle.
4. Normalise to 0–1, to look at it or to compare; or to a sum of 1, where it is meant as a probability.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attnlib.data.fixations import Fixations


def saliency_map(fixations: Fixations, sigma: float) -> Tensor:
    """Steps 2 to 4: the fixations of all observers, blurred, with the greatest value of each picture at 1.

    Every fixation counts, also several in one pixel; how long they lasted does not. (The code that was released with
    OSIE marks a pixel once, however often it was hit.) A blurred map has no pixel at exactly 0 unless it is far from
    all fixations; the minimum is not subtracted, because it is part of what was measured.

    Args:
        fixations: on N pictures of H×W pixels.
        sigma: standard deviation of the Gaussian in pixels; 0 does not blur. OSIE's authors take 24 on 800×600.

    Returns:
        (N, H, W) float64 in 0–1; 0 everywhere for a picture that nobody fixated.

    Raises:
        ValueError: a sigma that is negative or not finite.
    """
    return rescaled(blur(fixations.counts(), sigma))


def blur(maps: Tensor, sigma: float | tuple[float, float], *, border: str = "zero") -> Tensor:
    """Gaussian blur, exact at any width: as the product with one matrix for the rows and one for the columns.

    The weights are those of a Gaussian at whole pixels, with a sum of 1 over the infinite line; nothing is cut off.

    Args:
        maps: (..., H, W), floating point.
        sigma: standard deviation in pixels; or that of the rows and that of the columns. 0 does not blur.
        border: what lies around the picture. ``"zero"``: nothing, so that what is blurred over the edge is lost, as is
            usual for fixations. ``"inside"``: it is left out of the average, so that a constant picture stays constant.

    Returns:
        the shape and dtype of `maps`.

    Raises:
        ValueError: a sigma that is negative or not finite, or another word for `border`.
    """
    if border not in ("zero", "inside"):
        raise ValueError(f"border is 'zero' or 'inside', not {border!r}")
    across, along = (sigma, sigma) if isinstance(sigma, (int, float)) else sigma
    rows = _gaussian(maps.shape[-2], across, border, maps)
    columns = _gaussian(maps.shape[-1], along, border, maps)
    return rows @ maps @ columns.T


def rescaled(maps: Tensor) -> Tensor:
    """Each map divided by its greatest value, which becomes 1; a map of zeros stays one. (..., H, W), not negative."""
    most = maps.amax((-2, -1), keepdim=True)
    return maps / torch.where(most > 0, most, 1)


def stretched(maps: Tensor) -> Tensor:
    """Each map shifted and scaled so that it reaches from 0 to 1; a constant map becomes 0. (..., H, W)."""
    maps = maps - maps.amin((-2, -1), keepdim=True)
    return rescaled(maps)


def density(maps: Tensor) -> Tensor:
    """Each map as a probability over its pixels: divided by its sum. A map of zeros becomes the uniform one.

    Args:
        maps: (..., H, W), finite and not negative.

    Returns:
        (..., H, W) float64, each with a sum of 1.

    Raises:
        ValueError: a value that is negative or not finite.
    """
    maps = maps.double()
    if not (maps.isfinite() & (maps >= 0)).all():
        raise ValueError("a map that is read as a probability holds no negative, infinite or missing value; subtract "
                         "the minimum first, or take the exponential if it holds logarithms")
    # The greatest value first, so that neither tiny nor huge values leave the range of float64.
    maps = rescaled(maps)
    total = maps.sum((-2, -1), keepdim=True)
    return torch.where(total > 0, maps / torch.where(total > 0, total, 1), 1 / (maps.shape[-2] * maps.shape[-1]))


def centre_bias(size: tuple[int, int], spread: float = 0.25, *, device=None) -> Tensor:
    """A Gaussian in the middle of the picture, stretched to its proportions: (H, W) float64, greatest value at most 1.

    The baseline that knows nothing of the picture: people look at the middle, because that is where the screen makes
    them start, and where photographers put what matters (Judd, Durand, Torralba, MIT-CSAIL-TR-2012-001).

    Args:
        size: height and width in pixels.
        spread: standard deviation as a share of the height, and of the width.

    Raises:
        ValueError: a spread that is not positive.
    """
    if not spread > 0:
        raise ValueError(f"the spread of the centre bias is a positive share of the picture's sides, not {spread}")
    sides = [(torch.arange(n, dtype=torch.float64, device=device) + 0.5) / n - 0.5 for n in size]
    rows, columns = (torch.exp(-((side / spread) ** 2) / 2) for side in sides)
    return rows[:, None] * columns


def elsewhere(fixations: Fixations) -> Tensor:
    """For every picture, how many fixations hit each pixel on *all other* pictures: (N, H, W) float64.

    What shuffled AUC takes for its negatives, and, blurred, the centre bias that was measured without the picture.

    Raises:
        ValueError: fewer than two pictures: there are no others.
    """
    if fixations.pictures < 2:
        raise ValueError("the fixations on other pictures need at least two pictures")
    counts = fixations.counts()
    return counts.sum(0) - counts


def _gaussian(n: int, sigma: float, border: str, like: Tensor) -> Tensor:
    """The n×n matrix that blurs a row of n pixels."""
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"the standard deviation of a blur is 0 or more pixels, not {sigma}")
    if sigma == 0:
        return torch.eye(n, dtype=like.dtype, device=like.device)
    # As far as float64 tells the tails from 0, for the sum over the infinite line.
    reach = max(n, math.ceil(40 * sigma))
    line = torch.exp(-((torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma) ** 2) / 2)
    at = torch.arange(n)
    weights = (line / line.sum())[reach + at[:, None] - at]
    if border == "inside":
        weights = weights / weights.sum(1, keepdim=True)
    return weights.to(like)
