"""Itti, Koch and Niebur's model: what differs from its surroundings is salient, in brightness, colour or direction."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from attnlib.saliency.features import checked, intensity, opponents, orientations, pyramid, resized, visible
from attnlib.saliency.fixations import stretched

CENTRES, DELTAS = (2, 3, 4), (3, 4)
# Feature maps are added at the scale of 1/16.
_SCALE = 4


def itti_koch(images: Tensor) -> Tensor:
    """Saliency by centre and surround.

    Itti, Koch, Niebur, "A model of saliency-based visual attention for rapid scene analysis", TPAMI 20(11), 1998. Each
    feature is compared between scale c ∈ {2, 3, 4} of a pyramid and scale c + δ, δ ∈ {3, 4}; `peaked` favours maps with
    one strong peak over those with many; they are added within brightness, colour and direction, and once more.

    Differences to the paper: the colour contrast is ``|RG(c) − RG(s)|``, as in public implementations (the paper's
    equations subtract GR(s), by which a red spot on green would cancel and an even red wall be salient). The pyramid is
    that of `features.pyramid`. The winner-take-all network that moves a focus of attention over the map is left out.
    Scales below one pixel stay at one pixel, so that small pictures have a map, too; the paper's had 640×480 pixels,
    and below about 256 the coarsest scales add little.

    Args:
        images: (N, 3, H, W) or (N, 1, H, W) in 0–1, floating point; grey pictures have no colour contrast.

    Returns:
        (N, H, W) in 0–1; 0 everywhere for a constant picture, as one of a single pixel is.

    Raises:
        TypeError, ValueError: as for `attnlib.saliency.features.checked`.
    """
    images = checked(images)
    maps = sum(peaked(channel) for channel in conspicuities(images)) / 3
    return stretched(resized(maps, images.shape[-2:]))[:, 0]


def conspicuities(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The maps for brightness, colour and direction, before the last `peaked`: (N, 1, H/16, W/16) each.

    Args:
        images: (N, 3, H, W).
    """
    levels = max(CENTRES) + max(DELTAS) + 1
    bright = pyramid(intensity(images), levels)
    colours = pyramid(opponents(images), levels)
    striped = [orientations(level) for level in bright]
    within = [_added(one) for one in (bright, colours, striped)]
    # Each direction is a map of its own that has to stand out.
    return within[0], within[1].sum(1, keepdim=True), peaked(within[2]).sum(1, keepdim=True)


def peaked(maps: Tensor) -> Tensor:
    """The paper's N(·): a map with one strong peak stays, one with many equal ones vanishes. (N, C, h, w), each alone.

    Stretched to 0–1, then times (1 − m)², where m is the mean of all local maxima but the highest. A local maximum is
    above 0 and nowhere below its eight neighbours.
    """
    maps = stretched(maps)
    high = (maps == F.max_pool2d(maps, 3, stride=1, padding=1)) & (maps > 0)
    others = high.sum((2, 3)) - 1
    mean = ((maps * high).sum((2, 3)) - 1) / others.clamp(min=1)
    mean = torch.where(others > 0, mean, 0)
    return maps * (1 - mean[:, :, None, None]) ** 2


def _added(scales: list[Tensor]) -> Tensor:
    """The sum of `peaked` differences between centre and surround, (N, C, h, w) at scale 1/16."""
    size = scales[_SCALE].shape[-2:]
    total = torch.zeros_like(scales[_SCALE])
    for centre in CENTRES:
        for delta in DELTAS:
            here = scales[centre]
            around = F.interpolate(scales[centre + delta], here.shape[-2:], mode="bilinear", align_corners=False)
            total = total + resized(peaked(visible((here - around).abs())), size)
    return total
